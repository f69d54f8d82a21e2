//! The operations of a transformer: attention, layer norm, dropout, embedding and the loss.

mod attend;
mod cross_entropy;
pub(crate) mod dropout;
mod embed;
mod kernels;
mod layer_norm;

pub use attend::{AttentionMask, AttentionSizes, KeyPadding};
pub use dropout::{DropoutRate, InvalidDropout};
pub use embed::EmbeddingOptions;
pub use kernels::SequenceKernels;

use super::Rows;
use dfdx::prelude::{Const, NoneTape, Tensor};

/// Token ids: `(batch, length)`.
pub type Ids<D, T = NoneTape> = Tensor<(usize, usize), usize, D, T>;

/// Vectors of `M` features: `(batch, length, M)`.
pub type Sequences<const M: usize, E, D, T = NoneTape> = Tensor<(usize, usize, Const<M>), E, D, T>;

/// Rows of queries, keys and values.
pub type QueryKeyValue<const M: usize, E, D, T> =
    (Rows<usize, M, E, D, T>, Rows<usize, M, E, D, T>, Rows<usize, M, E, D, T>);
