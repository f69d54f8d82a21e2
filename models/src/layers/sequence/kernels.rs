//! The operations that a transformer asks of a device. On any device dfdx's own operations do them,
//! on the CPU and on CUDA this crate's.

#[cfg(feature = "cuda")]
mod on_cuda;

use super::{
    attend, cross_entropy, dropout, embed, layer_norm, AttentionMask, AttentionSizes, DropoutRate,
    EmbeddingOptions, Ids, QueryKeyValue, Sequences,
};
use crate::layers::{Kernels, LayerError, Rows};
use dfdx::prelude::{
    Cpu, CpuError, Dtype, NoneTape, PutTape, Rank0, Rank1, Rank2, ReshapeTo, SplitTape, Tape,
    Tensor,
};

/// A device with a transformer's operations. The methods given here run on any device; the CPU has
/// its own, whose results do not depend on the number of threads, and so has CUDA.
pub trait SequenceKernels<E: Dtype>: Kernels<E> {
    /// Rows of mean 0 and variance 1, times `weight` plus `bias`:
    /// `(x - mean) / √(variance + epsilon) · weight + bias`, with the variance that divides by `M`.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::SequenceKernels;
    ///
    /// let dev = Cpu::default();
    /// let x = dev.tensor([[1.0, 3.0]]).realize::<(usize, Const<2>)>();
    /// let y = Cpu::try_layer_norm(x, &dev.tensor([1.0, 1.0]), &dev.tensor([0.0, 5.0]), 0.0)?;
    /// assert_eq!(y.as_vec(), [-1.0, 6.0]);
    /// # Ok::<(), CpuError>(())
    /// ```
    fn try_layer_norm<T: Tape<E, Self>, const M: usize>(
        x: Rows<usize, M, E, Self, T>,
        weight: &Tensor<Rank1<M>, E, Self>,
        bias: &Tensor<Rank1<M>, E, Self>,
        epsilon: f64,
    ) -> Result<Rows<usize, M, E, Self, T>, Self::Err> {
        layer_norm::composed(x, weight, bias, epsilon)
    }

