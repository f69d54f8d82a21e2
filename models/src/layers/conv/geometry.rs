//! The sizes of a convolution or a pooling, and how its window moves.

use crate::layers::shares::least;

/// The sizes of a convolution or of a pooling: `channels` planes of `height` × `width` in,
/// `outputs` planes of `out_height` × `out_width` out, for each of `batch` images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers) struct Geometry {
    pub(in crate::layers) batch: usize,
    pub(in crate::layers) channels: usize,
    pub(in crate::layers) height: usize,
    pub(in crate::layers) width: usize,
    pub(in crate::layers) outputs: usize,
    pub(in crate::layers) kernel: usize,
    pub(in crate::layers) stride: usize,
    pub(in crate::layers) padding: usize,
    pub(in crate::layers) dilation: usize,
    pub(in crate::layers) groups: usize,
    pub(in crate::layers) out_height: usize,
    pub(in crate::layers) out_width: usize,
}

/// How a window moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sliding {
    /// The distance between two positions in pixels, at least 1.
    pub stride: usize,
    /// Pixels added on each side.
    pub padding: usize,
    /// The distance between two neighbouring pixels of the window, at least 1.
    pub dilation: usize,
}

impl Default for Sliding {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1 }
    }
}

impl Sliding {
    /// How many positions a window of `kernel` pixels has in a line of `size` pixels; `None` if it
    /// does not fit.
    pub(in crate::layers) fn positions(&self, size: usize, kernel: usize) -> Option<usize> {
        let reach = kernel.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)?;
        let room = self.padding.checked_mul(2)?.checked_add(size)?.checked_sub(reach)?;
        Some(room.checked_div(self.stride)? + 1)
    }
}

impl Geometry {
    /// The number of elements of an image.
    pub(in crate::layers) fn image(&self) -> usize {
        self.channels * self.height * self.width
    }

    pub(in crate::layers) fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    pub(in crate::layers) fn out_image(&self) -> usize {
        self.outputs * self.out_pixels()
    }

    /// The least part of a pass that one thread does, see [`least`].
    pub(super) fn least(&self) -> usize {
        least(self.batch * self.out_image() * self.taps())
    }

    /// The outputs whose tap number `offset` reads one of `size` pixels and not padding, and the
    /// pixel that the first of these outputs reads. (The tap is `offset` times the dilation away.)
    pub(in crate::layers) fn span(&self, offset: usize, size: usize, outputs: usize) -> Span {
        let shift = offset * self.dilation;
        let first = self.padding.saturating_sub(shift).div_ceil(self.stride).min(outputs);
        let end = (size + self.padding).saturating_sub(shift).div_ceil(self.stride);
        let end = end.min(outputs).max(first);
        let pixel = (first * self.stride + shift).saturating_sub(self.padding);
        Span { first, end, pixel }
    }
}

/// Outputs `first..end`. The first reads `pixel`, and each further one reads the pixel a stride on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers) struct Span {
    pub(in crate::layers) first: usize,
    pub(in crate::layers) end: usize,
    pub(in crate::layers) pixel: usize,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // Fails if an output is left out or reads outside the image.
        #[test]
        fn spans_hold_exactly_the_outputs_that_read_a_pixel(
            size in 1usize..12, kernel in 1usize..6, stride in 1usize..4, padding in 0usize..5,
            dilation in 1usize..4,
        ) {
            let sliding = Sliding { stride, padding, dilation };
            let reach = (kernel - 1) * dilation + 1;
            let room = size + 2 * padding;
            prop_assert_eq!(sliding.positions(size, kernel).is_some(), reach <= room);
            prop_assume!(reach <= room);
            let outputs = sliding.positions(size, kernel).unwrap();
            // The last window ends within the padded image, and a further window would not.
            prop_assert!((outputs - 1) * stride + reach <= room && outputs * stride + reach > room);

            let geometry = Geometry {
                batch: 1, channels: 1, height: size, width: size, outputs: 1, kernel, stride,
                padding, dilation, groups: 1, out_height: outputs, out_width: outputs,
            };
            for offset in 0..kernel {
                let span = geometry.span(offset, size, outputs);
                for output in 0..outputs {
                    let padded = output * stride + offset * dilation;
                    let inside = padded >= padding && padded - padding < size;
                    prop_assert_eq!((span.first..span.end).contains(&output), inside);
                    if inside {
                        let pixel = span.pixel + (output - span.first) * stride;
                        prop_assert_eq!(pixel, padded - padding);
                    }
                }
            }
        }
    }
}
