//! The largest value, or the mean, of the windows of an image.

mod layer;
#[cfg(feature = "cuda")]
mod on_cuda;

pub use layer::{AvgPool2d, MaxPool2d};
#[cfg(feature = "cuda")]
pub(super) use on_cuda::{on_cuda, Plan};

use super::{
    buffer,
    conv::{Geometry, Sliding},
    element::Element,
    scratch::Scratch,
    shares::Shares,
    LayerError, Misfit, Planes,
};
use dfdx::prelude::{
    Axes3, Axis, BroadcastTo, Const, Cpu, CpuError, Device, Dim, Dtype, GatherTo, Gradients,
    HasErr, HasShape, MeanTo, PermuteTo, PutTape, ReshapeTo, SplitTape, Tape, Tensor,
    TryConcatAlong,
};
use rayon::prelude::*;

/// How the pixels of a window become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The largest pixel; padding does not count. If several pixels are largest, the gradient goes
    /// to the first. NaN counts as largest. All of this is as in PyTorch.
    Max,
    /// The mean of the pixels, in which padding counts as zeros.
    Mean,
}

/// The sizes of a pooling, or the error that says why there is none; `dilation` is 1.
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
            layer: format!(
                "pooling of {kernel}x{kernel} pixels, stride {stride}, padding {padding}"
            ),
            misfit: Misfit::Window { height, width },
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

/// A pooling by dfdx's own operations, on any device. Which pixel is largest is decided on the
/// host.
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
            // One pixel of zeros after the others stands for all of the padding.
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

/// A pooling on the CPU. All threads share the planes. `x` is contiguous.
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
    // For each output, the number of the pixel that it was taken from.
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

#[cfg(test)]
mod tests;
