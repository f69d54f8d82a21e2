//! Translating with a transformer: one sentence by beam search, or a batch greedily.

use crate::{
    layers::{Ids, KeyPadding, LayerError, SequenceKernels, Sequences},
    search::{beam, greedy, Found, SearchError, SearchOptions},
    transformer::{padded, Seq2SeqTransformer},
};
use dfdx::{
    nn::Module,
    prelude::{Axis, BroadcastTo, Const, Dtype, HasShape, ReshapeTo, Tensor},
};

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
    /// The best target for one source, found by [`beam`] search; without dropout, and without
    /// padding in it. The encoder runs once, the decoder once a token over all tokens so far.
    ///
    /// # Errors
    /// [`SearchError::Model`] with [`LayerError::Shape`] for ids outside their vocabulary; a model
    /// whose logits are NaN; an error of the device.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::{search::SearchOptions, Seq2SeqTransformer};
    ///
    /// let model = Seq2SeqTransformer::<20, 30, 16, 4, 32, 1, 1, f32, Cpu>::build(&Cpu::default());
    /// let options = SearchOptions { width: 4, max_length: 5, ..Default::default() };
    /// let found = model.translate(&[2, 7, 9, 3], &options)?;
    /// assert!(found.tokens.len() <= 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn translate(
        &self,
        source: &[usize],
        options: &SearchOptions,
    ) -> Result<Found, SearchError<LayerError<D::Err>>> {
        let device = self.generator.weight.device();
        let ids = padded(device, &[source], self.pad.0).map_err(LayerError::Device)?;
        let (memory, _) = self.memory(ids, false)?;
        let one = (source.len(), Const::<M>);
        beam(options, |targets| {
            let memory: Tensor<_, E, D> = memory.clone().try_reshape_like(&one)?;
            let each = (targets.len(), source.len(), Const::<M>);
            let memory = memory.try_broadcast_like::<_, Axis<0>>(&each)?.try_contiguous()?;
            let padding = KeyPadding::of(&source.repeat(targets.len()), targets.len(), self.pad.0);
            self.following(targets, &memory, padding)
        })
    }

    /// The best target for each source of a batch, found by [`greedy`] search.
    ///
    /// # Errors
    /// As [`translate`](Self::translate).
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::{padded, search::SearchOptions, Seq2SeqTransformer};
    ///
    /// let dev = Cpu::default();
    /// let model = Seq2SeqTransformer::<20, 30, 16, 4, 32, 1, 1, f32, Cpu>::build(&dev);
    /// let source = padded(&dev, &[&[2, 7, 9, 3][..], &[2, 8, 3]], 1)?;
    /// let options = SearchOptions { max_length: 5, ..Default::default() };
    /// assert_eq!(model.translate_batch(source, &options)?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn translate_batch(
        &self,
        source: Ids<D>,
        options: &SearchOptions,
    ) -> Result<Vec<Found>, SearchError<LayerError<D::Err>>> {
        let batch = source.shape().0;
        let (memory, padding) = self.memory(source, false)?;
        greedy(options, batch, |targets| self.following(targets, &memory, padding.clone()))
    }

    /// Log probabilities of the tokens after each target. All targets are of the same length.
    fn following(
        &self,
        targets: &[Vec<usize>],
        memory: &Sequences<M, E, D>,
        padding: Option<KeyPadding>,
    ) -> Result<Vec<Vec<f64>>, LayerError<D::Err>> {
        let device = self.generator.weight.device();
        let sentences: Vec<&[usize]> = targets.iter().map(Vec::as_slice).collect();
        let ids: Ids<D> = padded(device, &sentences, self.pad.0)?;
        let &(batch, length) = ids.shape();
        let features = self.features(ids, memory, padding, false)?.as_vec();
        let last = features.chunks_exact((length * M).max(1));
        let last = last.flat_map(|rows| rows.iter().skip(length.saturating_sub(1) * M).copied());
        let last: Sequences<M, E, D> =
            device.try_tensor_from_vec(last.collect(), (batch, 1, Const))?;
        let logits = self.generator.try_forward(last)?.as_vec();
        Ok(logits.chunks_exact(TGT.max(1)).map(|row| self.log_softmax(row)).collect())
    }

    /// In f64, and without padding.
    fn log_softmax(&self, logits: &[E]) -> Vec<f64> {
        let mut logits: Vec<f64> =
            logits.iter().map(|logit| logit.to_f64().unwrap_or(f64::NAN)).collect();
        if let Some(pad) = logits.get_mut(self.pad.0) {
            *pad = f64::NEG_INFINITY;
        }
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
        logits.into_iter().map(|logit| logit - most - sum.ln()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{layers::DropoutRate, transformer::shifted};
    use dfdx::{optim::*, prelude::*};

    const PAD: usize = 1;
    const START: usize = 2;
    const END: usize = 3;

    /// Sentences of one to four of four words.
    fn sentence(index: usize) -> Vec<usize> {
        let words = (0..1 + index % 4).map(|place| 4 + (index * 7 / (1 + place * 3) + index) % 4);
        [START].into_iter().chain(words).chain([END]).collect()
    }

    type Copier = Seq2SeqTransformer<8, 8, 16, 2, 32, 1, 1, f32, Cpu>;

    fn trained(dev: &Cpu, steps: usize) -> (Copier, f32) {
        let mut model = Copier::build(dev);
        model.set_dropout(DropoutRate::NONE);
        let mut adam = Adam::new(&model, AdamConfig { lr: 0.01, ..Default::default() });
        let mut last = f32::NAN;
        for step in 0..steps {
            let sentences: Vec<Vec<usize>> = (0..32).map(|i| sentence(step * 32 + i)).collect();
            let sentences: Vec<&[usize]> = sentences.iter().map(Vec::as_slice).collect();
            let batch = padded(dev, &sentences, PAD).unwrap();
            let (input, labels) = shifted(&batch).unwrap();
            let logits = model.forward_mut((batch.traced(model.alloc_grads()), input));
            let loss = model.try_loss(logits, &labels).unwrap();
            last = loss.array();
            adam.update(&mut model, &loss.backward()).unwrap();
        }
        (model, last)
    }

    // The model has learned to repeat what it is told. Fails if memory, masks or the last
    // position are mixed up: a batch with padding, one sentence at a time, and beams all agree.
    #[test]
    fn says_what_it_was_told() {
        let dev = Cpu::seed_from_u64(0);
        let (model, loss) = trained(&dev, 150);
        assert!(loss < 0.1, "{loss}");
        let sentences: Vec<Vec<usize>> = (0..40).map(sentence).collect();
        let slices: Vec<&[usize]> = sentences.iter().map(Vec::as_slice).collect();
        let options = SearchOptions { max_length: 8, ..Default::default() };
        let batch = padded(&dev, &slices, PAD).unwrap();
        let found = model.translate_batch(batch, &options).unwrap();
        let right = |found: &Found, sentence: &[usize]| {
            found.ended && found.tokens == sentence[1..sentence.len() - 1]
        };
        let mut wrong = 0;
        for (sentence, found) in sentences.iter().zip(&found) {
            wrong += usize::from(!right(found, sentence));
            let alone = model.translate(sentence, &options).unwrap();
            assert_eq!(alone.tokens, found.tokens);
            // They differ by rounding alone: a padded sentence is summed in another order.
            assert!((alone.log_probability - found.log_probability).abs() < 1e-3);
            let beams = SearchOptions { width: 3, ..options.clone() };
            wrong += usize::from(!right(&model.translate(sentence, &beams).unwrap(), sentence));
        }
        assert!(wrong <= 4, "{wrong} of 80");
    }

    // A trained model's rates adapt, layer by layer: all 26 layers are there and have a rate.
    #[test]
    fn each_layer_has_a_rate() {
        use tlr::{Newton, NewtonConfig, PerLayer};
        let model = Copier::build(&Cpu::default());
        let sgd = Sgd::new(&model, SgdConfig { lr: 0.25, ..Default::default() });
        let opt = Newton::new(&model, PerLayer::new(&model, sgd), NewtonConfig::default()).unwrap();
        let names: Vec<&str> = opt.rates().iter().map(|(name, _)| *name).collect();
        for name in [
            "src_embedding",
            "encoder.layers.0.self_attn.q_proj",
            "encoder.layers.0.norm2",
            "decoder.layers.0.multihead_attn.out_proj",
            "decoder.norm",
            "generator",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert_eq!(names.len(), 2 + (4 + 2 + 2) + 1 + (8 + 2 + 3) + 1 + 1);
    }

    #[test]
    fn padding_is_never_said() {
        let model = Copier::build(&Cpu::default());
        let scores = model.log_softmax(&[0.0, 50.0, 0.0, 0.0]);
        assert_eq!(scores[PAD], f64::NEG_INFINITY);
        assert!((scores[0] - (1.0f64 / 3.0).ln()).abs() < 1e-15);
    }

    #[test]
    fn an_unknown_token_is_an_error() {
        let model = Copier::build(&Cpu::default());
        let found = model.translate(&[START, 8, END], &SearchOptions::default());
        assert!(matches!(found, Err(SearchError::Model(LayerError::Shape { .. }))));
    }
}
