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
    /// The best target for one source, found by [`beam`] search, without dropout. It holds no
    /// padding. The encoder runs once. The decoder runs once for each token, over all tokens so
    /// far.
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

    /// The log probabilities in f64. That of padding is −∞, so that no target holds it.
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
    use dfdx::{optim::*, prelude::*};

    const PAD: usize = 1;
    const START: usize = 2;
    const END: usize = 3;

    type Copier = Seq2SeqTransformer<8, 8, 16, 2, 32, 1, 1, f32, Cpu>;

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
