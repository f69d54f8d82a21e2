//! Training a model to translate.

use super::{
    error::failed,
    fit::{fit, Start, StepFn, Task},
    ranks::{alone, or_leave, Share},
    translator::{Tally, Translator},
    Event, Facts, Number, Options, Persistence, Run, TrainError,
};
use crate::{
    data::text::{
        bleu::{bleu, Bleu, Smoothing},
        words_13a, Buckets, EncodedPairs, ParallelText, TextError, Vocabulary, VocabularyConfig,
        BOS, EOS, UNK,
    },
    layers::DropoutRate,
    report::number,
    search::SearchOptions,
};
use dfdx::prelude::Cache;

/// How many sentences are tested or translated at a time. It matters only for memory.
const AT_ONCE: usize = 50;

/// Batches after which the device's cache is emptied. The cache keeps freed memory only for tensors
/// of the same length, and batches of sentences come in a hundred lengths.
const BATCHES_A_CACHE: usize = 8;

/// Tokens by which a translation may be longer than its source.
const LONGER: usize = 20;

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
    /// assert!(corpus.data().get("the training set").is_some());
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
    ///
    /// Example: [`new`](Self::new).
    pub fn data(&self) -> &Facts {
        &self.data
    }

    /// Tokens of the source's and of the target's vocabulary.
    ///
    /// Example: [`new`](Self::new).
    pub fn tokens(&self) -> [usize; 2] {
        [self.source.len(), self.target.len()]
    }

    /// The translations of `sentences` by `model`, found by a search of this width (1 is greedy).
    ///
    /// # Errors
    /// A model whose logits are NaN, or that is not one for these vocabularies.
    ///
    /// Example: [`train_translator`].
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
        // Sentences of about one length are translated together, so that short ones do not wait for
        // long ones.
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
                // Cut to the length that the sentence could have had if it had been translated
                // alone.
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
///
/// # Example
/// ```
/// use dfdx::prelude::Cpu;
/// use tlr_models::{
///     data::text::{toy, VocabularyConfig},
///     layers::DropoutRate,
///     train::{train_translator, Corpus, Options, Persistence},
///     Seq2SeqTransformer,
/// };
///
/// type Small = Seq2SeqTransformer<100, 100, 16, 2, 32, 1, 1, f32, Cpu>;
/// let data = toy::draw(1, 40, 8, 1)?;
/// let corpus = Corpus::new(&data.train, &data.val, VocabularyConfig::default())?;
/// let options = Options { epochs: 1, batch_size: 20, ..Options::default() };
/// let (dropout, persistence) = (DropoutRate::default(), Persistence::default());
/// let (run, model): (_, Small) =
///     train_translator(&corpus, &options, dropout, &persistence, &mut |_| ())?;
/// assert_eq!(run.losses.len(), 2);
/// assert_eq!(corpus.translate(&model, data.test.source(), 1)?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train_translator<M: Translator>(
    corpus: &Corpus,
    options: &Options,
    dropout: DropoutRate,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<(Run, M), TrainError> {
    let trained = train_own(corpus, options, dropout, persistence, observer);
    or_leave(persistence.ranks, trained, TrainError::all_know)
}

fn train_own<M: Translator>(
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
    let learner = |model: &M| Ok(M::Number::learner(model, options, batches, ranks)?);
    let mut start = Start::new(options, build, learner)?;
    let settings = corpus.settings.clone().with("--dropout", number(dropout.get()));
    let task = Translating { corpus, buckets, share, settings, device: start.device.clone() };
    let run = fit(&mut start, &task, options, persistence, observer)?;
    Ok((run, start.model))
}

struct Translating<'a, D> {
    corpus: &'a Corpus,
    buckets: Buckets,
    /// This rank's part of each batch.
    share: Share,
    settings: Facts,
    device: D,
}

impl<M: Translator> Task<M, M::Device, M::Number> for Translating<'_, M::Device> {
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
        step: &mut StepFn<'_, M, M::Device, M::Number>,
    ) -> Result<(), TrainError> {
        for (number, indices) in self.buckets.epoch(epoch).enumerate().skip(skip) {
            let batch = self.corpus.train.batch(self.share.of(&indices))?;
            // All tokens of a sentence but the first are predicted.
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
