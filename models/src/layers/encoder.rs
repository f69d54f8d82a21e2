//! The encoder of a transformer.

use super::{
    attention::MultiHeadAttention,
    dense::{Dense, Xavier},
    AttentionMask, DropoutRate, KeyPadding, LayerError, LinearOptions, SequenceKernels, Sequences,
};
use dfdx::{
    nn::{
        modules::{LayerNorm1D, Repeated},
        Module, ModuleMut,
    },
    prelude::{
        Const, Device, Dtype, HasShape, NoneTape, OwnedTape, PutTape, ReshapeTo, SplitTape, Tape,
    },
};
use tlr::{TensorCollection, TrainableLr};

/// Layer norm of each position.
pub(super) fn norm<E: Dtype, D: SequenceKernels<E>, T: Tape<E, D>, const M: usize>(
    norm: &LayerNorm1D<M, E, D>,
    x: Sequences<M, E, D, T>,
) -> Result<Sequences<M, E, D, T>, D::Err> {
    let &(batch, length, _) = x.shape();
    let rows = x.try_reshape_like(&(batch * length, Const::<M>))?;
    let y = D::try_layer_norm(rows, &norm.gamma, &norm.beta, norm.epsilon)?;
    y.try_reshape_like(&(batch, length, Const))
}

/// Dropout of each element.
pub(crate) fn dropout<E: Dtype, D: SequenceKernels<E>, T: Tape<E, D>, const M: usize>(
    x: Sequences<M, E, D, T>,
    rate: DropoutRate,
) -> Result<Sequences<M, E, D, T>, D::Err> {
    let &(batch, length, _) = x.shape();
    let rows = x.try_reshape_like(&(batch * length, Const::<M>))?;
    D::try_drop(rows, rate)?.try_reshape_like(&(batch, length, Const))
}

/// The end of a residual branch: `norm(onto + dropout(x))`.
pub(super) fn add_and_norm<E: Dtype, D: SequenceKernels<E>, T: Tape<E, D>, const M: usize>(
    x: Sequences<M, E, D, T>,
    onto: Sequences<M, E, D>,
    by: &LayerNorm1D<M, E, D>,
    rate: DropoutRate,
) -> Result<Sequences<M, E, D, T>, LayerError<D::Err>> {
    let &(batch, length, _) = x.shape();
    let rows = (batch * length, Const::<M>);
    let onto = onto.try_reshape_like(&rows)?;
    let sum = D::try_drop_and_add(x.try_reshape_like(&rows)?, &onto, rate)?;
    Ok(norm(by, sum.try_reshape_like(&(batch, length, Const))?)?)
}

/// `linear2(dropout(relu(linear1(x))))`.
pub(super) fn feed_forward<E, D, T, const M: usize, const FF: usize>(
    x: Sequences<M, E, D, T>,
    linear1: &Dense<M, FF, Xavier, E, D>,
    linear2: &Dense<FF, M, Xavier, E, D>,
    rate: DropoutRate,
) -> Result<Sequences<M, E, D, T>, D::Err>
where
    E: Dtype,
    D: SequenceKernels<E>,
    T: Tape<E, D>,
{
    let hidden = linear1.apply(x, LinearOptions { relu: true, ..Default::default() })?;
    linear2.try_forward(dropout(hidden, rate)?)
}

