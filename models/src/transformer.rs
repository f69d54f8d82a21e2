//! The sequence-to-sequence transformer, for translation.

use crate::layers::{
    self, Decoder, DecoderMasks, Dense, DropoutRate, Encoder, Ids, KeyPadding, LayerError,
    SequenceKernels, Sequences, TokenEmbedding, Xavier,
};
use dfdx::{
    nn::{Module, ModuleMut},
    prelude::{
        Const, Device, Dtype, HasShape, NoneTape, OwnedTape, PutTape, Rank0, ReshapeTo, SplitTape,
        Storage, Tape, Tensor, TensorFromVec,
    },
};
use tlr::{TensorCollection, TrainableLr};

/// The id of padding, which stands for no token: 1 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pad(pub usize);

impl Default for Pad {
    fn default() -> Self {
        Self(1)
    }
}

/// The transformer of Vaswani et al., *Attention Is All You Need* (2017), as `torch.nn.Transformer`
/// has it by default: layer norm after each residual sum, rectified dense layers. Tokens are
/// embedded times √M and given sinusoidal positions; a dense layer turns what the decoder gives
/// into logits over the target's vocabulary.
///
/// `SRC` and `TGT` are the vocabularies' sizes, `M` the features, `H` the heads that share them,
/// `FF` the width of the dense layers, `ENC` and `DEC` the layers on either side. All of these are
/// types: dfdx builds tensors from shapes known to the compiler. [`Seq2Seq`] has the usual ones.
///
/// Maps `(source, target)`, of ids `(batch, source length)` and `(batch, target length)`, to logits
/// `(batch, target length, TGT)`: at each position of the target the logits of the next token,
/// given the tokens up to this position (teacher forcing). No position sees those of
/// [`pad`](Self::pad). The source carries the tape. Dropout is at work in [`ModuleMut`], whose
/// source has a tape, and off in [`Module`], whose source has none.
///
/// # Errors
/// [`LayerError::Shape`] for ids outside their vocabulary and for batches that differ.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::{layers::DropoutRate, padded, shifted, Seq2SeqTransformer};
///
/// let dev = Cpu::default();
/// let mut model = Seq2SeqTransformer::<20, 30, 16, 4, 32, 1, 1, f32, Cpu>::build(&dev);
/// model.set_dropout(DropoutRate::NONE);
/// let source = padded(&dev, &[&[2, 7, 9, 3][..], &[2, 8, 3]], 1)?;
/// let target = padded(&dev, &[&[2, 4, 3][..], &[2, 5, 6, 3]], 1)?;
/// let (input, labels) = shifted(&target)?;
/// let logits = model.forward_mut((source.traced(model.alloc_grads()), input));
/// assert_eq!(logits.shape(), &(2, 3, Const));
/// let gradients = model.try_loss(logits, &labels)?.backward();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Seq2SeqTransformer<
    const SRC: usize,
    const TGT: usize,
    const M: usize,
    const H: usize,
    const FF: usize,
    const ENC: usize,
    const DEC: usize,
    E: Dtype,
    D: Device<E>,
> {
    /// The vectors of the source's tokens.
    pub src_embedding: TokenEmbedding<SRC, M, E, D>,
    /// The vectors of the target's tokens.
    pub tgt_embedding: TokenEmbedding<TGT, M, E, D>,
    /// Turns the source into the memory that the decoder attends to.
    pub encoder: Encoder<M, H, FF, ENC, E, D>,
    /// Turns target and memory into features.
    pub decoder: Decoder<M, H, FF, DEC, E, D>,
    /// Turns features into logits.
    pub generator: Dense<M, TGT, Xavier, E, D>,
    /// The dropout rate of the embeddings; [`set_dropout`](Self::set_dropout) sets that of all
    /// layers. Default 0.1. When dfdx converts the model it is 0.1 again.
    #[tlr(skip)]
    pub dropout: DropoutRate,
    /// The id of padding, in source and target. Default 1. When dfdx converts the model it is 1
    /// again.
    #[tlr(skip)]
    pub pad: Pad,
}

/// Three layers on either side, 512 features, 8 heads, dense layers of 512.
pub type Seq2Seq<const SRC: usize, const TGT: usize, E, D> =
    Seq2SeqTransformer<SRC, TGT, 512, 8, 512, 3, 3, E, D>;

impl<
        const SRC: usize,
        const TGT: usize,
        const M: usize,
        const H: usize,
        const FF: usize,
        const ENC: usize,
        const DEC: usize,
        E,
        D,
    > Seq2SeqTransformer<SRC, TGT, M, H, FF, ENC, DEC, E, D>
where
    E: Dtype,
    D: Device<E>,
{
    /// Sets the dropout rate of the embeddings and of all layers.
    ///
    /// Example: [`Seq2SeqTransformer`].
    pub fn set_dropout(&mut self, rate: DropoutRate) {
        self.dropout = rate;
        self.encoder.layers.modules.iter_mut().for_each(|layer| layer.dropout = rate);
        self.decoder.layers.modules.iter_mut().for_each(|layer| layer.dropout = rate);
    }
}

