//! The decoder of a transformer.

use super::{
    attention::MultiHeadAttention,
    dense::{Dense, Xavier},
    encoder::{add_and_norm, feed_forward, norm},
    AttentionMask, DropoutRate, KeyPadding, LayerError, SequenceKernels, Sequences,
};
use dfdx::{
    nn::{
        modules::{LayerNorm1D, Repeated},
        Module, ModuleMut,
    },
    prelude::{Device, Dtype, NoneTape, OwnedTape, PutTape, SplitTape, Tape},
};
use tlr::{TensorCollection, TrainableLr};

/// The two masks of a decoder's layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecoderMasks {
    /// The mask of the target's attention to itself; usually causal.
    pub target: AttentionMask,
    /// The mask of its attention to what the encoder gave.
    pub memory: AttentionMask,
}

impl DecoderMasks {
    /// Masks by which no position of the target sees a later one, and none sees padding.
    ///
    /// # Example
    /// ```
    /// use tlr_models::layers::DecoderMasks;
    ///
    /// let masks = DecoderMasks::causal(None, None);
    /// assert!(masks.target.causal && !masks.memory.causal);
    /// ```
    pub fn causal(target: Option<KeyPadding>, memory: Option<KeyPadding>) -> Self {
        Self {
            target: AttentionMask { causal: true, keys: target },
            memory: AttentionMask { causal: false, keys: memory },
        }
    }
}

/// One layer of a decoder, as `torch.nn.TransformerDecoderLayer` has it by default: attention of
/// the target to itself, attention to the memory that the encoder gave, then two dense layers with
/// a rectifier between, each followed by dropout, residual sum and layer norm.
///
/// Maps `(target, memory, masks)`, of `(batch, length, M)` and `(batch, source length, M)`, to
/// `(batch, length, M)`. The target carries the tape. Dropout is at work in [`ModuleMut`], whose
/// target has a tape, and off in [`Module`], whose target has none.
///
/// # Errors
/// [`LayerError::Shape`] if batches, lengths and masks do not agree.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::{DecoderLayer, DecoderMasks, Sequences};
///
/// let dev = Cpu::default();
/// let layer = DecoderLayer::<8, 2, 16, f32, Cpu>::build(&dev);
/// let target: Sequences<8, f32, _> = dev.ones_like(&(2, 3, Const));
/// let memory: Sequences<8, f32, _> = dev.ones_like(&(2, 5, Const));
/// let y = layer.forward((target, memory, DecoderMasks::causal(None, None)));
/// assert_eq!(y.shape(), &(2, 3, Const));
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct DecoderLayer<const M: usize, const H: usize, const FF: usize, E: Dtype, D: Device<E>> {
    /// Attention of the target to itself.
    pub self_attn: MultiHeadAttention<M, H, E, D>,
    /// Attention of the target to the memory.
    pub multihead_attn: MultiHeadAttention<M, H, E, D>,
    /// `M` → `FF`, rectified.
    pub linear1: Dense<M, FF, Xavier, E, D>,
    /// `FF` → `M`.
    pub linear2: Dense<FF, M, Xavier, E, D>,
    /// The norm after the attention to itself.
    pub norm1: LayerNorm1D<M, E, D>,
    /// The norm after the attention to the memory.
    pub norm2: LayerNorm1D<M, E, D>,
    /// The norm after the dense layers.
    pub norm3: LayerNorm1D<M, E, D>,
    /// The dropout rate of the attentions' weights, after the rectifier, and before each residual
    /// sum. Default 0.1. When dfdx converts the model it is 0.1 again.
    #[tlr(skip)]
    pub dropout: DropoutRate,
}

