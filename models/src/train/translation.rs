//! Training a model to translate.

use super::{
    facts::figure,
    fit::{fit, Start, Step, Task, TrainLoss},
    learner::learner,
    ranks::{alone, Share},
    Event, Facts, Options, Persistence, Run, TrainError,
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
    prelude::{AsArray, Cache, Cpu, CpuError, Gradients, TensorFromVec, Trace},
};
use tlr::TrainableLr;

/// Sentences that are tested or translated at a time; only a matter of memory.
const AT_ONCE: usize = 50;

/// Batches after which the device's cache is emptied. It keeps what was freed for tensors of the same length only, and
/// batches of like sentences come in a hundred lengths.
const BATCHES_A_CACHE: usize = 8;

/// Tokens by which a translation may be longer than its source.
const LONGER: usize = 20;

/// A model that translates.
pub trait Translator:
    TrainableLr<f32, Cpu> + BuildModule<Cpu, f32> + NumParams<f32, Cpu> + ZeroGrads<f32, Cpu> + 'static
{
    /// Tokens of the source's and of the target's vocabulary that it has room for.
    const TOKENS: [usize; 2];

    /// Sets the dropout rate of all layers.
    fn set_dropout(&mut self, rate: DropoutRate);

    /// For training: the mean loss of the target's tokens, each seen from those before it.
    ///
    /// # Errors
    /// A layer's.
    fn train_loss(
        &mut self,
        batch: PairBatch,
        gradients: Gradients<f32, Cpu>,
    ) -> Result<TrainLoss, TrainError>;

    /// For testing: the same, without dropout.
    ///
    /// # Errors
    /// A layer's.
    fn tally(&self, batch: PairBatch) -> Result<Tally, TrainError>;

    /// The best target for each source, by greedy search where `options.width` is 1 and by beam search where it is
    /// more.
    ///
    /// # Errors
    /// A layer's, and a model whose logits are NaN.
    fn search(
        &self,
        sources: &[&[usize]],
        options: &SearchOptions,
    ) -> Result<Vec<Found>, TrainError>;

    /// Gives back what the device keeps for tensors to come.
    ///
    /// # Errors
    /// The device's.
    fn empty_cache(&self) -> Result<(), CpuError>;
}

/// What a model made of the tokens it was to predict.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// The sum of their losses.
    pub loss: f64,
    /// Those that were thought likeliest.
    pub right: usize,
    /// All of them.
    pub tokens: usize,
}

impl Tally {
    /// Both together.
    pub(crate) fn add(self, other: Self) -> Self {
        Self {
            loss: self.loss + other.loss,
            right: self.right + other.right,
            tokens: self.tokens + other.tokens,
        }
    }
}

fn ids(device: &Cpu, sentences: Padded) -> Result<Ids<Cpu>, CpuError> {
    device.try_tensor_from_vec(sentences.ids, (sentences.rows, sentences.columns))
}

impl<
        const SRC: usize,
        const TGT: usize,
        const M: usize,
        const H: usize,
        const FF: usize,
        const ENC: usize,
        const DEC: usize,
    > Translator for Seq2SeqTransformer<SRC, TGT, M, H, FF, ENC, DEC, f32, Cpu>
{
    const TOKENS: [usize; 2] = [SRC, TGT];

    fn set_dropout(&mut self, rate: DropoutRate) {
        Self::set_dropout(self, rate);
    }

    fn train_loss(
        &mut self,
        batch: PairBatch,
        gradients: Gradients<f32, Cpu>,
    ) -> Result<TrainLoss, TrainError> {
        let device = self.generator.weight.device().clone();
        let source = ids(&device, batch.source)?;
        let (input, labels) = shifted(&ids(&device, batch.target)?)?;
        let logits = self.try_forward_mut((source.traced(gradients), input))?;
        Ok(self.try_loss(logits, &labels)?)
    }

    fn tally(&self, batch: PairBatch) -> Result<Tally, TrainError> {
        let device = self.generator.weight.device();
        let source = ids(device, batch.source)?;
        let (input, labels) = shifted(&ids(device, batch.target)?)?;
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

    fn empty_cache(&self) -> Result<(), CpuError> {
        self.generator.weight.device().try_empty_cache()
    }
}

/// Pairs of sentences to train on and to watch training by, as ids, and the vocabularies that give them.
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
    /// With vocabularies learned on the pairs to train on.
    ///
    /// # Errors
    /// [`TextError::VocabularySize`] for a vocabulary that cannot be as small as asked for.
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

    /// What tells these pairs from others.
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
        // Those of a length together: the shorter do not wait for the longer.
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

/// BLEU as sacrebleu computes it unless it is told otherwise, of translations and references as they
/// are read by people; see [`BLEU_SIGNATURE`].
///
/// # Errors
/// As many translations as references, and at least one.
///
/// ```
/// let [said, meant] = ["A dog runs in the park.", "A dog's running in the park."].map(String::from);
/// let bleu = tlr_models::train::score(&[said], &[meant])?;
/// assert_eq!(bleu.precisions[0], 5.0 / 7.0);
/// # Ok::<(), tlr_models::data::text::TextError>(())
/// ```
pub fn score(translations: &[String], references: &[String]) -> Result<Bleu, TextError> {
    let split = |text: &[String]| -> Vec<_> { text.iter().map(|text| words_13a(text)).collect() };
    bleu(&split(translations), &split(references), Smoothing::Exponential)
}

/// Trains a new model on the pairs of `corpus` as `options` say, and tells `observer` of every step and epoch.
///
/// An [`Epoch`](crate::report::Epoch)'s test loss is the mean over the validation pairs' tokens, and its accuracy the
/// part of them that the model thinks likeliest, each told the right ones before it (teacher forcing). The result
/// depends on `corpus`, `options` and `dropout` only.
///
/// # Errors
/// [`TrainError::Vocabulary`] for vocabularies that the model has no room for; options that make no sense; training
/// that [`tlr::Error`] ends.
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
    let build = |device: &Cpu| {
        let mut model = M::try_build(device)?;
        model.set_dropout(dropout);
        Ok(model)
    };
    let batches = buckets.batches_per_epoch();
    let ranks = persistence.ranks.cloned().unwrap_or_else(alone);
    let share = Share::of_rank(&ranks);
    let learner = |model: &M| learner(model, options, batches, ranks);
    let mut start = Start::new(options, build, learner)?;
    let settings = corpus.settings.clone().with("--dropout", figure(dropout.get()));
    let task = Translating { corpus, buckets, share, settings, device: start.device.clone() };
    let run = fit(&mut start, &task, options, persistence, observer)?;
    Ok((run, start.model))
}

