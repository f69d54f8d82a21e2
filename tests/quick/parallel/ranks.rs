//! Ranks that are threads.

use std::{
    thread,
    time::{Duration, Instant},
};
use tlr::parallel::{Communicator, Ranks, Threads};
use tlr_models::train::AnyRanks;

/// Long enough for a busy machine. No test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Does the same on so many ranks, and gives what each answers. Waits until all have ended.
pub(crate) fn on_ranks<T: Send>(size: usize, work: impl Fn(Ranks<Threads>) -> T + Sync) -> Vec<T> {
    on_patient_ranks(size, PATIENCE, work)
}

/// The same with another time-out.
pub(crate) fn on_patient_ranks<T: Send>(
    size: usize,
    time_out: Duration,
    work: impl Fn(Ranks<Threads>) -> T + Sync,
) -> Vec<T> {
    let begun = Instant::now();
    let done = thread::scope(|scope| {
        let threads: Vec<_> = Threads::new(size)
            .into_iter()
            .map(|own| scope.spawn(|| work(Ranks::new(own).time_out(time_out))))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(begun.elapsed() < 2 * PATIENCE, "a rank has waited for too long");
    done
}

/// The same for ranks in a box, as programs have them that know only when they run what carries
/// their messages.
pub(crate) fn on_boxed_ranks<T: Send>(size: usize, work: impl Fn(AnyRanks) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = Threads::new(size)
            .into_iter()
            .map(|own| {
                scope.spawn(move || {
                    let boxed: Box<dyn Communicator> = Box::new(own);
                    work(Ranks::new(boxed).time_out(PATIENCE))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
