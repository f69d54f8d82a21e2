//! What a model that translates has to offer.

use super::{
    error::failed, Model, Number, TrainDevice, TrainError, TrainLoss, Trainable, TrainsIn,
};
use crate::{
    data::text::{Padded, PairBatch, PAD},
    layers::{DropoutRate, Ids},
    search::{Found, SearchOptions},
    shifted, Seq2SeqTransformer,
};
use dfdx::{
    nn::{Module, ModuleMut},
    prelude::{AsArray, Gradients, Trace},
};

/// A model that translates.
pub trait Translator: Model + Trainable<<Self as Model>::Number, <Self as Model>::Device> {
    /// How many tokens of the source's and of the target's vocabulary it has room for.
    const TOKENS: [usize; 2];

    /// Sets the dropout rate of all layers.
    fn set_dropout(&mut self, rate: DropoutRate);

    /// The mean loss in training over the target's tokens, each predicted from those before it.
    ///
    /// # Errors
    /// An error of a layer.
    fn train_loss(
        &mut self,
        batch: PairBatch,
        gradients: Gradients<Self::Number, Self::Device>,
    ) -> Result<TrainLoss<Self::Device, Self::Number>, TrainError>;

    /// Counts how well the model predicts a batch, without dropout.
    ///
    /// # Errors
    /// An error of a layer.
    fn tally(&self, batch: PairBatch) -> Result<Tally, TrainError>;

    /// The best target for each source, by greedy search where `options.width` is 1 and by beam
    /// search where it is more.
    ///
    /// # Errors
    /// An error of a layer, and a model whose logits are NaN.
    fn search(
        &self,
        sources: &[&[usize]],
        options: &SearchOptions,
    ) -> Result<Vec<Found>, TrainError>;

    /// Frees the memory that the device keeps for later tensors.
    ///
    /// # Errors
    /// An error of the device.
    fn empty_cache(&self) -> Result<(), TrainError>;
}

/// How well a model has predicted tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// The sum of the tokens' losses.
    pub loss: f64,
    /// How many tokens the model thought likeliest.
    pub right: usize,
    /// How many tokens there were.
    pub tokens: usize,
}

impl Tally {
    /// The counts of both together.
    pub(crate) fn add(self, other: Self) -> Self {
        Self {
            loss: self.loss + other.loss,
            right: self.right + other.right,
            tokens: self.tokens + other.tokens,
        }
    }
}

fn ids<D: TrainDevice>(device: &D, sentences: Padded) -> Result<Ids<D>, TrainError> {
    device.try_tensor_from_vec(sentences.ids, (sentences.rows, sentences.columns)).map_err(failed)
}

impl<
        const SRC: usize,
        const TGT: usize,
        const M: usize,
        const H: usize,
        const FF: usize,
        const ENC: usize,
        const DEC: usize,
        E: Number,
        D: TrainsIn<E>,
    > Model for Seq2SeqTransformer<SRC, TGT, M, H, FF, ENC, DEC, E, D>
{
    type Number = E;
    type Device = D;
}

impl<
        const SRC: usize,
        const TGT: usize,
        const M: usize,
        const H: usize,
        const FF: usize,
        const ENC: usize,
        const DEC: usize,
        E: Number,
        D: TrainsIn<E>,
    > Translator for Seq2SeqTransformer<SRC, TGT, M, H, FF, ENC, DEC, E, D>
{
    const TOKENS: [usize; 2] = [SRC, TGT];

    fn set_dropout(&mut self, rate: DropoutRate) {
        Self::set_dropout(self, rate);
    }

    fn train_loss(
        &mut self,
        batch: PairBatch,
        gradients: Gradients<E, D>,
    ) -> Result<TrainLoss<D, E>, TrainError> {
        let device = self.generator.weight.device().clone();
        let source = ids(&device, batch.source)?;
        let (input, labels) = shifted(&ids(&device, batch.target)?).map_err(failed)?;
        let logits = self.try_forward_mut((source.traced(gradients), input))?;
        Ok(self.try_loss(logits, &labels)?)
    }

    fn tally(&self, batch: PairBatch) -> Result<Tally, TrainError> {
        let device = self.generator.weight.device();
        let source = ids(device, batch.source)?;
        let (input, labels) = shifted(&ids(device, batch.target)?).map_err(failed)?;
        let logits = self.try_forward((source, input))?;
        let rows: Vec<f32> = logits.as_vec().into_iter().map(E::widened).collect();
        let counted = labels.as_vec();
        let counted = rows.chunks_exact(TGT).zip(&counted).filter(|(_, label)| **label != PAD);
        let (mut right, mut tokens) = (0, 0);
        for (row, label) in counted {
            right += usize::from(super::argmax(row) == Some(*label));
            tokens += 1;
        }
        let loss = f64::from(self.try_loss(logits, &labels)?.array().widened()) * tokens as f64;
        Ok(Tally { loss, right, tokens })
    }

    fn search(
        &self,
        sources: &[&[usize]],
        options: &SearchOptions,
    ) -> Result<Vec<Found>, TrainError> {
        if options.width > 1 {
            return sources.iter().map(|source| Ok(self.translate(source, options)?)).collect();
        }
        let device = self.generator.weight.device();
        Ok(self.translate_batch(ids(device, Padded::new(sources))?, options)?)
    }

    fn empty_cache(&self) -> Result<(), TrainError> {
        self.generator.weight.device().try_empty_cache().map_err(failed)
    }
}
