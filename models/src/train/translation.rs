//! Training a model to translate.

use super::{
    chosen::learner,
    error::failed,
    facts::figure,
    fit::{fit, Start, Step, Task, TrainLoss},
    ranks::{alone, Share},
    Event, Facts, Options, Persistence, Run, TrainDevice, TrainError,
};
use crate::{
    data::text::{
        bleu::{bleu, Bleu, Smoothing},
        words_13a, Buckets, EncodedPairs, Padded, PairBatch, ParallelText, TextError, Vocabulary,
        VocabularyConfig, BOS, EOS, PAD, UNK,
    },
    layers::{DropoutRate, Ids},
    search::{Found, SearchOptions},
    shifted, Seq2SeqTransformer,
};
use dfdx::{
    nn::{BuildModule, Module, ModuleMut, NumParams, ZeroGrads},
    prelude::{AsArray, Cache, Gradients, Trace},
};
use tlr::TrainableLr;

/// How many sentences are tested or translated at a time. It matters only for memory.
const AT_ONCE: usize = 50;

/// Batches after which the device's cache is emptied. It keeps what was freed for tensors of the
/// same length only, and batches of like sentences come in a hundred lengths.
const BATCHES_A_CACHE: usize = 8;

/// Tokens by which a translation may be longer than its source.
const LONGER: usize = 20;