    /// Each element becomes 0 with probability `rate`, and is divided by `1 - rate` otherwise. What
    /// becomes 0 is drawn from the device's generator. At a rate of 0 nothing is drawn.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::{DropoutRate, SequenceKernels};
    ///
    /// let dev = Cpu::seed_from_u64(0);
    /// let x: Tensor<(usize, Const<100>), f32, _> = dev.ones_like(&(10, Const));
    /// let y = Cpu::try_drop(x, DropoutRate::new(0.5)?)?.as_vec();
    /// assert!(y.iter().all(|y| *y == 0.0 || *y == 2.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn try_drop<T: Tape<E, Self>, const M: usize>(
        x: Rows<usize, M, E, Self, T>,
        rate: DropoutRate,
    ) -> Result<Rows<usize, M, E, Self, T>, Self::Err> {
        dropout::composed(x, rate)
    }

    /// `onto` plus what [`try_drop`](Self::try_drop) leaves of `x`: the end of a residual branch.
    ///
    /// # Errors
    /// [`LayerError::Shape`] if the two have different numbers of rows; out of memory.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::{DropoutRate, SequenceKernels};
    ///
    /// let dev = Cpu::default();
    /// let x: Tensor<(usize, Const<3>), f32, _> = dev.ones_like(&(2, Const));
    /// let y = Cpu::try_drop_and_add(x.clone() * 2.0, &x, DropoutRate::NONE)?;
    /// assert_eq!(y.as_vec(), [3.0; 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn try_drop_and_add<T: Tape<E, Self>, const M: usize>(
        x: Rows<usize, M, E, Self, T>,
        onto: &Rows<usize, M, E, Self, NoneTape>,
        rate: DropoutRate,
    ) -> Result<Rows<usize, M, E, Self, T>, LayerError<Self::Err>> {
        dropout::same_rows(&x, onto)?;
        Ok(dropout::composed_add(x, onto, rate)?)
    }

    /// The rows of `weight` that `ids` name, times `options.scale`, plus the sinusoids of their
    /// positions if `options` say so.
    ///
    /// # Errors
    /// [`LayerError::Shape`] for an id that is not below `V`; out of memory.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::{EmbeddingOptions, SequenceKernels};
    ///
    /// let dev = Cpu::default();
    /// let weight = dev.tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// let ids = dev.tensor_from_vec(vec![1, 0], (1, 2));
    /// let options = EmbeddingOptions { scale: 10.0, positions: false };
    /// let y = Cpu::try_embedding(ids, &weight, options)?;
    /// assert_eq!(y.as_vec(), [30.0, 40.0, 10.0, 20.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn try_embedding<T: Tape<E, Self>, const V: usize, const M: usize>(
        ids: Ids<Self, T>,
        weight: &Tensor<Rank2<V, M>, E, Self>,
        options: EmbeddingOptions,
    ) -> Result<Sequences<M, E, Self, T>, LayerError<Self::Err>> {
        embed::check::<V, _>(&ids.as_vec())?;
        Ok(embed::composed(ids, weight, options)?)
    }

    /// Attention by `H` heads of `M / H` features each, which have to be whole: `softmax(q·kᵀ /
    /// √(M/H)) · v` in each head, over the keys that `mask` lets a query see. A query that sees
    /// none gets zeros and passes no gradient on. `dropout` is applied to the weights that the
    /// softmax gives.
    ///
    /// The rows of `q` are `sizes.batch` sequences of `sizes.queries` rows each. Those of `k` and
    /// `v` are as many sequences, of `sizes.keys` rows each.
    ///
    /// # Errors
    /// [`LayerError::Shape`] if `sizes`, the mask and the rows do not agree; out of memory.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::{AttentionMask, AttentionSizes, DropoutRate, SequenceKernels};
    ///
    /// let dev = Cpu::default();
    /// let rows = |values: Vec<f64>| dev.tensor_from_vec(values, (2, Const::<1>));
    /// let sizes = AttentionSizes { batch: 1, queries: 2, keys: 2 };
    /// let mask = AttentionMask { causal: true, keys: None };
    /// let (q, k, v) = (rows(vec![0.0, 0.0]), rows(vec![1.0, 2.0]), rows(vec![2.0, 4.0]));
    /// let y = Cpu::try_attention::<_, 1, 1>((q, k, v), sizes, &mask, DropoutRate::NONE)?;
    /// assert_eq!(y.as_vec(), [2.0, 3.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn try_attention<T: Tape<E, Self>, const M: usize, const H: usize>(
        (q, k, v): QueryKeyValue<M, E, Self, T>,
        sizes: AttentionSizes,
        mask: &AttentionMask,
        dropout: DropoutRate,
    ) -> Result<Rows<usize, M, E, Self, T>, LayerError<Self::Err>> {
        attend::check(&q, &k, &v, sizes, mask)?;
        Ok(attend::composed::<_, _, _, M, H>((q, k, v), sizes, mask, dropout)?)
    }

    /// The mean of `-ln softmax(logits)[label]` over the rows whose label is not `ignored`. Where
    /// none counts, the loss is 0 and so are the gradients.
    ///
    /// # Errors
    /// [`LayerError::Shape`] for another number of labels than rows, and for a label that counts
    /// and is not below `V`; out of memory.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::SequenceKernels;
    ///
    /// let dev = Cpu::default();
    /// let logits = dev.tensor([[0.0, 0.0], [5.0, 7.0]]).realize::<(usize, Const<2>)>();
    /// let loss = Cpu::try_cross_entropy(logits, &[0, 9], 9)?;
    /// assert_eq!(loss.array(), 2f64.ln());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn try_cross_entropy<T: Tape<E, Self>, const V: usize>(
        logits: Rows<usize, V, E, Self, T>,
        labels: &[usize],
        ignored: usize,
    ) -> Result<Tensor<Rank0, E, Self, T>, LayerError<Self::Err>> {
        cross_entropy::check(&logits, labels, ignored)?;
        Ok(cross_entropy::composed(logits, labels, ignored)?)
    }
}

