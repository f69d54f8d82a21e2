//! How a convolution is cut up on CUDA: what one launch works on.

use super::geometry::Geometry;
use crate::layers::cuda::{Channels, Kind, Part};

/// About how many bytes the columns of a part of the batch take: few enough that a large GPU's
/// cache holds most of them until they are used, and enough to keep the GPU busy. Tests have small
/// images, so their parts are smaller, and there are several.
const PART_BYTES: usize = if cfg!(test) { 4 << 10 } else { 64 << 20 };
/// All numbers of a launch are below this: cuBLAS takes no larger ones.
const MOST: usize = 1 << 31;
/// A product that is cut into as many tiles as this keeps a large GPU busy.
const BUSY: usize = 256;
/// About the length of a tile's sides.
const TILE: usize = 64;

/// A convolution whose numbers are small enough for the kernels and cuBLAS.
#[derive(Clone, Copy, Debug)]
pub(in crate::layers) struct Plan {
    pub(super) kind: Kind,
    pub(super) g: Geometry,
    /// The channels of the outputs.
    pub(super) channels: Channels,
}

impl Plan {
    pub(super) fn new(kind: Kind, g: Geometry) -> Option<Self> {
        let fits = |numbers: &[usize]| {
            let mut numbers = numbers.iter();
            let product = numbers.try_fold(1_usize, |product, number| product.checked_mul(*number));
            product.is_some_and(|product| product < MOST)
        };
        let all_fit = fits(&[g.channels, g.height + 2 * g.padding, g.width + 2 * g.padding])
            && fits(&[g.channels, g.kernel, g.kernel])
            && fits(&[g.outputs, g.out_height, g.out_width])
            && fits(&[g.outputs, g.taps()])
            && [g.batch, g.stride, g.dilation].into_iter().all(|number| number < MOST);
        let channels = Channels::new([g.batch, g.outputs, g.out_pixels()])?;
        all_fit.then_some(Self { kind, g, channels })
    }
}

/// Some images, or some rows of the output of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) first: usize,
    pub(super) images: usize,
    pub(super) first_row: usize,
    pub(super) rows: usize,
}

impl Share {
    /// The number of outputs of each image in the share.
    pub(super) fn outputs(&self, g: &Geometry) -> usize {
        self.rows * g.out_width
    }

    /// The number of columns of the share's matrix.
    pub(super) fn columns(&self, g: &Geometry) -> usize {
        self.images * self.outputs(g)
    }

    /// Into how many products the sum over the columns of a share is split. Each product takes
    /// whole images. Together they have enough tiles to keep the GPU busy, and their results are no
    /// larger than the columns.
    pub(super) fn parts(&self, g: &Geometry) -> usize {
        let tiles = g.groups * (g.outputs / g.groups).div_ceil(TILE) * g.taps().div_ceil(TILE);
        let wanted = BUSY.div_ceil(tiles.max(1));
        let most = (g.groups * self.columns(g) / g.outputs.max(1)).clamp(1, self.images);
        let even = (1..=most).filter(|parts| self.images.is_multiple_of(*parts));
        even.min_by_key(|parts| parts.abs_diff(wanted)).unwrap_or(1)
    }
}

