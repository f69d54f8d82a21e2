//! Work that is done on several threads, an item at a time.

use super::SweepError;
use crate::train::TrainError;
use std::{
    panic::{catch_unwind, AssertUnwindSafe},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// It could not be made, or diverged.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The work of the run panicked.
    #[error("it panicked, see above")] // the panic itself has been printed
    Panicked,
}

/// A function that gets each item when it ends, with its result.
pub(crate) type Done<'a, I, T> = dyn FnMut(&I, Result<T, RunError>) -> Result<(), SweepError> + 'a;

/// Does `work` on each of `items`, `jobs` at a time, each on a thread of its own.
///
/// `done` is called on the caller's thread.
///
/// # Errors
/// [`SweepError::Threads`], before anything is begun; what `done` fails with: work that is under
/// way is finished then, but not kept.
pub(crate) fn each<I: Sync, T: Send>(
    items: &[I],
    jobs: usize,
    work: &(dyn Fn(&I) -> Result<T, TrainError> + Sync),
    done: &mut Done<'_, I, T>,
) -> Result<(), SweepError> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    // Built before any work begins, so that failing to costs nothing.
    let pools = (0..jobs.clamp(1, items.len().max(1)))
        .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        for pool in &pools {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let worked = catch_unwind(AssertUnwindSafe(|| pool.install(|| work(item))));
                    let worked = worked.map_err(|_| RunError::Panicked);
                    let worked = worked.and_then(|worked| worked.map_err(RunError::Train));
                    if sender.send((item, worked)).is_err() {
                        return; // the receiver is gone
                    }
                }
            });
        }
        drop(sender);
        receiver.into_iter().try_for_each(|(item, worked)| done(item, worked))
    })
}