impl<
        const SRC: usize,
        const TGT: usize,
        const M: usize,
        const H: usize,
        const FF: usize,
        const ENC: usize,
        const DEC: usize,
        E,
        D,
    > Seq2SeqTransformer<SRC, TGT, M, H, FF, ENC, DEC, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    fn rate(&self, training: bool) -> DropoutRate {
        if training {
            self.dropout
        } else {
            DropoutRate::NONE
        }
    }

    fn padding<T>(&self, ids: &Ids<D, T>) -> Option<KeyPadding> {
        KeyPadding::of(&ids.as_vec(), ids.shape().0, self.pad.0)
    }

    /// The encoder's result that the decoder attends to, `(batch, length, M)`, and which positions
    /// are padding.
    #[allow(clippy::type_complexity)]
    pub(crate) fn memory<T: Tape<E, D>>(
        &self,
        source: Ids<D, T>,
        training: bool,
    ) -> Result<(Sequences<M, E, D, T>, Option<KeyPadding>), LayerError<D::Err>> {
        let padding = self.padding(&source);
        let x = self.src_embedding.try_forward(source)?;
        let x = layers::dropout(x, self.rate(training))?;
        Ok((self.encoder.try_encode(x, padding.as_ref(), training)?, padding))
    }

    /// The features that the generator turns into logits, `(batch, length, M)`.
    pub(crate) fn features<T: Tape<E, D>>(
        &self,
        target: Ids<D, T>,
        memory: &Sequences<M, E, D>,
        padding: Option<KeyPadding>,
        training: bool,
    ) -> Result<Sequences<M, E, D, T>, LayerError<D::Err>> {
        let masks = DecoderMasks::causal(self.padding(&target), padding);
        let x = self.tgt_embedding.try_forward(target)?;
        let x = layers::dropout(x, self.rate(training))?;
        self.decoder.try_decode(x, memory, &masks, training)
    }

    fn pass<T: Tape<E, D>>(
        &self,
        source: Ids<D, T>,
        target: Ids<D>,
        training: bool,
    ) -> Result<Sequences<TGT, E, D, T>, LayerError<D::Err>> {
        let (memory, padding) = self.memory(source, training)?;
        let (memory, tape) = memory.split_tape();
        let x = self.features(target.put_tape(tape), &memory, padding, training)?;
        Ok(self.generator.try_forward(x)?)
    }

    /// The mean cross entropy of the labels that are not padding. If all labels are padding, it is
    /// 0 and has no gradients.
    ///
    /// # Errors
    /// [`LayerError::Shape`] for labels outside the vocabulary, and for another number of labels
    /// than there are rows of logits; an error of the device.
    ///
    /// Example: [`Seq2SeqTransformer`].
    pub fn try_loss<T: Tape<E, D>>(
        &self,
        logits: Sequences<TGT, E, D, T>,
        labels: &Ids<D>,
    ) -> Result<Tensor<Rank0, E, D, T>, LayerError<D::Err>> {
        let &(batch, length, _) = logits.shape();
        let rows = logits.try_reshape_like(&(batch * length, Const::<TGT>))?;
        D::try_cross_entropy(rows, &labels.as_vec(), self.pad.0)
    }
}

impl<
        const SRC: usize,
        const TGT: usize,
        const M: usize,
        const H: usize,
        const FF: usize,
        const ENC: usize,
        const DEC: usize,
        E,
        D,
    > Module<(Ids<D>, Ids<D>)> for Seq2SeqTransformer<SRC, TGT, M, H, FF, ENC, DEC, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    type Output = Sequences<TGT, E, D>;
    type Error = LayerError<D::Err>;

    fn try_forward(&self, (source, target): (Ids<D>, Ids<D>)) -> Result<Self::Output, Self::Error> {
        self.pass::<NoneTape>(source, target, false)
    }
}

impl<
        const SRC: usize,
        const TGT: usize,
        const M: usize,
        const H: usize,
        const FF: usize,
        const ENC: usize,
        const DEC: usize,
        E,
        D,
    > ModuleMut<(Ids<D, OwnedTape<E, D>>, Ids<D>)>
    for Seq2SeqTransformer<SRC, TGT, M, H, FF, ENC, DEC, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
{
    type Output = Sequences<TGT, E, D, OwnedTape<E, D>>;
    type Error = LayerError<D::Err>;

    fn try_forward_mut(
        &mut self,
        (source, target): (Ids<D, OwnedTape<E, D>>, Ids<D>),
    ) -> Result<Self::Output, Self::Error> {
        self.pass(source, target, true)
    }
}

