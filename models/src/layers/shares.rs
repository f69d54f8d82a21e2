//! How work is shared out among threads.

use rayon::{
    iter::MinLen,
    prelude::*,
    slice::{ChunksExactMut, ChunksMut},
};

/// One thread does the work if there are fewer numbers than this: to wake another one takes some
/// tens of microseconds. Tests split whatever they can, because their problems are small.
const WORTH: usize = if cfg!(test) { 1 } else { 1 << 15 };

/// The least part of the work on `numbers` numbers that one thread does. If there is only one
/// thread, or little work, that is all of it, on the calling thread.
pub(super) fn least(numbers: usize) -> usize {
    if rayon::current_num_threads() == 1 || numbers < WORTH {
        usize::MAX
    } else {
        1
    }
}

/// rayon's chunks, with [`least`] of the slice's length. A chain of `zip`s takes the largest
/// minimum of its parts. So it begins with the slice whose length measures the work, and goes on
/// with rayon's own chunks.
pub(super) trait Shares<T> {
    fn shared_chunks_mut(&mut self, size: usize) -> MinLen<ChunksMut<'_, T>>;

    fn shared_chunks_exact_mut(&mut self, size: usize) -> MinLen<ChunksExactMut<'_, T>>;
}

impl<T: Send> Shares<T> for [T] {
    fn shared_chunks_mut(&mut self, size: usize) -> MinLen<ChunksMut<'_, T>> {
        let least = least(self.len());
        self.par_chunks_mut(size).with_min_len(least)
    }

    fn shared_chunks_exact_mut(&mut self, size: usize) -> MinLen<ChunksExactMut<'_, T>> {
        let least = least(self.len());
        self.par_chunks_exact_mut(size).with_min_len(least)
    }
}
