//! A transformer's operations on CUDA: by our own kernels, if there are some for the dtype and the
//! sizes.

use super::super::{
    attend, cross_entropy, dropout, embed, layer_norm, AttentionMask, AttentionSizes, DropoutRate,
    EmbeddingOptions, Ids, QueryKeyValue, SequenceKernels, Sequences,
};
use crate::layers::{cuda::Kind, Kernels, LayerError, Rows};
use dfdx::prelude::{
    Cuda, Dtype, NoneTape, PutTape, Rank0, Rank1, Rank2, ReshapeTo, SplitTape, Tape, Tensor,
};

impl<E: Dtype> SequenceKernels<E> for Cuda
where
    Self: Kernels<E>,
{
    fn try_layer_norm<T: Tape<E, Self>, const M: usize>(
        x: Rows<usize, M, E, Self, T>,
        weight: &Tensor<Rank1<M>, E, Self>,
        bias: &Tensor<Rank1<M>, E, Self>,
        epsilon: f64,
    ) -> Result<Rows<usize, M, E, Self, T>, Self::Err> {
        let Some(kind) = Kind::of_small::<E>(&[M]) else {
            return layer_norm::composed(x, weight, bias, epsilon);
        };
        let weight = weight.clone().try_contiguous()?;
        let bias = bias.clone().try_contiguous()?;
        layer_norm::on_cuda(kind, x.try_contiguous()?, weight, bias, epsilon)
    }

    fn try_drop<T: Tape<E, Self>, const M: usize>(
        x: Rows<usize, M, E, Self, T>,
        rate: DropoutRate,
    ) -> Result<Rows<usize, M, E, Self, T>, Self::Err> {
        match Kind::of::<E>() {
            Some(kind) => dropout::on_cuda(kind, x.try_contiguous()?, None, rate),
            None => dropout::composed(x, rate),
        }
    }

    fn try_drop_and_add<T: Tape<E, Self>, const M: usize>(
        x: Rows<usize, M, E, Self, T>,
        onto: &Rows<usize, M, E, Self, NoneTape>,
        rate: DropoutRate,
    ) -> Result<Rows<usize, M, E, Self, T>, LayerError<Self::Err>> {
        dropout::same_rows(&x, onto)?;
        let Some(kind) = Kind::of::<E>() else {
            return Ok(dropout::composed_add(x, onto, rate)?);
        };
        // The copy gets a tape, by which the gradient reaches the original.
        let (onto, copied) = onto.retaped::<T>().try_contiguous()?.split_tape();
        let (x, tape) = x.try_contiguous()?.split_tape();
        Ok(dropout::on_cuda(kind, x.put_tape(tape.merge(copied)), Some(onto), rate)?)
    }

    fn try_embedding<T: Tape<E, Self>, const V: usize, const M: usize>(
        ids: Ids<Self, T>,
        weight: &Tensor<Rank2<V, M>, E, Self>,
        options: EmbeddingOptions,
    ) -> Result<Sequences<M, E, Self, T>, LayerError<Self::Err>> {
        let values = ids.as_vec();
        embed::check::<V, _>(&values)?;
        match Kind::of_small::<E>(&[V, M]) {
            Some(kind) => {
                let weight = weight.clone().try_contiguous()?;
                Ok(embed::on_cuda(kind, ids, values, weight, options)?)
            }
            None => Ok(embed::composed(ids, weight, options)?),
        }
    }

    fn try_attention<T: Tape<E, Self>, const M: usize, const H: usize>(
        (q, k, v): QueryKeyValue<M, E, Self, T>,
        sizes: AttentionSizes,
        mask: &AttentionMask,
        dropout: DropoutRate,
    ) -> Result<Rows<usize, M, E, Self, T>, LayerError<Self::Err>> {
        attend::check(&q, &k, &v, sizes, mask)?;
        let Some(plan) = attend::Plan::of::<E, M, H>(sizes) else {
            return Ok(attend::composed::<_, _, _, M, H>((q, k, v), sizes, mask, dropout)?);
        };
        let qkv = (q.try_contiguous()?, k.try_contiguous()?, v.try_contiguous()?);
        Ok(attend::on_cuda(plan, qkv, mask, dropout)?)
    }

    fn try_cross_entropy<T: Tape<E, Self>, const V: usize>(
        logits: Rows<usize, V, E, Self, T>,
        labels: &[usize],
        ignored: usize,
    ) -> Result<Tensor<Rank0, E, Self, T>, LayerError<Self::Err>> {
        cross_entropy::check(&logits, labels, ignored)?;
        match Kind::of_small::<E>(&[V]) {
            Some(kind) => {
                Ok(cross_entropy::on_cuda(kind, logits.try_contiguous()?, labels, ignored)?)
            }
            None => Ok(cross_entropy::composed(logits, labels, ignored)?),
        }
    }
}