// One `impl` for each dtype: in a generic one, `Cpu: Device<E>` hides from the compiler that the
// CPU's buffers are vectors.
macro_rules! on_cpu {
    ($($dtype:ty),*) => {$(
        impl SequenceKernels<$dtype> for Cpu {
            fn try_layer_norm<T: Tape<$dtype, Self>, const M: usize>(
                x: Rows<usize, M, $dtype, Self, T>,
                weight: &Tensor<Rank1<M>, $dtype, Self>,
                bias: &Tensor<Rank1<M>, $dtype, Self>,
                epsilon: f64,
            ) -> Result<Rows<usize, M, $dtype, Self, T>, CpuError> {
                let weight = weight.clone().try_contiguous()?;
                let bias = bias.clone().try_contiguous()?;
                layer_norm::on_cpu(x.try_contiguous()?, weight, bias, epsilon)
            }

            fn try_drop<T: Tape<$dtype, Self>, const M: usize>(
                x: Rows<usize, M, $dtype, Self, T>,
                rate: DropoutRate,
            ) -> Result<Rows<usize, M, $dtype, Self, T>, CpuError> {
                dropout::on_cpu(x.try_contiguous()?, None, rate)
            }

            fn try_drop_and_add<T: Tape<$dtype, Self>, const M: usize>(
                x: Rows<usize, M, $dtype, Self, T>,
                onto: &Rows<usize, M, $dtype, Self, NoneTape>,
                rate: DropoutRate,
            ) -> Result<Rows<usize, M, $dtype, Self, T>, LayerError<CpuError>> {
                dropout::same_rows(&x, onto)?;
                // The copy gets a tape, by which the gradient reaches the original.
                let (onto, copied) = onto.retaped::<T>().try_contiguous()?.split_tape();
                let (x, tape) = x.try_contiguous()?.split_tape();
                Ok(dropout::on_cpu(x.put_tape(tape.merge(copied)), Some(onto), rate)?)
            }

            fn try_embedding<T: Tape<$dtype, Self>, const V: usize, const M: usize>(
                ids: Ids<Self, T>,
                weight: &Tensor<Rank2<V, M>, $dtype, Self>,
                options: EmbeddingOptions,
            ) -> Result<Sequences<M, $dtype, Self, T>, LayerError<CpuError>> {
                let values = ids.as_vec();
                embed::check::<V, _>(&values)?;
                Ok(embed::on_cpu(ids, values, weight.clone().try_contiguous()?, options)?)
            }

            fn try_attention<T: Tape<$dtype, Self>, const M: usize, const H: usize>(
                (q, k, v): QueryKeyValue<M, $dtype, Self, T>,
                sizes: AttentionSizes,
                mask: &AttentionMask,
                dropout: DropoutRate,
            ) -> Result<Rows<usize, M, $dtype, Self, T>, LayerError<CpuError>> {
                attend::check(&q, &k, &v, sizes, mask)?;
                let qkv = (q.try_contiguous()?, k.try_contiguous()?, v.try_contiguous()?);
                Ok(attend::on_cpu::<_, _, M, H>(qkv, sizes, mask, dropout)?)
            }

            fn try_cross_entropy<T: Tape<$dtype, Self>, const V: usize>(
                logits: Rows<usize, V, $dtype, Self, T>,
                labels: &[usize],
                ignored: usize,
            ) -> Result<Tensor<Rank0, $dtype, Self, T>, LayerError<CpuError>> {
                cross_entropy::check(&logits, labels, ignored)?;
                Ok(cross_entropy::on_cpu(logits.try_contiguous()?, labels, ignored)?)
            }
        }
    )*};
}
on_cpu!(f32, f64);
