//! The largest value, or the mean, of the windows of an image.

use super::{
    buffer,
    conv::{Geometry, Sliding},
    element::Element,
    scratch::Scratch,
    shares::Shares,
    Kernels, LayerError, Planes,
};
use dfdx::{
    nn::{Module, NonMutableModule, ZeroSizedModule},
    prelude::{
        Axes3, Axis, BroadcastTo, Const, Cpu, CpuError, Device, Dim, Dtype, GatherTo, Gradients,
        HasErr, HasShape, MeanTo, PermuteTo, PutTape, ReshapeTo, SplitTape, Tape, Tensor,
        TryConcatAlong,
    },
};
use rayon::prelude::*;
use tlr::TrainableLr;

/// What becomes of the pixels in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The largest, padding aside; its gradient goes to the first of equals, and NaN counts as largest. As in
    /// PyTorch.
    Max,
    /// The mean, in which padding counts as zeros.
    Mean,
}

/// The size of a window and how it moves; `dilation` is 1.
fn geometry<Err>(
    [batch, channels, height, width]: [usize; 4],
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Geometry, LayerError<Err>> {
    let sliding = Sliding { stride, padding, dilation: 1 };
    let out = |size| sliding.positions(size, kernel).filter(|_| padding * 2 <= kernel);
    let (Some(out_height), Some(out_width)) = (out(height), out(width)) else {
        return Err(LayerError::Shape {
            layer: format!("pooling of {kernel}x{kernel} pixels, stride {stride}, padding {padding}"),
            what: format!(
                "images of {height}x{width} pixels; with their padding they must hold the window, the padding \
                 is at most half of it, and the stride at least 1"
            ),
        });
    };
    Ok(Geometry {
        batch,
        channels,
        height,
        width,
        outputs: channels,
        kernel,
        stride,
        padding,
        dilation: 1,
        groups: channels.max(1),
        out_height,
        out_width,
    })
}

type Pooled<B, const C: usize, E, D, T> =
    Result<Planes<B, C, usize, usize, E, D, T>, LayerError<<D as HasErr>::Err>>;

impl Geometry {
    /// The pixels in the window of an output, in order.
    fn window(&self, row: usize, column: usize) -> impl Iterator<Item = usize> + '_ {
        let range = |at: usize, size: usize| {
            let first = (at * self.stride).saturating_sub(self.padding);
            let end = (at * self.stride + self.kernel).saturating_sub(self.padding).min(size);
            first.min(size)..end.max(first.min(size))
        };
        let columns = range(column, self.width);
        range(row, self.height)
            .flat_map(move |row| columns.clone().map(move |column| row * self.width + column))
    }

    /// The windows' positions, row by row.
    fn positions(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.out_height).flat_map(|row| (0..self.out_width).map(move |column| (row, column)))
    }
}

/// The first of the largest pixels of a window; a window holds at least one.
fn largest<E: PartialOrd + Copy>(plane: &[E], window: impl Iterator<Item = usize>) -> usize {
    let mut best: Option<(usize, E)> = None;
    for pixel in window {
        let Some(&value) = plane.get(pixel) else { continue };
        let is_nan = value.partial_cmp(&value).is_none();
        if best.is_none_or(|(_, best)| value > best || is_nan) {
            best = Some((pixel, value));
        }
    }
    best.map_or(0, |(pixel, _)| pixel)
}

/// By dfdx's own operations, on any device; which pixel is largest is decided on the host.
pub(super) fn composed<
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Device<E>,
    T: Tape<E, D>,
    const C: usize,
