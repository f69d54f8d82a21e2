//! Operations that dfdx lacks or is slow at, as differentiable functions on its tensors.
//!
//! [`Kernels`] is what a device offers: on the CPU hand-written forward and backward passes whose
//! result does not depend on the number of threads; elsewhere the same, composed of dfdx's own
//! operations.

mod attention;
mod buffer;
mod decoder;
mod dense;
mod encoder;
mod error;
mod gemm;
mod linear;
mod sequence;

pub use attention::MultiHeadAttention;
pub use decoder::{Decoder, DecoderLayer, DecoderMasks};
pub use dense::{Dense, PackedXavier, Start, TokenEmbedding, UnbiasedXavier, Xavier};
pub(crate) use encoder::drop;
pub use encoder::{Encoder, EncoderLayer};
pub use error::LayerError;
pub use linear::LinearOptions;
pub use sequence::{
    AttentionMask, AttentionSizes, DropoutRate, EmbeddingOptions, Ids, InvalidDropout, KeyPadding,
    QueryKeyValue, SequenceKernels, Sequences,
};

use dfdx::prelude::{
    Const, Cpu, CpuError, Device, Dim, Dtype, Rank1, Rank2, ReshapeTo, Tape, Tensor,
};

/// A batch of vectors.
pub type Rows<B, const N: usize, E, D, T> = Tensor<(B, Const<N>), E, D, T>;

/// A device with this crate's operations. The methods given here run on any device; the CPU has its
/// own.
pub trait Kernels<E: Dtype>: Device<E> {
    /// `x·Wᵀ + b`, rectified if `options` say so: `(batch, IN)` to `(batch, OUT)`, with the weight in
    /// PyTorch's and dfdx's layout, `(OUT, IN)`.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::{Kernels, LinearOptions};
    ///
    /// let dev = Cpu::default();
    /// let x = dev.tensor([[1.0, 2.0, 3.0]]);
    /// let weight = dev.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]);
    /// let bias = dev.tensor([0.5, 0.5]);
    /// let options = LinearOptions { relu: true, ..Default::default() };
    /// let y = Cpu::try_linear(x, &weight, &bias, options)?;
    /// assert_eq!(y.array(), [[1.5, 0.0]]);
    /// # Ok::<(), CpuError>(())
    /// ```
    fn try_linear<B: Dim, T: Tape<E, Self>, const IN: usize, const OUT: usize>(
        x: Rows<B, IN, E, Self, T>,
        weight: &Tensor<Rank2<OUT, IN>, E, Self>,
        bias: &Tensor<Rank1<OUT>, E, Self>,
        options: LinearOptions,
    ) -> Result<Rows<B, OUT, E, Self, T>, Self::Err> {
        linear::composed(x, weight, bias, options)
    }
}

// One a dtype: where `Cpu: Device<E>` is in scope, the compiler does not see that its buffers are
// vectors.
macro_rules! on_cpu {
    ($($dtype:ty),*) => {$(
        impl Kernels<$dtype> for Cpu {
            fn try_linear<B: Dim, T: Tape<$dtype, Self>, const IN: usize, const OUT: usize>(
                x: Rows<B, IN, $dtype, Self, T>,
                weight: &Tensor<Rank2<OUT, IN>, $dtype, Self>,
                bias: &Tensor<Rank1<OUT>, $dtype, Self>,
                options: LinearOptions,
            ) -> Result<Rows<B, OUT, $dtype, Self, T>, CpuError> {
                let (weight, bias) = (weight.clone().try_contiguous()?, bias.clone().try_contiguous()?);
                linear::on_cpu(x.try_contiguous()?, weight, bias, options)
            }
        }
    )*};
}
on_cpu!(f32, f64);
