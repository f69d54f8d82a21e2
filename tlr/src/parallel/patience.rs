//! [`Patience`]: waiting for another rank by asking again and again.

use std::{thread, time::Duration};

/// The number of polls without sleep, as the answer is usually near.
const EAGER: u32 = 300;

/// The sleep between later polls. The other rank may need the core.
pub(super) const NAP: Duration = Duration::from_micros(20);

/// Waiting for another rank, on cores that it may need.
#[derive(Default)]
pub(super) struct Patience(u32);

impl Patience {
    pub(super) fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            ..EAGER => std::hint::spin_loop(),
            _ => thread::sleep(NAP),
        }
    }
}
