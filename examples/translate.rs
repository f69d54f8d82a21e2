//! Trains a transformer to translate from German to English with a learning rate that learns
//! itself.
//!
//! ```text
//! # A small language that the program makes, no data needed.
//! cargo run --release --features text --example translate
//! cargo run --release --features text --example translate -- --data DIR --limit 5000
//! cargo run --release --features text --example translate -- --data DIR --vocabulary 8000 \
//!   --beam 4 --mode per-layer
//! ```
//!
//! In tables and pictures, the test loss and accuracy of an epoch are those of the validation
//! pairs: the mean loss of their tokens and the part of them predicted right, each from the right
//! ones before it. BLEU is of the test pairs, and is what sacrebleu gives for them.

mod common;

use clap::{builder::ArgPredicate, Parser, ValueEnum};
use common::{
    device::{on_device, Place},
    follow::{Done, Subject},
    numbers::whole,
    Job, Training,
};
use std::{
    error::Error,
    fmt::Write,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};
use tlr_models::{
    data::text::{multi30k, toy, ParallelText, Tokens, Translation, VocabularyConfig, WordByWord},
    layers::DropoutRate,
    report::count,
    train::{self, Corpus, TrainError, Translator, BLEU_SIGNATURE},
    Seq2SeqTransformer,
};

/// How many pairs the program makes if it is given none: to train on, to watch training by, and to
/// test on.
const TOY: (usize, usize, usize) = (4_000, 200, 200);

/// For the toy language: two layers on either side, 64 features.
type Small<D, E> = Seq2SeqTransformer<128, 128, 64, 4, 128, 2, 2, E, D>;

/// For photographs' captions: three layers on either side, 128 features.
type Captions<const TOKENS: usize, D, E> =
    Seq2SeqTransformer<TOKENS, TOKENS, 128, 4, 256, 3, 3, E, D>;

/// What to try first.
const EXAMPLES: &str = "\
Examples:
  A small language that the program makes:
    translate
  The first 5,000 of Multi30k's captions:
    translate --data DIR --limit 5000
  All of them, with a wider search at the end:
    translate --data DIR --vocabulary 8000 --beam 4";

/// Train a transformer to translate from German to English, with a learning rate that learns
/// itself.
#[derive(Parser)]
#[command(name = "translate", after_help = EXAMPLES)]
struct Args {
    /// Folder with Multi30k's train, val and test_2016_flickr, .de and .en, plain or gzipped;
    /// without it, sentences are made
    #[arg(long, value_name = "DIR", env = "TLR_MULTI30K", help_heading = "Data")]
    data: Option<PathBuf>,
    /// What a token is [default: subwords of Multi30k, words of the made language]
    #[arg(long, value_enum, help_heading = "Data", hide_default_value = true)]
    #[arg(default_value = "words", default_value_if("data", ArgPredicate::IsPresent, "subwords"))]
    tokens: Kind,
    /// Tokens of each language, at most 8000 (and 128 of the made language)
    #[arg(long, value_name = "N", help_heading = "Data", value_parser = whole::<usize>(1))]
    #[arg(default_value = "2000")]
    vocabulary: usize,
    /// Part of the activations dropped in training, at least 0 and below 1
    #[arg(long, value_name = "X", help_heading = "Model", default_value = "0.1")]
    dropout: f64,
    /// Translations that are followed at a time; 1 is greedy search
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = whole::<usize>(1))]
    #[arg(default_value = "1")]
    beam: usize,
    /// Translations to show at the end
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = whole::<usize>(0))]
    #[arg(default_value = "3")]
    show: usize,
    #[command(flatten)]
    training: Training,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Rare ones are unknown
    Words,
    /// Parts of words, joined by how often they meet
    Subwords,
}

impl From<Kind> for Tokens {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Words => Self::Words,
            Kind::Subwords => Self::Subwords,
        }
    }
}

fn main() -> ExitCode {
    let defaults = [("out", "out/translate"), ("optimizer", "adam"), ("batch_size", "32")];
    common::run(&defaults, |args: &Args| &args.training, run)
}

fn run(args: &Args, job: &Job<'_>) -> Result<ExitCode, Box<dyn Error>> {
    let data = load(args)?;
    let (name, size) = match args.data {
        None => ("A made language", args.vocabulary.min(128)),
        Some(_) => ("Multi30k", args.vocabulary),
    };
    let config = VocabularyConfig { tokens: args.tokens.into(), size, ..Default::default() };
    on_device!(job.place(), D, E => match (&args.data, size) {
        (None, _) => train::<Small<D, E>>(args, job, name, &data, config),
        (_, ..=2000) => train::<Captions<2000, D, E>>(args, job, name, &data, config),
        // It compiles for as long as all else, and without --release it would take hours to run.
        #[cfg(not(debug_assertions))]
        (_, ..=8000) => train::<Captions<8000, D, E>>(args, job, name, &data, config),
        #[cfg(not(debug_assertions))]
        _ => Err(format!("a vocabulary of {size} tokens; at most 8000 are compiled in").into()),
        #[cfg(debug_assertions)]
        _ => Err(format!("a vocabulary of {size} tokens; without --release it has 2000").into()),
    })
}