>(
    x: Planes<B, C, H, W, E, D, T>,
    pooling: Pooling,
    (kernel, stride, padding): (usize, usize, usize),
) -> Pooled<B, C, E, D, T> {
    let device = x.device().clone();
    let &(batch, _, height, width) = x.shape();
    let size = [batch.size(), C, height.size(), width.size()];
    let g = geometry::<D::Err>(size, kernel, stride, padding)?;
    let (planes, pixels, outputs) = (g.batch * C, g.height * g.width, g.out_pixels());
    let shape = (batch, Const::<C>, g.out_height, g.out_width);
    match pooling {
        Pooling::Max => {
            let values = x.as_vec();
            let read: Vec<_> = values
                .chunks_exact(pixels.max(1))
                .flat_map(|plane| {
                    g.positions().map(|(row, column)| largest(plane, g.window(row, column)))
                })
                .collect();
            let read: Tensor<(usize, usize), usize, D> =
                device.try_tensor_from_vec(read, (planes, outputs))?;
            let y: Tensor<(usize, usize), E, D, T> =
                x.try_reshape_like(&(planes, pixels))?.try_gather(read)?;
            Ok(y.try_reshape_like(&shape)?)
        }
        Pooling::Mean => {
            // One pixel of zeros, after the others, is all the padding.
            let padding: Tensor<_, E, D> = device.try_zeros_like(&(batch, Const::<C>, 1))?;
            let x = x.try_reshape_like(&(batch, Const::<C>, pixels))?;
            let x = (x, padding).try_concat_along(Axis::<2>)?;
            let x = x.try_permute::<(B, usize, Const<C>), Axes3<0, 2, 1>>()?;
            let area = kernel * kernel;
            let mut read = vec![pixels; outputs * area];
            for (taps, (row, column)) in read.chunks_exact_mut(area).zip(g.positions()) {
                taps.iter_mut().zip(g.window(row, column)).for_each(|(tap, pixel)| *tap = pixel);
            }
            let read: Tensor<(usize,), usize, D> =
                device.try_tensor_from_vec(read, (outputs * area,))?;
            let read = read.try_broadcast_like::<_, Axis<0>>(&(batch, outputs * area))?;
            let taps: Tensor<(B, usize, Const<C>), E, D, T> = x.try_gather(read)?;
            let taps = taps.try_reshape_like(&(batch, outputs, area, Const::<C>))?;
            let means = taps.try_mean::<(B, usize, Const<C>), Axis<2>>()?;
            let means = means.try_permute::<(B, Const<C>, usize), Axes3<0, 2, 1>>()?;
            Ok(means.try_reshape_like(&shape)?)
        }
    }
}

/// A plane at a time, on all threads. `x` is contiguous.
pub(super) fn on_cpu<
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype + Element,
    T: Tape<E, Cpu>,
    const C: usize,
>(
    x: Planes<B, C, H, W, E, Cpu, T>,
    pooling: Pooling,
    (kernel, stride, padding): (usize, usize, usize),
) -> Pooled<B, C, E, Cpu, T> {
    let (x, mut tape) = x.split_tape();
    let &(batch, _, height, width) = x.shape();
    let size = [batch.size(), C, height.size(), width.size()];
    let g = geometry::<CpuError>(size, kernel, stride, padding)?;
    let (pixels, outputs) = ((g.height * g.width).max(1), g.out_pixels().max(1));
    let device = x.device().clone();
    let x_values = Scratch::of(&x);
    let mut y_values = buffer::zeros(&device, g.batch * g.out_image())?;
    let planes = y_values.shared_chunks_exact_mut(outputs).zip(x_values.par_chunks_exact(pixels));
    let area = E::from_usize(kernel * kernel).unwrap_or_else(E::one);
    // The pixel that each output is.
    let mut from = Vec::new();
    match pooling {
        Pooling::Max => {
            from.resize(g.batch * g.out_image(), 0_usize);
            planes.zip(from.par_chunks_exact_mut(outputs)).for_each(|((y, x), from)| {
                for ((y, from), (row, column)) in y.iter_mut().zip(from).zip(g.positions()) {
                    *from = largest(x, g.window(row, column));
                    *y = x[*from];
                }
            });
        }
        Pooling::Mean => planes.for_each(|(y, x)| {
            for (y, (row, column)) in y.iter_mut().zip(g.positions()) {
                let sum = g.window(row, column).fold(E::ZERO, |sum, pixel| sum + x[pixel]);
                *y = sum / area;
            }
        }),
    }
    let y = buffer::tensor(&device, y_values, (batch, Const::<C>, g.out_height, g.out_width))?;
    let ghosts = (x.ghost(), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, y) = ghosts;
        let upstream = buffer::take(gradients.get_or_alloc_mut(&y)?);
        let x_gradient = gradients.get_or_alloc_mut(&x)?;
        let planes =
            x_gradient.shared_chunks_exact_mut(pixels).zip(upstream.par_chunks_exact(outputs));
        match pooling {
            Pooling::Max => {
                planes.zip(from.par_chunks_exact(outputs)).for_each(|((x, y), from)| {
                    y.iter().zip(from).for_each(|(y, from)| x[*from] += *y);
                })
            }
            Pooling::Mean => planes.for_each(|(x, y)| {
                for (y, (row, column)) in y.iter().zip(g.positions()) {
                    g.window(row, column).for_each(|pixel| x[pixel] += *y / area);
                }
            }),
        }
        **gradients.get_or_alloc_mut(&y)? = upstream;
        Ok(())
    });
    Ok(y.put_tape(tape))
}

