//! Multi-head attention.

use super::{
    dense::{Dense, PackedXavier, UnbiasedXavier},
    AttentionMask, AttentionSizes, DropoutRate, LayerError, Misfit, SequenceKernels, Sequences,
};
use dfdx::{
    nn::{Module, NonMutableModule},
    prelude::{Const, Device, Dtype, HasShape, NoneTape, ReshapeTo, Tape},
};
use tlr::{TensorCollection, TrainableLr};

/// Attention by `H` heads, as `torch.nn.MultiheadAttention` has it: `out(concat over heads of
/// softmax(q·kᵀ / √(M/H)) · v)`, with `q`, `k` and `v` dense functions of the query, the key and
/// the value.
///
/// Maps `(query, key, value, mask)`, of `(batch, queries, M)` and twice `(batch, keys, M)`, to
/// `(batch, queries, M)`. Lengths and batch are known at run time only. As in dfdx, the query
/// carries the tape. `M` has to be a multiple of `H`, or it does not compile.
///
/// A masked key has no weight. A query for which all keys are masked gets `out`'s bias (PyTorch:
/// NaN), and passes no gradient on to query, key and value.
///
/// PyTorch packs the first three weights in one tensor; here they are three layers, each of which
/// may have a rate of its own.
/// [`Names::torch_transformer`](crate::weights::Names::torch_transformer) says where they are in
/// its files.
///
/// # Errors
/// [`LayerError::Shape`] if batches or lengths of query, key, value and mask do not agree.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::{
///     AttentionMask, DropoutRate, KeyPadding, MultiHeadAttention, Sequences,
/// };
///
/// let dev = Cpu::default();
/// let attention = MultiHeadAttention::<8, 2, f32, Cpu>::build(&dev);
/// let query: Sequences<8, f32, _> = dev.ones_like(&(2, 3, Const));
/// let memory: Sequences<8, f32, _> = dev.ones_like(&(2, 5, Const));
/// let keys = KeyPadding::of(&[4, 4, 4, 0, 0, 4, 4, 4, 4, 4], 2, 0);
/// let mask = AttentionMask { causal: false, keys };
/// let (none, pair) = (DropoutRate::NONE, (query.clone(), &memory, &memory));
/// let same = attention.try_attend(pair, &mask, none)?;
/// let y = attention.forward((query, memory.clone(), memory, mask));
/// assert_eq!(y.shape(), &(2, 3, Const));
/// assert_eq!(y.as_vec(), same.as_vec());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// use dfdx::prelude::*;
/// use tlr_models::layers::{AttentionMask, MultiHeadAttention, Sequences};
///
/// let dev = Cpu::default();
/// let attention = MultiHeadAttention::<8, 3, f32, Cpu>::build(&dev);
/// let x: Sequences<8, f32, _> = dev.ones_like(&(2, 3, Const));
/// attention.forward((x.clone(), x.clone(), x, AttentionMask::default()));
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct MultiHeadAttention<const M: usize, const H: usize, E: Dtype, D: Device<E>> {
    /// The dense layer of the query.
    pub q_proj: Dense<M, M, PackedXavier, E, D>,
    /// The dense layer of the key.
    pub k_proj: Dense<M, M, PackedXavier, E, D>,
    /// The dense layer of the value.
    pub v_proj: Dense<M, M, PackedXavier, E, D>,
    /// The dense layer behind the heads.
    pub out_proj: Dense<M, M, UnbiasedXavier, E, D>,
}