/// A model that translates.
pub trait Translator: 'static
where
    Self: TrainableLr<f32, <Self as Translator>::Device>
        + NumParams<f32, <Self as Translator>::Device>
        + ZeroGrads<f32, <Self as Translator>::Device>
        + BuildModule<<Self as Translator>::Device, f32>,
{
    /// Where its weights are.
    type Device: TrainDevice;

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
        gradients: Gradients<f32, Self::Device>,
    ) -> Result<TrainLoss<Self::Device>, TrainError>;

    /// What testing counts, without dropout.
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

    /// Frees the memory that the device keeps for tensors to come.
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
        D: TrainDevice,
    > Translator for Seq2SeqTransformer<SRC, TGT, M, H, FF, ENC, DEC, f32, D>
{
    type Device = D;

    const TOKENS: [usize; 2] = [SRC, TGT];

    fn set_dropout(&mut self, rate: DropoutRate) {
        Self::set_dropout(self, rate);
    }

    fn train_loss(
        &mut self,
        batch: PairBatch,
        gradients: Gradients<f32, D>,
    ) -> Result<TrainLoss<D>, TrainError> {
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
        let rows = logits.as_vec();
        let counted = labels.as_vec();
        let counted = rows.chunks_exact(TGT).zip(&counted).filter(|(_, label)| **label != PAD);
        let (mut right, mut tokens) = (0, 0);
        for (row, label) in counted {
            right += usize::from(super::argmax(row) == *label);
            tokens += 1;
        }
        let loss = f64::from(self.try_loss(logits, &labels)?.array()) * tokens as f64;
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

/// Pairs of sentences to train on and to watch training by, as ids, and the vocabularies that give
/// them.
#[derive(Clone, Debug)]
pub struct Corpus {
    source: Vocabulary,
    target: Vocabulary,
    train: EncodedPairs,
    val: EncodedPairs,
    settings: Facts,
    data: Facts,
}

impl Corpus {
    /// A corpus with vocabularies learned on the pairs to train on.
    ///
    /// # Errors
    /// [`TextError::VocabularySize`] for a vocabulary that cannot be as small as asked for.
    ///
    /// # Example
    /// ```
    /// use tlr_models::{
    ///     data::text::{toy, VocabularyConfig},
    ///     train::Corpus,
    /// };
    ///
    /// let data = toy::draw(7, 100, 10, 10)?;
    /// let corpus = Corpus::new(&data.train, &data.val, VocabularyConfig::default())?;
    /// let [source, target] = corpus.tokens();
    /// assert!(source > 4 && target > 4); // more than the special tokens
    /// # Ok::<(), tlr_models::data::text::TextError>(())
    /// ```
    pub fn new(
        train: &ParallelText,
        val: &ParallelText,
        vocabulary: VocabularyConfig,
    ) -> Result<Self, TextError> {
        let source = Vocabulary::learn(train.source(), vocabulary)?;
        let target = Vocabulary::learn(train.target(), vocabulary)?;
        let encoded = |text| EncodedPairs::new(text, &source, &target);
        let data = Facts::default()
            .with("the training set", train.identity())
            .with("the validation set", val.identity());
        let VocabularyConfig { tokens, size, min_frequency, lowercase } = vocabulary;
        let settings = Facts::default()
            .with("--tokens", tokens)
            .with("--vocabulary", size)
            .with("the least frequency of a token", min_frequency)
            .with_flag("lower case", lowercase);
        let (train, val) = (encoded(train)?, encoded(val)?);
        Ok(Self { source, target, train, val, settings, data })
    }

    /// What identifies these pairs.
    pub fn data(&self) -> &Facts {
        &self.data
    }

    /// Tokens of the source's and of the target's vocabulary.
    pub fn tokens(&self) -> [usize; 2] {
        [self.source.len(), self.target.len()]
    }

    /// What `model` makes of `sentences`, by a search of this width (1 is greedy).
    ///
    /// # Errors
    /// A model whose logits are NaN, or that is not one for these vocabularies.
    pub fn translate<M: Translator>(
        &self,
        model: &M,
        sentences: &[String],
        width: usize,
    ) -> Result<Vec<String>, TrainError> {
        let framed = |sentence: &String| -> Result<Vec<usize>, TextError> {
            Ok([vec![BOS], self.source.encode(sentence)?, vec![EOS]].concat())
        };
        let sources = sentences.iter().map(framed).collect::<Result<Vec<_>, _>>()?;
        // Sentences of one length together, so that the shorter do not wait for the longer.
        let mut sorted: Vec<(usize, &[usize])> =
            sources.iter().map(Vec::as_slice).enumerate().collect();
        sorted.sort_by_key(|(_, source)| source.len());
        let mut translations = vec![String::new(); sentences.len()];
        for batch in sorted.chunks(if width > 1 { 1 } else { AT_ONCE }) {
            let sources: Vec<&[usize]> = batch.iter().map(|(_, source)| *source).collect();
            let longest = sources.iter().map(|source| source.len()).max().unwrap_or(0);
            let options = SearchOptions {
                width,
                max_length: longest + LONGER,
                start: BOS,
                end: EOS,
                ..Default::default()
            };
            let found = model.search(&sources, &options)?;
            for ((place, source), mut found) in batch.iter().zip(found) {
                // As if it had been alone.
                found.tokens.truncate(source.len() + LONGER);
                // A model may have room for more tokens than there are.
                let known = self.target.len();
                found.tokens.iter_mut().filter(|id| **id >= known).for_each(|id| *id = UNK);
                if let Some(translation) = translations.get_mut(*place) {
                    *translation = self.target.decode(&found.tokens)?;
                }
            }
            model.empty_cache()?;
        }
        Ok(translations)
    }
}

/// What [`score`] computes, in sacrebleu's words: one reference, capitals as they are, words as 13a
/// cuts them, smoothed exponentially where a run length has no match.
pub const BLEU_SIGNATURE: &str = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp";

/// BLEU as sacrebleu computes it by default, of translations and references as they are read by
/// people; see [`BLEU_SIGNATURE`].
///
/// # Errors
/// There have to be as many translations as references, and at least one.
///
/// ```
/// let [said, meant] =
///     ["A dog runs in the park.", "A dog's running in the park."].map(String::from);
/// let bleu = tlr_models::train::score(&[said], &[meant])?;
/// assert_eq!(bleu.precisions[0], 5.0 / 7.0);
/// # Ok::<(), tlr_models::data::text::TextError>(())
/// ```
pub fn score(translations: &[String], references: &[String]) -> Result<Bleu, TextError> {
    let split = |text: &[String]| -> Vec<_> { text.iter().map(|text| words_13a(text)).collect() };
    bleu(&split(translations), &split(references), Smoothing::Exponential)
}

/// Trains a new model on the pairs of `corpus` as `options` say, and calls `observer` for every
/// step and epoch.
///
/// An [`Epoch`](crate::report::Epoch)'s test loss is the mean over the validation pairs' tokens,
/// and its accuracy the part of them that the model thinks likeliest, each given the right ones
/// before it (teacher forcing). The result depends on `corpus`, `options` and `dropout` only.
///
/// # Errors
/// [`TrainError::Vocabulary`] for vocabularies that the model has no room for; options that make no
/// sense; training that [`tlr::Error`] ends.
pub fn train_translator<M: Translator>(
    corpus: &Corpus,
    options: &Options,
    dropout: DropoutRate,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<(Run, M), TrainError> {
    let (takes, found) = (M::TOKENS, corpus.tokens());
    if takes.iter().zip(&found).any(|(takes, found)| found > takes) {
        return Err(TrainError::Vocabulary { takes, found });
    }
    let buckets = Buckets::new(&corpus.train, options.batch_size, options.seed)?;
    let build = |device: &M::Device| {
        let mut model = M::try_build(device).map_err(failed)?;
        model.set_dropout(dropout);
        Ok(model)
    };
    let batches = buckets.batches_per_epoch();
    let ranks = persistence.ranks.cloned().unwrap_or_else(alone);
    let share = Share::of_rank(&ranks);
    let learner = |model: &M| Ok(learner(model, options, batches, ranks)?);
    let mut start = Start::new(options, build, learner)?;
    let settings = corpus.settings.clone().with("--dropout", figure(dropout.get()));
    let task = Translating { corpus, buckets, share, settings, device: start.device.clone() };
    let run = fit(&mut start, &task, options, persistence, observer)?;
    Ok((run, start.model))
}

struct Translating<'a, D> {
    corpus: &'a Corpus,
    buckets: Buckets,
    /// What this rank has of each batch.
    share: Share,
    settings: Facts,
    device: D,
}

impl<M: Translator> Task<M, M::Device> for Translating<'_, M::Device> {
    fn batches_per_epoch(&self) -> usize {
        self.buckets.batches_per_epoch()
    }

    fn settings(&self) -> Facts {
        self.settings.clone()
    }

    fn data(&self) -> Result<Facts, TrainError> {
        Ok(self.corpus.data.clone())
    }

    fn epoch(
        &self,
        epoch: usize,
        skip: usize,
        step: &mut Step<'_, M, M::Device>,
    ) -> Result<(), TrainError> {
        for (number, indices) in self.buckets.epoch(epoch).enumerate().skip(skip) {
            let batch = self.corpus.train.batch(self.share.of(&indices))?;
            // All but the first of each sentence are predicted.
            let tokens = batch.target.lengths.iter().map(|length| length.saturating_sub(1)).sum();
            step(tokens, &mut |model, gradients| model.train_loss(batch.clone(), gradients))?;
            if number % BATCHES_A_CACHE == 0 {
                self.device.try_empty_cache().map_err(failed)?;
            }
        }
        self.device.try_empty_cache().map_err(failed)
    }

    fn test(&self, model: &M) -> Result<(f64, f64), TrainError> {
        let val = &self.corpus.val;
        let mut tally = Tally::default();
        for indices in Buckets::new(val, AT_ONCE, 0)?.epoch(0) {
            tally = tally.add(model.tally(val.batch(&indices)?)?);
            self.device.try_empty_cache().map_err(failed)?;
        }
        let tokens = tally.tokens as f64;
        Ok((tally.loss / tokens, tally.right as f64 / tokens))
    }
}

#[cfg(test)]
mod tests;
