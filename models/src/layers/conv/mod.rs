//! Convolution of images: the types of its operands. The files below have the ways to compute it.

mod columns;
mod composed;
#[cfg(feature = "cudnn")]
mod cudnn;
mod direct;
mod geometry;
mod layer;
mod on_cpu;
#[cfg(feature = "cuda")]
mod on_cuda;
#[cfg(feature = "cuda")]
mod passes;
#[cfg(feature = "cuda")]
mod plan;

pub(super) use composed::composed;
pub(super) use geometry::Geometry;
pub use geometry::Sliding;
pub(super) use layer::builder;
pub use layer::{BiasedConv2d, Conv2d};
pub(super) use on_cpu::on_cpu;
#[cfg(feature = "cuda")]
pub(super) use on_cuda::{on_cuda, plan};

use super::{LayerError, Misfit};
use dfdx::prelude::{Const, ConstDim, Dim, Tensor};

/// A batch of images: `(batch, channels, height, width)`.
pub type Planes<B, const C: usize, H, W, E, D, T> = Tensor<(B, Const<C>, H, W), E, D, T>;

/// The weight of a convolution in PyTorch's layout: `(OUT, IN / GROUPS, K, K)`.
pub type Filters<const I: usize, const O: usize, const K: usize, const G: usize, E, D> =
    Tensor<(Const<O>, Over<I, G>, Const<K>, Const<K>), E, D>;

/// The dimension `N / G`, which stable Rust cannot write as a `Const`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Over<const N: usize, const G: usize>;

impl<const N: usize, const G: usize> Dim for Over<N, G> {
    fn size(&self) -> usize {
        Self::SIZE
    }

    fn from_size(size: usize) -> Option<Self> {
        (size == Self::SIZE).then_some(Self)
    }
}

impl<const N: usize, const G: usize> ConstDim for Over<N, G> {
    const SIZE: usize = N / G;
}

/// The options of a convolution. By default the filters move by one pixel, without padding, and the
/// input gets its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// How the filters move over the image.
    pub sliding: Sliding,
    /// Whether the gradient of the input is wanted. If the input is data, it is not needed, and a
    /// device may leave it out.
    pub input_gradient: bool,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { sliding: Sliding::default(), input_gradient: true }
    }
}

/// The sizes of a convolution of images of this size, or the error that says why there is none.
fn geometry<const I: usize, const O: usize, const K: usize, const G: usize, Err>(
    (batch, height, width): (usize, usize, usize),
    sliding: Sliding,
) -> Result<Geometry, LayerError<Err>> {
    const { assert!(K > 0, "a filter has at least one pixel") };
    const {
        assert!(
            G > 0 && I.is_multiple_of(G) && O.is_multiple_of(G),
            "the groups must divide the channels, in and out"
        )
    };
    let out = |size| sliding.positions(size, K);
    let (Some(out_height), Some(out_width)) = (out(height), out(width)) else {
        return Err(LayerError::Shape {
            layer: format!("convolution of {I} to {O} channels by {K}x{K} pixels, {sliding:?}"),
            misfit: Misfit::Filter { height, width },
        });
    };
    let Sliding { stride, padding, dilation } = sliding;
    Ok(Geometry {
        batch,
        channels: I,
        height,
        width,
        outputs: O,
        kernel: K,
        stride,
        padding,
        dilation,
        groups: G,
        out_height,
        out_width,
    })
}

type Convolved<B, const O: usize, E, D, T> =
    Result<Planes<B, O, usize, usize, E, D, T>, LayerError<<D as dfdx::tensor::HasErr>::Err>>;

#[cfg(test)]
mod tests;
