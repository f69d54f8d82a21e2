//! Launches of kernels that work on each channel of a batch by itself.

use super::{
    launch::{Grid, MOST_IN_Y, THREADS},
    sizes::Planes,
};

/// The number of blocks that keeps a large GPU busy.
const BUSY: usize = 1024;
/// The least number of elements that a block takes. Tests have a smaller one, so that several
/// blocks share a channel, and each thread still takes several elements.
const SHARE: usize = if cfg!(test) { 700 } else { 1024 };

/// A launch on the planes of a batch. The blocks of a row share one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers) struct Channels {
    pub(in crate::layers) planes: Planes,
    pub(in crate::layers) grid: Grid,
    /// How many blocks share a channel. It depends on the sizes alone, and so does the order of all
    /// sums.
    pub(in crate::layers) shares: u32,
}

impl Channels {
    /// `None` if the numbers are too large for a launch.
    pub(in crate::layers) fn new([images, channels, pixels]: [usize; 3]) -> Option<Self> {
        let small = |number: usize| u32::try_from(number).ok();
        let elements = images.checked_mul(pixels)?;
        let shares = BUSY.div_ceil(channels.max(1)).min(elements.div_ceil(SHARE));
        let shares = shares.clamp(1, THREADS as usize) as u32;
        let planes =
            Planes { images: small(images)?, channels: small(channels)?, pixels: small(pixels)? };
        // Without elements nothing is launched.
        let grid = Grid(if elements == 0 { 0 } else { shares }, planes.channels);
        (channels <= MOST_IN_Y).then_some(Self { planes, grid, shares })
    }

    /// The bytes of `sums` numbers in f64 for each block.
    pub(in crate::layers) fn bytes_of_sums(&self, sums: usize) -> usize {
        self.planes.channels as usize * self.shares as usize * sums * size_of::<f64>()
    }
}

/// How many rows a block takes for the sums of columns.
const ROWS: usize = 32;
/// The most blocks that share the rows.
const MOST_SHARES: usize = 256;

/// How many blocks share the rows for the sums of their columns. As for
/// [`shares`](Channels::shares), this depends on the number of rows alone.
pub(in crate::layers) fn row_shares(rows: usize) -> usize {
    rows.div_ceil(ROWS).clamp(1, MOST_SHARES)
}