/// One layer of an encoder, as `torch.nn.TransformerEncoderLayer` has it by default: attention of
/// the sequence to itself, then two dense layers with a rectifier between, each followed by
/// dropout, residual sum and layer norm.
///
/// Maps `(x, mask)` of `(batch, length, M)` to the same. Dropout is at work in
/// [`ModuleMut`], whose input has a tape, and off in [`Module`], whose input has none.
///
/// # Errors
/// [`LayerError::Shape`] if the mask is not of the sequences' batch and length.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::{AttentionMask, EncoderLayer, Sequences};
///
/// let dev = Cpu::default();
/// let mut layer = EncoderLayer::<8, 2, 16, f32, Cpu>::build(&dev);
/// let x: Sequences<8, f32, _> = dev.ones_like(&(2, 3, Const));
/// let evaluated = layer.forward((x.clone(), AttentionMask::default()));
/// let trained = layer.forward_mut((x.leaky_trace(), AttentionMask::default()));
/// assert_ne!(evaluated.as_vec(), trained.as_vec());
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct EncoderLayer<const M: usize, const H: usize, const FF: usize, E: Dtype, D: Device<E>> {
    /// Attention of the sequence to itself.
    pub self_attn: MultiHeadAttention<M, H, E, D>,
    /// `M` → `FF`, rectified.
    pub linear1: Dense<M, FF, Xavier, E, D>,
    /// `FF` → `M`.
    pub linear2: Dense<FF, M, Xavier, E, D>,
    /// The norm after the attention.
    pub norm1: LayerNorm1D<M, E, D>,
    /// The norm after the dense layers.
    pub norm2: LayerNorm1D<M, E, D>,
    /// The dropout rate of the attention's weights, after the rectifier, and before each residual
    /// sum. Default 0.1. When dfdx converts the model it is 0.1 again.
    #[tlr(skip)]
    pub dropout: DropoutRate,
}

impl<const M: usize, const H: usize, const FF: usize, E, D> EncoderLayer<M, H, FF, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    fn pass<T: Tape<E, D>>(
        &self,
        x: Sequences<M, E, D, T>,
        mask: &AttentionMask,
        rate: DropoutRate,
    ) -> Result<Sequences<M, E, D, T>, LayerError<D::Err>> {
        let (x, tape) = x.split_tape();
        let y = self.self_attn.try_attend((x.clone().put_tape(tape), &x, &x), mask, rate)?;
        let (x, tape) = add_and_norm(y, x, &self.norm1, rate)?.split_tape();
        let y = feed_forward(x.clone().put_tape(tape), &self.linear1, &self.linear2, rate)?;
        add_and_norm(y, x, &self.norm2, rate)
    }
}

impl<const M: usize, const H: usize, const FF: usize, E, D>
    Module<(Sequences<M, E, D>, AttentionMask)> for EncoderLayer<M, H, FF, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    type Output = Sequences<M, E, D>;
    type Error = LayerError<D::Err>;

    fn try_forward(
        &self,
        (x, mask): (Sequences<M, E, D>, AttentionMask),
    ) -> Result<Self::Output, Self::Error> {
        self.pass::<NoneTape>(x, &mask, DropoutRate::NONE)
    }
}

impl<const M: usize, const H: usize, const FF: usize, E, D>
    ModuleMut<(Sequences<M, E, D, OwnedTape<E, D>>, AttentionMask)> for EncoderLayer<M, H, FF, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    type Output = Sequences<M, E, D, OwnedTape<E, D>>;
    type Error = LayerError<D::Err>;

    fn try_forward_mut(
        &mut self,
        (x, mask): (Sequences<M, E, D, OwnedTape<E, D>>, AttentionMask),
    ) -> Result<Self::Output, Self::Error> {
        self.pass(x, &mask, self.dropout)
    }
}

/// `N` layers, then a layer norm, as `torch.nn.Transformer`'s encoder.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::{Encoder, Sequences};
///
/// let dev = Cpu::default();
/// let encoder = Encoder::<8, 2, 16, 3, f32, Cpu>::build(&dev);
/// let x: Sequences<8, f32, _> = dev.ones_like(&(2, 3, Const));
/// let y = encoder.try_encode(x, None, false)?;
/// assert_eq!(y.shape(), &(2, 3, Const));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Encoder<
    const M: usize,
    const H: usize,
    const FF: usize,
    const N: usize,
    E: Dtype,
    D: Device<E>,