macro_rules! layer {
    ($(#[$doc:meta])* $Layer:ident, $pooling:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, TrainableLr)]
        pub struct $Layer<const KERNEL: usize, const STRIDE: usize = KERNEL, const PADDING: usize = 0>;

        impl<const K: usize, const S: usize, const P: usize> ZeroSizedModule for $Layer<K, S, P> {}
        impl<const K: usize, const S: usize, const P: usize> NonMutableModule for $Layer<K, S, P> {}

        impl<B, H, W, E, D, T, const C: usize, const K: usize, const S: usize, const P: usize>
            Module<Planes<B, C, H, W, E, D, T>> for $Layer<K, S, P>
        where
            B: Dim,
            H: Dim,
            W: Dim,
            E: Dtype,
            D: Kernels<E>,
            T: Tape<E, D>,
        {
            type Output = Planes<B, C, usize, usize, E, D, T>;
            type Error = LayerError<D::Err>;

            fn try_forward(&self, x: Planes<B, C, H, W, E, D, T>) -> Result<Self::Output, Self::Error> {
                const { assert!(K > 0 && S > 0 && 2 * P <= K, "padding is at most half of the window") };
                D::try_pool2d(x, $pooling, (K, S, P))
            }
        }
    };
}

layer! {
    /// The largest of each window of KERNEL × KERNEL pixels, STRIDE apart, by default side by side. Padding is
    /// never the largest; the gradient goes to the first of equals.
    ///
    /// Maps `(batch, C, height, width)` to `(batch, C, height', width')` with
    /// height' = ⌊(height + 2·PADDING − KERNEL) / STRIDE⌋ + 1.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::MaxPool2d;
    ///
    /// let dev = Cpu::default();
    /// let x = dev.tensor([[[[1.0, 2.0, 5.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]]]);
    /// assert_eq!(MaxPool2d::<2, 1>.forward(x).as_vec(), [4.0, 5.0, 4.0, 4.0]);
    /// ```
    MaxPool2d, Pooling::Max
}

layer! {
    /// The mean of each window of KERNEL × KERNEL pixels, STRIDE apart, by default side by side. Padding counts
    /// as zeros, as in PyTorch.
    ///
    /// Shapes as for [`MaxPool2d`].
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::AvgPool2d;
    ///
    /// let dev = Cpu::default();
    /// let x = dev.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]);
    /// assert_eq!(AvgPool2d::<2>.forward(x).as_vec(), [2.5]);
    /// ```
    AvgPool2d, Pooling::Mean
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::check;
    use dfdx::prelude::*;

    type Images = Tensor<(usize, Const<3>, usize, usize), f64, Cpu>;

    fn images(batch: usize, height: usize, width: usize) -> Images {
        let dev = Cpu::seed_from_u64(6);
        dev.sample_like(&(batch, Const, height, width), rand_distr::StandardNormal)
    }

    /// The definition, a window at a time.
    fn defined(x: &[f64], g: &Geometry, pooling: Pooling) -> Vec<f64> {
        let mut y = Vec::new();
        for plane in x.chunks(g.height * g.width) {
            for (row, column) in g.positions() {
                let (mut max, mut sum) = (f64::NEG_INFINITY, 0.0);
                for tap in 0..g.kernel * g.kernel {
                    let row = (row * g.stride + tap / g.kernel) as isize - g.padding as isize;
                    let column = (column * g.stride + tap % g.kernel) as isize - g.padding as isize;
                    let inside = |at: isize, size: usize| at >= 0 && (at as usize) < size;
                    if inside(row, g.height) && inside(column, g.width) {
                        let value = plane[row as usize * g.width + column as usize];
                        max = max.max(value);
                        sum += value;
                    }
                }
                y.push(match pooling {
                    Pooling::Max => max,
                    Pooling::Mean => sum / (g.kernel * g.kernel) as f64,
                });
            }
        }
        y
    }

    fn agrees(size: (usize, usize, usize), window: (usize, usize, usize)) {
        let x = images(size.0, size.1, size.2);
        let g = geometry::<CpuError>([size.0, 3, size.1, size.2], window.0, window.1, window.2)
            .unwrap();
        for pooling in [Pooling::Max, Pooling::Mean] {
            let ours = Cpu::try_pool2d(x.leaky_trace(), pooling, window).unwrap();
            let theirs = composed(x.leaky_trace(), pooling, window).unwrap();
            assert_eq!(*ours.shape(), (size.0, Const, g.out_height, g.out_width));
            check::close(&ours.as_vec(), &defined(&x.as_vec(), &g, pooling));
            check::close(&ours.as_vec(), &theirs.as_vec());
            let (ours, theirs) = (check::curved(ours).backward(), check::curved(theirs).backward());
            check::close(&ours.get(&x).as_vec(), &theirs.get(&x).as_vec());
            if x.shape().num_elements() < 200 {
                // No two pixels are within 1e-5 of each other.
                check::derivative(&x, &ours.get(&x), |x| {
                    check::curved(Cpu::try_pool2d(x.leaky_trace(), pooling, window).unwrap())
                        .array()
                });
            }
        }
    }

    // Fails for a wrong window, or where padding could be the largest.
    #[test]
    fn as_defined() {
        agrees((1, 1, 1), (1, 1, 0));
        agrees((2, 4, 6), (2, 2, 0));
        agrees((2, 5, 4), (3, 2, 1));
        agrees((2, 7, 7), (3, 1, 1));
        agrees((1, 6, 5), (2, 3, 1));
        agrees((5, 16, 17), (3, 2, 1));
    }

    // PyTorch 2: torch.nn.functional.max_pool2d of these, its gradient, and of one with NaN.
    #[test]
    fn the_first_of_equals_and_nan() {
        let dev = Cpu::default();
        let image = |values: &[f64], size: usize| {
            let shape = (1_usize, Const::<1>, size, size);
            dev.tensor_from_vec(values.to_vec(), shape)
        };
        for forward in [Cpu::try_pool2d, composed] {
            let x = image(&[1.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0], 3);
            let y = forward(x.leaky_trace(), Pooling::Max, (2, 1, 0)).unwrap();
            assert_eq!(y.as_vec(), [2.0, 2.0, 2.0, 2.0]);
            let gradient = y.sum::<Rank0, _>().backward().get(&x);
            assert_eq!(gradient.as_vec(), [0.0, 2.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);

            let x = image(&[1.0, f64::NAN, 2.0, 3.0], 2);
            let y = forward(x.leaky_trace(), Pooling::Max, (2, 1, 0)).unwrap();
            assert!(y.as_vec()[0].is_nan());
            let gradient = y.sum::<Rank0, _>().backward().get(&x);
            assert_eq!(gradient.as_vec(), [0.0, 1.0, 0.0, 0.0]);

            // All there is is lower than padding's zeros would be.
            let x = image(&[-1.0, -2.0, -3.0, -4.0], 2);
            let y = forward(x.leaky_trace(), Pooling::Max, (2, 2, 1)).unwrap();
            assert_eq!(y.as_vec(), [-1.0, -2.0, -3.0, -4.0]);
        }
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        for pooling in [Pooling::Max, Pooling::Mean] {
            let with = |threads| {
                check::with_threads(threads, || {
                    let x = images(7, 20, 20);
                    let y = Cpu::try_pool2d(x.leaky_trace(), pooling, (3, 2, 1)).unwrap();
                    (y.as_vec(), check::curved(y).backward().get(&x).as_vec())
                })
            };
            assert_eq!(with(1), with(3));
        }
    }

    #[test]
    fn images_smaller_than_the_window() {
        let error = MaxPool2d::<4>.try_forward(images(1, 3, 9)).unwrap_err();
        assert!(matches!(&error, LayerError::Shape { .. }) && error.to_string().contains("4x4"));
        assert!(Cpu::try_pool2d(images(1, 9, 9), Pooling::Max, (2, 1, 2)).is_err());
        assert!(Cpu::try_pool2d(images(1, 9, 9), Pooling::Mean, (2, 0, 0)).is_err());
    }
}
