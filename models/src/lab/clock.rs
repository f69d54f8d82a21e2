//! [`Clock`]: time that a thread has worked.

use std::time::Instant;

/// A clock that starts when it is made. On Linux, if the work is done on this thread, it counts the
/// time that a processor has spent on the thread, so that other work on the machine does not count.
/// Otherwise it counts the time that passes.
pub(super) struct Clock {
    wall: Instant,
    worked: Option<u64>,
}

impl Clock {
    pub(super) fn start(on_the_thread: bool) -> Self {
        Self { wall: Instant::now(), worked: on_the_thread.then(worked).flatten() }
    }

    /// The time so far, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        match self.worked.zip(worked()) {
            Some((before, now)) => now.saturating_sub(before) as f64 * 1e-9,
            None => self.wall.elapsed().as_secs_f64(),
        }
    }
}

/// The nanoseconds that this thread has been on a processor.
fn worked() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    // Fails if the clock stands still. On Linux it also fails if the clock goes on while the thread
    // sleeps.
    #[test]
    fn it_counts_work() {
        let clock = Clock::start(true);
        let mut sum = 0.0_f64;
        while clock.seconds() < 0.02 && clock.wall.elapsed() < Duration::from_secs(60) {
            sum += (1..1000).map(f64::from).map(f64::sqrt).sum::<f64>();
        }
        assert!(sum > 0.0 && clock.seconds() >= 0.02);
        if worked().is_some() {
            let clock = Clock::start(true);
            std::thread::sleep(Duration::from_millis(200));
            assert!(clock.seconds() < 0.1);
            let passing = Clock::start(false);
            std::thread::sleep(Duration::from_millis(20));
            assert!(passing.seconds() >= 0.02);
        }
    }
}