> {
    /// The layers, in the order in which a sequence passes them.
    pub layers: Repeated<EncoderLayer<M, H, FF, E, D>, N>,
    /// The norm after the last of them.
    pub norm: LayerNorm1D<M, E, D>,
}

impl<const M: usize, const H: usize, const FF: usize, const N: usize, E, D>
    Encoder<M, H, FF, N, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    /// Forward; `training` says whether dropout is at work. No position sees those of `padding`.
    ///
    /// # Errors
    /// [`LayerError::Shape`] if the padding is not of the sequences' batch and length; an error
    /// of the device.
    ///
    /// Example: [`Encoder`].
    pub fn try_encode<T: Tape<E, D>>(
        &self,
        mut x: Sequences<M, E, D, T>,
        padding: Option<&KeyPadding>,
        training: bool,
    ) -> Result<Sequences<M, E, D, T>, LayerError<D::Err>> {
        let mask = AttentionMask { causal: false, keys: padding.cloned() };
        for layer in &self.layers.modules {
            x = layer.pass(x, &mask, if training { layer.dropout } else { DropoutRate::NONE })?;
        }
        Ok(norm(&self.norm, x)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::TokenEmbedding;
    use dfdx::prelude::*;

    /// Drops everything but one element in 10^12.
    fn all() -> DropoutRate {
        DropoutRate::new(1.0 - 1e-12).unwrap()
    }

    fn layer(dev: &Cpu) -> (EncoderLayer<8, 2, 16, f64, Cpu>, Sequences<8, f64, Cpu>) {
        let mut layer = EncoderLayer::<8, 2, 16, f64, Cpu>::build(dev);
        layer.self_attn.out_proj.bias = dev.sample_normal();
        layer.dropout = all();
        (layer, dev.sample_like(&(2, 3, Const), rand_distr::StandardNormal))
    }

    // If all branches are dropped, only the norms are left. Fails for a branch without dropout.
    #[test]
    fn dropout_before_each_residual_sum() {
        let dev = Cpu::seed_from_u64(1);
        let (mut layer, x) = layer(&dev);
        let left = norm(&layer.norm2, norm(&layer.norm1, x.clone()).unwrap()).unwrap();
        let mask = AttentionMask::default();
        assert_ne!(layer.forward((x.clone(), mask.clone())).as_vec(), left.as_vec());
        assert_eq!(layer.forward_mut((x.leaky_traced(), mask)).as_vec(), left.as_vec());
    }

    #[test]
    fn dropout_of_weights_and_hidden_units() {
        let dev = Cpu::seed_from_u64(1);
        let (layer, x) = layer(&dev);
        let mask = AttentionMask::default();
        let y = layer.self_attn.try_attend((x.clone(), &x, &x), &mask, all()).unwrap();
        assert_eq!(y.as_vec(), layer.self_attn.out_proj.bias.as_vec().repeat(6));
        let y = feed_forward(x, &layer.linear1, &layer.linear2, all()).unwrap();
        assert_eq!(y.as_vec(), layer.linear2.bias.as_vec().repeat(6));
    }

    // No position sees padding: other vectors there leave the rest as it is.
    #[test]
    fn padding_has_no_influence() {
        let dev = Cpu::seed_from_u64(1);
        let encoder = Encoder::<8, 2, 16, 2, f64, Cpu>::build(&dev);
        let embedding = TokenEmbedding::<6, 8, f64, Cpu>::build(&dev);
        let encode = |last| {
            let ids = dev.tensor_from_vec(vec![2, 3, last], (1, 3));
            let padding = KeyPadding::of(&[2, 3, 1], 1, 1);
            encoder.try_encode(embedding.forward(ids), padding.as_ref(), false).unwrap().as_vec()
        };
        assert_eq!(encode(4)[..16], encode(5)[..16]);
        assert_ne!(encode(4)[16..], encode(5)[16..]);
    }
}
