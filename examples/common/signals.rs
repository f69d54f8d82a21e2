//! Notices Ctrl-C and other requests to stop.

use super::warn;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use std::{
    fs, io,
    process::ExitCode,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

/// A request to stop after the step that the run is in; a second one ends it at once. (Not within
/// the first second: `timeout` and some shells send each signal twice.)
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// From now on signals are such requests.
    pub(super) fn listen() -> io::Result<Self> {
        let (asked, signal) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let again = Arc::new(AtomicBool::new(false));
        let mut numbers = vec![SIGINT, SIGTERM];
        numbers.extend(Some(SIGHUP).filter(|_| heeds_hang_up()));
        for number in numbers {
            flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&again))?;
            flag::register_usize(number, Arc::clone(&signal), number as usize)?;
            flag::register(number, Arc::clone(&asked))?;
        }
        // A step may take long, and nothing can be printed where the signal arrives.
        let seen = Arc::clone(&asked);
        thread::Builder::new().name("signals".into()).spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
            }
            warn(format_args!("\nstopping after this step; again to stop at once"));
            thread::sleep(Duration::from_secs(1));
            again.store(true, Ordering::Relaxed);
        })?;
        Ok(Self { asked, signal })
    }

    /// True once it was asked for.
    pub(super) fn asked(&self) -> &AtomicBool {
        &self.asked
    }

    /// The exit status as shells report it after a signal: 130 after Ctrl-C, 143 after SIGTERM, 129
    /// if the terminal was closed.
    pub(super) fn status(&self) -> ExitCode {
        let status = status_of(self.signal.load(Ordering::Relaxed));
        u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

/// The exit status after this signal. 0 is none: this rank stopped because another one was asked
/// to, and ends as if by Ctrl-C.
pub(super) fn status_of(signal: usize) -> usize {
    128 + if signal == 0 { SIGINT as usize } else { signal }
}

/// Whether a closed terminal asks the run to stop. Not after `nohup`, which ignores that signal: a
/// handler would undo it. Only Linux tells whether it is ignored; elsewhere no handler is set.
fn heeds_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) == 0)
}