/// A batch of sentences, each filled up with `pad` to the length of the longest.
///
/// # Errors
/// Out of memory.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
///
/// let ids = tlr_models::padded(&Cpu::default(), &[&[5][..], &[6, 7]], 1)?;
/// assert_eq!((ids.shape(), ids.as_vec()), (&(2, 2), vec![5, 1, 6, 7]));
/// # Ok::<(), CpuError>(())
/// ```
pub fn padded<D: TensorFromVec<usize>>(
    device: &D,
    sentences: &[&[usize]],
    pad: usize,
) -> Result<Ids<D>, D::Err> {
    let length = sentences.iter().map(|sentence| sentence.len()).max().unwrap_or(0);
    let ids = sentences.iter().flat_map(|sentence| {
        let padding = std::iter::repeat_n(pad, length - sentence.len());
        sentence.iter().copied().chain(padding)
    });
    device.try_tensor_from_vec(ids.collect(), (sentences.len(), length))
}

/// A decoder's input and its labels: each sentence without its last token, and each without its
/// first.
///
/// # Errors
/// Out of memory.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
///
/// let target = Cpu::default().tensor_from_vec(vec![2, 5, 3, 2, 6, 7], (2, 3));
/// let (input, labels) = tlr_models::shifted(&target)?;
/// assert_eq!((input.as_vec(), labels.as_vec()), (vec![2, 5, 2, 6], vec![5, 3, 6, 7]));
/// # Ok::<(), CpuError>(())
/// ```
pub fn shifted<D>(target: &Ids<D>) -> Result<(Ids<D>, Ids<D>), D::Err>
where
    D: TensorFromVec<usize> + Storage<usize>,
{
    let &(batch, length) = target.shape();
    let ids = target.as_vec();
    let part = |start: usize| {
        let sentences = ids.chunks_exact(length.max(1));
        let kept = sentences.flat_map(|ids| ids.iter().skip(start).take(length.saturating_sub(1)));
        let shape = (batch, length.saturating_sub(1));
        target.device().try_tensor_from_vec(kept.copied().collect(), shape)
    };
    Ok((part(0)?, part(1)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use dfdx::prelude::*;

    type Small = Seq2SeqTransformer<8, 8, 8, 2, 16, 1, 1, f64, Cpu>;

    fn ids(dev: &Cpu, ids: &[usize]) -> Ids<Cpu> {
        dev.tensor_from_vec(ids.to_vec(), (1, ids.len()))
    }

    // Padding stands in the middle of the target: its vector must reach no other position. Fails if
    // the mask leaves out the target's padding.
    #[test]
    fn padding_of_the_target_has_no_influence() {
        let dev = Cpu::seed_from_u64(1);
        let mut model = Small::build(&dev);
        let forward =
            |model: &Small| model.forward((ids(&dev, &[2, 5, 3]), ids(&dev, &[2, 1, 4]))).as_vec();
        let before = forward(&model);
        let mut weight = model.tgt_embedding.weight.as_vec();
        weight[8..16].fill(3.0);
        model.tgt_embedding.weight.copy_from(&weight);
        let after = forward(&model);
        assert_eq!(before[..8], after[..8]);
        assert_ne!(before[8..16], after[8..16]);
        assert_eq!(before[16..], after[16..]);
    }

    // Dropout acts in training only, everywhere, and is drawn anew each time. Without dropout,
    // training gives what evaluation gives.
    #[test]
    fn dropout_in_training_only() {
        let dev = Cpu::seed_from_u64(1);
        let mut model = Small::build(&dev);
        let (source, target) = (ids(&dev, &[2, 5, 3]), ids(&dev, &[2, 6, 4]));
        let evaluated = model.forward((source.clone(), target.clone())).as_vec();
        assert_eq!(evaluated, model.forward((source.clone(), target.clone())).as_vec());
        let train = |model: &mut Small| {
            let source = source.clone().traced(model.alloc_grads());
            model.forward_mut((source, target.clone())).as_vec()
        };
        assert_ne!(train(&mut model), train(&mut model));
        model.set_dropout(DropoutRate::NONE);
        assert_eq!(train(&mut model), evaluated);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let dev = Cpu::default();
        let model = Small::build(&dev);
        let forward = |source, target| model.try_forward((source, target));
        let two = dev.tensor_from_vec(vec![2; 6], (2, 3));
        for (source, target) in [
            (ids(&dev, &[2, 8]), ids(&dev, &[2, 3])),
            (ids(&dev, &[2, 3]), ids(&dev, &[2, 8])),
            (ids(&dev, &[2, 3]), two),
        ] {
            assert!(matches!(forward(source, target), Err(LayerError::Shape { .. })));
        }
        let logits = forward(ids(&dev, &[2, 3]), ids(&dev, &[2, 3])).unwrap();
        let loss = model.try_loss(logits, &ids(&dev, &[2, 3, 4]));
        assert!(matches!(loss, Err(LayerError::Shape { .. })));
    }
}
