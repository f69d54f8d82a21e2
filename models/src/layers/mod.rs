//! Operations that dfdx lacks or is slow at, as differentiable functions on its tensors.
//!
//! [`Kernels`] is what a device offers. On the CPU these are hand-written forward and backward
//! passes, whose results do not depend on the number of threads. On CUDA they are our own kernels
//! and cuBLAS, for f32, f64 and f16. Elsewhere dfdx's own operations take their place.

mod attention;
mod buffer;
#[cfg(test)]
mod check;
mod conv;
#[cfg(feature = "cuda")]
mod cuda;
mod decoder;
mod dense;
mod element;
mod encoder;
mod error;
mod gemm;
mod kernels;
mod linear;
mod norm;
mod pointwise;
mod pool;
mod scratch;
pub(crate) mod sequence;
mod shares;
mod simd;

pub use attention::MultiHeadAttention;
pub use conv::{BiasedConv2d, Conv2d, Conv2dOptions, Filters, Over, Planes, Sliding};
pub use decoder::{Decoder, DecoderLayer, DecoderMasks};
pub use dense::{Dense, PackedXavier, Start, TokenEmbedding, UnbiasedXavier, Xavier};
pub(crate) use encoder::dropout;
pub use encoder::{Encoder, EncoderLayer};
pub use error::{LayerError, Misfit};
pub use kernels::Kernels;
pub use linear::LinearOptions;
pub use norm::BatchNorm2d;
pub use pointwise::{Identity, Relu};
pub use pool::{AvgPool2d, MaxPool2d, Pooling};
pub use sequence::{
    AttentionMask, AttentionSizes, DropoutRate, EmbeddingOptions, Ids, InvalidDropout, KeyPadding,
    QueryKeyValue, SequenceKernels, Sequences,
};

use dfdx::prelude::{Const, Tensor};

/// The builders of the layers, for
/// [`DeviceBuildExt::build_module`](dfdx::nn::DeviceBuildExt::build_module).
pub mod builder {
    pub use super::conv::builder::*;
    pub use super::norm::Builder as BatchNorm2d;
}

/// A batch of vectors.
pub type Rows<B, const N: usize, E, D, T> = Tensor<(B, Const<N>), E, D, T>;