impl Geometry {
    /// The taps of all groups. The matrix of columns has a row for each of them, group after group.
    pub(super) fn all_taps(&self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    pub(super) fn weights(&self) -> usize {
        self.outputs * self.taps()
    }

    /// Cuts the batch into shares of `row_bytes` for each row of an output image, about
    /// [`PART_BYTES`] each.
    pub(super) fn shares(&self, row_bytes: usize) -> Vec<Share> {
        let height = self.out_height;
        let even = |count: usize, most: usize| count.div_ceil(count.div_ceil(most).max(1)).max(1);
        let rows = (PART_BYTES / row_bytes.max(1)).max(1);
        // The pixels of a part are counted in 32 bits.
        let most = (MOST / (self.height * self.width).max(1)).max(1);
        let images = even(self.batch, (rows / height.max(1)).clamp(1, most));
        let rows = even(height, rows.min(height.max(1)));
        let of_images = move |first| {
            (0..height).step_by(rows).map(move |first_row| Share {
                first,
                images: images.min(self.batch - first),
                first_row,
                rows: rows.min(height - first_row),
            })
        };
        (0..self.batch).step_by(images).flat_map(of_images).collect()
    }

    /// The sizes of a share, as a kernel takes them.
    pub(super) fn part(&self, share: &Share) -> Part {
        let reach = (self.kernel - 1) * self.dilation;
        let top = (share.first_row * self.stride).saturating_sub(self.padding).min(self.height);
        let last = (share.first_row + share.rows - 1) * self.stride + reach + 1;
        let end = last.saturating_sub(self.padding).clamp(top, self.height);
        Part {
            images: share.images as u32,
            channels: self.channels as u32,
            height: self.height as u32,
            width: self.width as u32,
            kernel: self.kernel as u32,
            stride: self.stride as u32,
            padding: self.padding as u32,
            dilation: self.dilation as u32,
            out_width: self.out_width as u32,
            first_row: share.first_row as u32,
            rows: share.rows as u32,
            top: top as u32,
            lines: (end - top) as u32,
        }
    }

    /// The sizes by which the kernel lays out `channels` planes of the output's size, channel by
    /// channel: its window then has one pixel.
    pub(super) fn transposing(&self, share: &Share, channels: usize) -> Part {
        let one = Self {
            channels,
            height: self.out_height,
            width: self.out_width,
            kernel: 1,
            stride: 1,
            padding: 0,
            dilation: 1,
            ..*self
        };
        one.part(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(batch: usize, channels: usize, height: usize, width: usize) -> Geometry {
        Geometry {
            batch,
            channels,
            height,
            width,
            outputs: 8,
            kernel: 3,
            stride: 1,
            padding: 1,
            dilation: 1,
            groups: 1,
            out_height: height,
            out_width: width,
        }
    }

    proptest! {
        // Fails where a row is left out or taken twice, and where a share is far too large though
        // it could be cut.
        #[test]
        #[ignore = "gpu"]
        fn gpu_shares_hold_each_row_once(
            batch in 0usize..200, channels in 1usize..20, height in 1usize..30,
            width in 1usize..30, bytes in 1usize..5000,
        ) {
            let g = geometry(batch, channels, height, width);
            let mut rows = vec![0; batch * height];
            for share in g.shares(bytes) {
                prop_assert!(share.images > 0 && share.rows > 0);
                let all = share.images * share.rows;
                prop_assert!(all * bytes <= PART_BYTES || all == 1);
                prop_assert!(share.images == 1 || share.rows == height);
                prop_assert!(share.images.is_multiple_of(share.parts(&g)));
                for image in share.first..share.first + share.images {
                    for row in share.first_row..share.first_row + share.rows {
                        rows[image * height + row] += 1;
                    }
                }
            }
            prop_assert!(rows.iter().all(|taken| *taken == 1));
        }
    }

    // Convolutions with larger numbers than a launch or cuBLAS takes are left to dfdx's operations.
    #[test]
    #[ignore = "gpu"]
    fn gpu_numbers_that_do_not_fit() {
        let plan = |g| Plan::new(Kind::F32, g);
        assert!(plan(geometry(64, 64, 56, 56)).is_some());
        assert!(plan(geometry(1 << 31, 1, 1, 1)).is_none());
        assert!(plan(geometry(1, 1 << 20, 1 << 10, 2)).is_none());
        assert!(plan(geometry(1, 1, 1 << 16, 1 << 15)).is_none());
        assert!(plan(Geometry { padding: 1 << 30, ..geometry(1, 1, 4, 4) }).is_none());
        assert!(plan(Geometry { stride: 1 << 31, ..geometry(1, 1, 4, 4) }).is_none());
        assert!(plan(Geometry { outputs: 70_000, ..geometry(1, 1, 4, 4) }).is_none());
    }
}
