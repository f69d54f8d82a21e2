//! Convolution of dfdx's own operations, on any device.

use super::{geometry, Conv2dOptions, Convolved, Filters, Planes};
use dfdx::prelude::{
    Axes3, Axes4, Axis, BroadcastTo, Const, Device, Dim, Dtype, GatherTo, HasShape, PermuteTo,
    Rank1, ReshapeTo, Tape, Tensor, TryAdd, TryConcatAlong, TryMatMul,
};

/// A convolution on any device: im2col by `gather`, then a matrix product for each group.
pub(in crate::layers) fn composed<
    B,
    H,
    W,
    E,
    D,
    T,
    const I: usize,
    const O: usize,
    const K: usize,
    const G: usize,
>(
    x: Planes<B, I, H, W, E, D, T>,
    weight: &Filters<I, O, K, G, E, D>,
    bias: Option<&Tensor<Rank1<O>, E, D>>,
    options: Conv2dOptions,
) -> Convolved<B, O, E, D, T>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Device<E>,
    T: Tape<E, D>,
{
    let device = x.device().clone();
    let &(batch, _, height, width) = x.shape();
    let size = (batch.size(), height.size(), width.size());
    let g = geometry::<I, O, K, G, D::Err>(size, options.sliding)?;
    let (outputs, per_group) = (g.out_pixels(), I / G);

    // One pixel of zeros after the others stands for all of the padding.
    let padding: Tensor<_, E, D> = device.try_zeros_like(&(batch, Const::<I>, 1))?;
    let pixels = x.try_reshape_like(&(batch, Const::<I>, g.height * g.width))?;
    let pixels = (pixels, padding).try_concat_along(Axis::<2>)?;
    let pixels = pixels.try_permute::<(B, usize, Const<I>), Axes3<0, 2, 1>>()?;
    let read: Vec<_> = (0..outputs)
        .flat_map(|output| (0..K * K).map(move |tap| (output, tap)))
        .map(|(output, tap)| {
            let inside = |output: usize, tap: usize, size: usize| {
                (output * g.stride + tap * g.dilation)
                    .checked_sub(g.padding)
                    .filter(|at| *at < size)
            };
            let row = inside(output / g.out_width, tap / K, g.height);
            let column = inside(output % g.out_width, tap % K, g.width);
            row.zip(column).map_or(g.height * g.width, |(row, column)| row * g.width + column)
        })
        .collect();
    let count = read.len();
    let read: Tensor<(usize,), usize, D> = device.try_tensor_from_vec(read, (count,))?;
    let read = read.try_broadcast_like::<_, Axis<0>>(&(batch, count))?;
    let columns: Tensor<(B, usize, Const<I>), E, D, T> = pixels.try_gather(read)?;

    let columns = columns.try_reshape_like(&(g.batch * outputs, K * K, G, per_group))?;
    let columns = columns.try_permute::<(usize, usize, usize, usize), Axes4<2, 0, 1, 3>>()?;
    let columns = columns.try_reshape_like(&(G, g.batch * outputs, K * K * per_group))?;
    let weight = weight.retaped::<T>().try_reshape_like(&(G, O / G, per_group, K * K))?;
    let weight = weight.try_permute::<(usize, usize, usize, usize), Axes4<0, 3, 2, 1>>()?;
    let weight = weight.try_reshape_like(&(G, K * K * per_group, O / G))?;
    let y: Tensor<(usize, usize, usize), E, D, T> = columns.try_matmul(weight)?;

    let y = y.try_permute::<(usize, usize, usize), Axes3<1, 0, 2>>()?;
    let y = y.try_reshape_like(&(batch, outputs, Const::<O>))?;
    let y = y.try_permute::<(B, Const<O>, usize), Axes3<0, 2, 1>>()?;
    let shape = (batch, Const::<O>, g.out_height, g.out_width);
    let y = y.try_reshape_like(&shape)?;
    match bias {
        Some(bias) => Ok(y.try_add(bias.retaped::<T>().try_broadcast_like(&shape)?)?),
        None => Ok(y),
    }
}
