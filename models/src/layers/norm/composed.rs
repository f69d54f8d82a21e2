//! Batch normalization of dfdx's own operations, on any device.

use super::{BatchNorm2d, Normalized};
use crate::layers::Planes;
use dfdx::prelude::{
    Axes3, BroadcastTo, Device, Dim, Dtype, HasShape, MeanTo, NoneTape, Rank1, Tape, TryAdd,
    TryDiv, TryMul, TrySub,
};

/// Normalizes by the statistics of the batch, in training.
pub(in crate::layers) fn train_composed<B, H, W, E, D, T, const C: usize, const RELU: bool>(
    x: Planes<B, C, H, W, E, D, T>,
    norm: &BatchNorm2d<C, RELU, E, D>,
) -> Normalized<B, H, W, E, D, T, C>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Device<E>,
    T: Tape<E, D>,
{
    let shape = *x.shape();
    let mean = x.retaped::<T>().try_mean::<Rank1<C>, Axes3<0, 2, 3>>()?;
    let means = mean.retaped::<NoneTape>();
    let centered = x.try_sub(mean.try_broadcast_like(&shape)?)?;
    let var = centered.retaped::<T>().try_square()?.try_mean::<Rank1<C>, Axes3<0, 2, 3>>()?;
    let vars = var.retaped::<NoneTape>();
    let deviation = var.try_add(E::from_f64(norm.eps).unwrap_or_default())?.try_sqrt()?;
    let scale = norm.weight.retaped::<T>().try_div(deviation)?.try_broadcast_like(&shape)?;
    let y =
        centered.try_mul(scale)?.try_add(norm.bias.retaped::<T>().try_broadcast_like(&shape)?)?;
    let y = if RELU { y.try_relu()? } else { y };
    Ok((y, means, vars))
}

/// Normalizes by the running statistics.
#[allow(clippy::type_complexity)]
pub(in crate::layers) fn infer_composed<B, H, W, E, D, const C: usize, const RELU: bool>(
    x: Planes<B, C, H, W, E, D, NoneTape>,
    norm: &BatchNorm2d<C, RELU, E, D>,
) -> Result<Planes<B, C, H, W, E, D, NoneTape>, D::Err>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Device<E>,
{
    let shape = *x.shape();
    let deviation =
        norm.running_var.clone().try_add(E::from_f64(norm.eps).unwrap_or_default())?.try_sqrt()?;
    let scale = norm.weight.clone().try_div(deviation)?.try_broadcast_like(&shape)?;
    let centered = x.try_sub(norm.running_mean.clone().try_broadcast_like(&shape)?)?;
    let y = centered.try_mul(scale)?.try_add(norm.bias.clone().try_broadcast_like(&shape)?)?;
    if RELU {
        y.try_relu()
    } else {
        Ok(y)
    }
}