impl<const M: usize, const H: usize, E, D> MultiHeadAttention<M, H, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    /// Forward, with dropout on the weights that the softmax gives.
    ///
    /// # Errors
    /// [`LayerError::Shape`] if batches or lengths do not agree; an error of the device.
    ///
    /// Example: [`MultiHeadAttention`].
    #[allow(clippy::type_complexity)]
    pub fn try_attend<T: Tape<E, D>>(
        &self,
        (query, key, value): (
            Sequences<M, E, D, T>,
            &Sequences<M, E, D, NoneTape>,
            &Sequences<M, E, D, NoneTape>,
        ),
        mask: &AttentionMask,
        dropout: DropoutRate,
    ) -> Result<Sequences<M, E, D, T>, LayerError<D::Err>> {
        const { assert!(H > 0 && M.is_multiple_of(H), "the heads have to divide the features") };
        let (&(batch, queries, _), &(others, keys, _)) = (query.shape(), key.shape());
        if others != batch || value.shape() != key.shape() {
            let &(of_values, values, _) = value.shape();
            return Err(LayerError::Shape {
                layer: format!("attention of {M} features by {H} heads"),
                misfit: Misfit::Sequences {
                    queries: batch,
                    keys: (others, keys),
                    values: (of_values, values),
                },
            });
        }
        let sizes = AttentionSizes { batch, queries, keys };
        let q = self.q_proj.try_forward(query)?;
        let k = self.k_proj.try_forward(key.retaped::<T>())?;
        let v = self.v_proj.try_forward(value.retaped::<T>())?;
        let rows = (
            q.try_reshape_like(&(batch * queries, Const::<M>))?,
            k.try_reshape_like(&(batch * keys, Const::<M>))?,
            v.try_reshape_like(&(batch * keys, Const::<M>))?,
        );
        let y = D::try_attention::<T, M, H>(rows, sizes, mask, dropout)?;
        Ok(self.out_proj.try_forward(y.try_reshape_like(&(batch, queries, Const::<M>))?)?)
    }
}

impl<const M: usize, const H: usize, E, D, T>
    Module<(Sequences<M, E, D, T>, Sequences<M, E, D>, Sequences<M, E, D>, AttentionMask)>
    for MultiHeadAttention<M, H, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
    T: Tape<E, D>,
{
    type Output = Sequences<M, E, D, T>;
    type Error = LayerError<D::Err>;

    fn try_forward(
        &self,
        (query, key, value, mask): (
            Sequences<M, E, D, T>,
            Sequences<M, E, D>,
            Sequences<M, E, D>,
            AttentionMask,
        ),
    ) -> Result<Self::Output, Self::Error> {
        self.try_attend((query, &key, &value), &mask, DropoutRate::NONE)
    }
}

impl<const M: usize, const H: usize, E: Dtype, D: Device<E>> NonMutableModule
    for MultiHeadAttention<M, H, E, D>
{
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{MultiHeadAttention, *};
    use dfdx::prelude::*;

    // No gradient reaches q, k and v of a sequence that is all padding. Its output is the bias of
    // `out_proj`.
    #[test]
    fn a_sequence_of_padding() {
        let dev = Cpu::seed_from_u64(1);
        let mut attention = MultiHeadAttention::<4, 2, f64, Cpu>::build(&dev);
        attention.out_proj.bias = dev.sample_normal();
        let x: Sequences<4, f64, _> = dev.sample_like(&(1, 3, Const), rand_distr::StandardNormal);
        let mask =
            AttentionMask { causal: false, keys: crate::layers::KeyPadding::of(&[1; 3], 1, 1) };
        let y = attention.forward((x.leaky_trace(), x.clone(), x.clone(), mask));
        assert_eq!(y.as_vec(), attention.out_proj.bias.as_vec().repeat(3));
        let g = y.square().sum().backward();
        assert_eq!(g.get(&x).as_vec(), [0.0; 12]);
        assert_eq!(g.get(&attention.q_proj.weight).as_vec(), [0.0; 16]);
        assert_eq!(g.get(&attention.v_proj.weight).as_vec(), [0.0; 16]);
    }

    #[test]
    fn batches_that_do_not_agree_are_errors() {
        let dev = Cpu::default();
        let attention = MultiHeadAttention::<4, 2, f64, Cpu>::build(&dev);
        let x = |batch, length| -> Sequences<4, f64, _> { dev.ones_like(&(batch, length, Const)) };
        let attend = |q, k, v| attention.try_forward((q, k, v, AttentionMask::default()));
        assert!(attend(x(2, 3), x(2, 4), x(2, 4)).is_ok());
        for (k, v) in [(x(1, 4), x(1, 4)), (x(2, 4), x(2, 3))] {
            let sizes = |x: &Sequences<4, f64, _>| (x.shape().0, x.shape().1);
            let expected = Misfit::Sequences { queries: 2, keys: sizes(&k), values: sizes(&v) };
            let found = attend(x(2, 3), k, v).err();
            assert!(matches!(found, Some(LayerError::Shape { misfit, .. }) if misfit == expected));
        }
    }
}
