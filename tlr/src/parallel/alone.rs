//! [`Alone`]: a communicator for a single process.

use super::{Communicator, LinkError};
use std::time::Instant;

/// One rank without others to talk to. With it, a program for many ranks also runs as a single
/// process. Each step is then the same, to the bit, as without
/// [`DataParallel`](crate::DataParallel).
///
/// Example: [`DataParallel::shard_snapshots`](crate::DataParallel::shard_snapshots).
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&mut self, _: usize, _: Vec<u8>) -> Result<(), LinkError> {
        Err(LinkError::Ended)
    }

    fn receive(&mut self, _: usize, _: Instant) -> Result<Vec<u8>, LinkError> {
        Err(LinkError::Ended)
    }
}