struct Translating<'a> {
    corpus: &'a Corpus,
    buckets: Buckets,
    /// What this rank has of each batch.
    share: Share,
    settings: Facts,
    device: Cpu,
}

impl<M: Translator> Task<M> for Translating<'_> {
    fn batches_per_epoch(&self) -> usize {
        self.buckets.batches_per_epoch()
    }

    fn settings(&self) -> Facts {
        self.settings.clone()
    }

    fn data(&self) -> Result<Facts, TrainError> {
        Ok(self.corpus.data.clone())
    }

    fn epoch(&self, epoch: usize, skip: usize, step: &mut Step<'_, M>) -> Result<(), TrainError> {
        for (number, indices) in self.buckets.epoch(epoch).enumerate().skip(skip) {
            let batch = self.corpus.train.batch(self.share.of(&indices))?;
            // All but the first of each sentence are predicted.
            let tokens = batch.target.lengths.iter().map(|length| length.saturating_sub(1)).sum();
            step(tokens, &mut |model, gradients| model.train_loss(batch.clone(), gradients))?;
            if number % BATCHES_A_CACHE == 0 {
                self.device.try_empty_cache()?;
            }
        }
        Ok(self.device.try_empty_cache()?)
    }

    fn test(&self, model: &M) -> Result<(f64, f64), TrainError> {
        let val = &self.corpus.val;
        let mut tally = Tally::default();
        for indices in Buckets::new(val, AT_ONCE, 0)?.epoch(0) {
            tally = tally.add(model.tally(val.batch(&indices)?)?);
            self.device.try_empty_cache()?;
        }
        let tokens = tally.tokens as f64;
        Ok((tally.loss / tokens, tally.right as f64 / tokens))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        data::text::{toy, Tokens},
        train::Base,
    };

    type Small = Seq2SeqTransformer<100, 100, 16, 2, 32, 1, 1, f32, Cpu>;

    fn corpus() -> Corpus {
        let data = toy::draw(1, 400, 40, 1).unwrap();
        Corpus::new(&data.train, &data.val, VocabularyConfig::default()).unwrap()
    }

    fn options() -> Options {
        Options {
            optimizer: Base::Adam,
            rate: 1e-2,
            ramp: false,
            batch_size: 20,
            epochs: 3,
            ..Options::default()
        }
    }

    fn run(corpus: &Corpus, seed: u64) -> (Vec<f64>, Run, Small) {
        let mut losses = Vec::new();
        let options = Options { seed, ..options() };
        let (run, model) = train_translator(
            corpus,
            &options,
            DropoutRate::default(),
            &Persistence::default(),
            &mut |event| {
                if let Event::Step { loss, .. } = event {
                    losses.push(loss);
                }
            },
        )
        .unwrap();
        (losses, run, model)
    }

    // Fails if a step does not reach the weights, if the epoch's mean is not over tokens, or if anything, dropout
    // included, is drawn from elsewhere than the seed.
    #[test]
    fn training_lowers_the_loss_and_is_reproducible() {
        let corpus = corpus();
        let (losses, first, model) = run(&corpus, 3);
        assert_eq!((losses.len(), first.batches_per_epoch, first.epochs.len()), (60, 20, 3));
        let [one, _, three] = &first.epochs[..] else { unreachable!() };
        assert!(three.train_loss < 0.8 * one.train_loss, "{one:?} {three:?}");
        assert!(three.test_loss < 0.8 * one.test_loss, "{one:?} {three:?}");
        assert!(three.test_accuracy > one.test_accuracy);
        let mean = losses[40..].iter().sum::<f64>() / 20.0;
        assert!((three.train_loss / mean - 1.0).abs() < 0.1 && three.train_loss != mean);
        assert_eq!(first.history.len(), 1); // windows around Adam have 50 steps

        let (again, second, other) = run(&corpus, 3);
        assert_eq!(losses, again);
        assert_eq!(first.history, second.history);
        let said = |model: &Small, width| {
            let sentences = ["weil der Hund den Ball sieht .".to_owned()];
            corpus.translate(model, &sentences, width).unwrap()
        };
        assert_eq!(model.generator.weight.as_vec(), other.generator.weight.as_vec());
        for width in [1, 3] {
            assert_eq!(said(&model, width), said(&other, width));
        }
        assert_ne!(run(&corpus, 4).0, losses);
    }

    // Without padding, and with each sentence's tokens counted once.
    #[test]
    fn a_batch_counts_as_its_sentences_do() {
        let corpus = corpus();
        let model = Small::build(&Cpu::seed_from_u64(2));
        let together = model.tally(corpus.val.batch(&[0, 1, 2, 3]).unwrap()).unwrap();
        let apart = (0..4)
            .map(|index| model.tally(corpus.val.batch(&[index]).unwrap()).unwrap())
            .fold(Tally::default(), Tally::add);
        assert_eq!((together.right, together.tokens), (apart.right, apart.tokens));
        let lengths = (0..4).map(|index| corpus.val.get(index).unwrap().1.len() - 1);
        assert_eq!(together.tokens, lengths.sum::<usize>());
        assert!((together.loss / apart.loss - 1.0).abs() < 1e-5);
    }

    // In the order of the sentences, not in that of their lengths.
    #[test]
    fn each_sentence_gets_its_own_translation() {
        let corpus = corpus();
        let (_, _, model) = run(&corpus, 3);
        let text = toy::draw(1, 1, 60, 1).unwrap().val;
        let all = corpus.translate(&model, text.source(), 1).unwrap();
        for place in [0, 17, 59] {
            let one = corpus.translate(&model, &text.source()[place..=place], 1).unwrap();
            assert_eq!(one[0], all[place]);
        }
        assert!(all.iter().any(|translation| *translation != all[0]));
    }

    // The model has 100 tokens, the language fewer. Fails if one without a word is looked up.
    #[test]
    fn tokens_that_do_not_exist_are_unknown() {
        let corpus = corpus();
        let mut model = Small::build(&Cpu::seed_from_u64(2));
        assert!(corpus.tokens()[1] < 99);
        let mut bias = vec![0.0; 100];
        bias[99] = 100.0;
        model.generator.bias.copy_from(&bias);
        let said = corpus.translate(&model, &["weil der Hund schläft .".to_owned()], 1).unwrap();
        assert!(said[0].split(' ').all(|word| word == "<unk>"), "{said:?}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        type Tiny = Seq2SeqTransformer<100, 20, 8, 1, 8, 1, 1, f32, Cpu>;
        let corpus = corpus();
        let train = |options: &Options| {
            train_translator::<Small>(
                &corpus,
                options,
                DropoutRate::NONE,
                &Persistence::default(),
                &mut |_| {},
            )
            .map(|_| ())
        };
        let small = train_translator::<Tiny>(
            &corpus,
            &options(),
            DropoutRate::NONE,
            &Persistence::default(),
            &mut |_| {},
        )
        .map(|_| ());
        assert!(
            matches!(small, Err(TrainError::Vocabulary { takes: [100, 20], found }) if found == corpus.tokens())
        );
        let none = Options { epochs: 0, ..options() };
        assert!(matches!(train(&none), Err(TrainError::NoEpochs)));
        let empty = Options { batch_size: 0, ..options() };
        assert!(matches!(train(&empty), Err(TrainError::Text(TextError::Zero { .. }))));
        let data = toy::draw(1, 400, 40, 1).unwrap();
        let letters = VocabularyConfig { tokens: Tokens::Subwords, size: 5, ..Default::default() };
        let refused = Corpus::new(&data.train, &data.val, letters);
        assert!(matches!(refused, Err(TextError::VocabularySize { size: 5, .. })));
    }
}