impl<const M: usize, const H: usize, const FF: usize, E, D> DecoderLayer<M, H, FF, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    fn pass<T: Tape<E, D>>(
        &self,
        x: Sequences<M, E, D, T>,
        memory: &Sequences<M, E, D>,
        masks: &DecoderMasks,
        rate: DropoutRate,
    ) -> Result<Sequences<M, E, D, T>, LayerError<D::Err>> {
        let (x, tape) = x.split_tape();
        let queries = x.clone().put_tape(tape);
        let y = self.self_attn.try_attend((queries, &x, &x), &masks.target, rate)?;
        let (x, tape) = add_and_norm(y, x, &self.norm1, rate)?.split_tape();
        let queries = x.clone().put_tape(tape);
        let y = self.multihead_attn.try_attend((queries, memory, memory), &masks.memory, rate)?;
        let (x, tape) = add_and_norm(y, x, &self.norm2, rate)?.split_tape();
        let y = feed_forward(x.clone().put_tape(tape), &self.linear1, &self.linear2, rate)?;
        add_and_norm(y, x, &self.norm3, rate)
    }
}

impl<const M: usize, const H: usize, const FF: usize, E, D>
    Module<(Sequences<M, E, D>, Sequences<M, E, D>, DecoderMasks)> for DecoderLayer<M, H, FF, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    type Output = Sequences<M, E, D>;
    type Error = LayerError<D::Err>;

    fn try_forward(
        &self,
        (target, memory, masks): (Sequences<M, E, D>, Sequences<M, E, D>, DecoderMasks),
    ) -> Result<Self::Output, Self::Error> {
        self.pass::<NoneTape>(target, &memory, &masks, DropoutRate::NONE)
    }
}

impl<const M: usize, const H: usize, const FF: usize, E, D>
    ModuleMut<(Sequences<M, E, D, OwnedTape<E, D>>, Sequences<M, E, D>, DecoderMasks)>
    for DecoderLayer<M, H, FF, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    type Output = Sequences<M, E, D, OwnedTape<E, D>>;
    type Error = LayerError<D::Err>;

    fn try_forward_mut(
        &mut self,
        (target, memory, masks): (
            Sequences<M, E, D, OwnedTape<E, D>>,
            Sequences<M, E, D>,
            DecoderMasks,
        ),
    ) -> Result<Self::Output, Self::Error> {
        self.pass(target, &memory, &masks, self.dropout)
    }
}

/// `N` layers, then a layer norm, as `torch.nn.Transformer`'s decoder.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::{Decoder, DecoderMasks, Sequences};
///
/// let dev = Cpu::default();
/// let decoder = Decoder::<8, 2, 16, 3, f32, Cpu>::build(&dev);
/// let target: Sequences<8, f32, _> = dev.ones_like(&(2, 3, Const));
/// let memory: Sequences<8, f32, _> = dev.ones_like(&(2, 5, Const));
/// let y = decoder.try_decode(target, &memory, &DecoderMasks::causal(None, None), false)?;
/// assert_eq!(y.shape(), &(2, 3, Const));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Decoder<
    const M: usize,
    const H: usize,
    const FF: usize,
    const N: usize,
    E: Dtype,
    D: Device<E>,
> {
    /// The layers, in the order in which a sequence passes them.
    pub layers: Repeated<DecoderLayer<M, H, FF, E, D>, N>,
    /// The norm after the last of them.
    pub norm: LayerNorm1D<M, E, D>,
}

impl<const M: usize, const H: usize, const FF: usize, const N: usize, E, D>
    Decoder<M, H, FF, N, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    /// Forward; `training` says whether dropout is at work.
    ///
    /// # Errors
    /// [`LayerError::Shape`] if batches, lengths and masks do not agree; an error of the device.
    ///
    /// Example: [`Decoder`].
    pub fn try_decode<T: Tape<E, D>>(
        &self,
        mut x: Sequences<M, E, D, T>,
        memory: &Sequences<M, E, D>,
        masks: &DecoderMasks,
        training: bool,
    ) -> Result<Sequences<M, E, D, T>, LayerError<D::Err>> {
        for layer in &self.layers.modules {
            let rate = if training { layer.dropout } else { DropoutRate::NONE };
            x = layer.pass(x, memory, masks, rate)?;
        }
        Ok(norm(&self.norm, x)?)
    }
}