/// The pairs.
fn load(args: &Args) -> Result<Translation, Box<dyn Error>> {
    let training = &args.training;
    let limited = |n| training.limited(n);
    let mut data = match &args.data {
        Some(dir) => multi30k::load(dir)?,
        None => {
            let (train, val, test) = TOY;
            toy::draw(training.seed, limited(train), limited(val), limited(test))?
        }
    };
    if let Some(limit) = training.limit {
        data.train = data.train.take(limit)?;
        data.val = data.val.take(limit)?;
        data.test = data.test.take(limit)?;
    }
    Ok(data)
}

fn train<M: Translator>(
    args: &Args,
    job: &Job<'_>,
    name: &str,
    data: &Translation,
    vocabulary: VocabularyConfig,
) -> Result<ExitCode, Box<dyn Error>> {
    let dropout = DropoutRate::new(args.dropout)?;
    let corpus = Corpus::new(&data.train, &data.val, vocabulary)?;
    let name = format!("{name}, {}", count(data.train.len(), "pair"));
    // The pairs to test on have no part in training, but in what it is found to be worth.
    let facts = corpus.data().clone().with("the test set", data.test.identity());
    let [source, target] = corpus.tokens();
    let examples = data.train.len();
    let amounts = format!(
        "{examples} to train on, {} to watch training by, {} to test on; {source} German and \
         {target} English tokens",
        data.val.len(),
        data.test.len(),
    );
    let subject = Subject {
        data: &name,
        model: "Transformer",
        amounts,
        examples,
        tested: "validation tokens",
    };
    job.follow(&subject, &facts, |options, persistence, observer| {
        let (run, model) =
            train::train_translator::<M>(&corpus, options, dropout, persistence, observer)?;
        let mut done = Done::from(run);
        let (source, reference) = (data.test.source(), data.test.target());
        // A wide search takes long.
        job.note(format_args!("translating {}", count(source.len(), "test pair")));
        let steps = done.run.losses.len();
        let translations = translations(&corpus, &model, source, args.beam, persistence.stop)?;
        let translations = translations.ok_or(TrainError::Stopped { step: steps })?;
        let bleu = train::score(&translations, reference)?.score;
        let words = word_by_word(&data.train, &data.test)?;
        for ((source, reference), translation) in
            source.iter().zip(reference).zip(&translations).take(args.show)
        {
            let _ = writeln!(
                done.words,
                "  German  {source}\n English  {reference}\n   model  {translation}\n"
            );
        }
        let _ = writeln!(
            done.words,
            "BLEU {bleu:.2} over {}, and {words:.2} word by word \
             (sacrebleu's {BLEU_SIGNATURE})",
            count(source.len(), "test pair")
        );
        done.figures.insert("bleu".into(), bleu.into());
        done.figures.insert("bleu_signature".into(), BLEU_SIGNATURE.into());
        done.figures.insert("word_by_word_bleu".into(), words.into());
        done.figures.insert("tokens".into(), corpus.tokens().to_vec().into());
        Ok(done)
    })
}

/// Sentences that greedy search translates between two looks at whether to stop.
const AT_ONCE: usize = 50;

/// The translations of these sentences; none if the run is to stop before they are all there.
fn translations<M: Translator>(
    corpus: &Corpus,
    model: &M,
    sentences: &[String],
    beam: usize,
    stop: Option<&AtomicBool>,
) -> Result<Option<Vec<String>>, TrainError> {
    // Those of about one length together, so that short ones do not wait for long ones.
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    order.sort_by_key(|place| sentences[*place].len());
    let mut translations = vec![String::new(); sentences.len()];
    for places in order.chunks(if beam > 1 { 1 } else { AT_ONCE }) {
        if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let part: Vec<String> = places.iter().map(|place| sentences[*place].clone()).collect();
        for (place, said) in places.iter().zip(corpus.translate(model, &part, beam)?) {
            translations[*place] = said;
        }
    }
    Ok(Some(translations))
}

/// The BLEU of what a dictionary alone makes of the test pairs.
fn word_by_word(train: &ParallelText, test: &ParallelText) -> Result<f64, TrainError> {
    let dictionary = WordByWord::learn(train)?;
    let translations: Result<Vec<_>, _> =
        test.source().iter().map(|sentence| dictionary.translate(sentence)).collect();
    Ok(train::score(&translations?, test.target())?.score)
}
