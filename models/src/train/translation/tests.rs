//! Training to translate, scoring, and saving, with tiny corpora.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    data::text::{toy, Tokens},
    train::Base,
    Seq2SeqTransformer,
};
use dfdx::{nn::BuildModule, prelude::Cpu};

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

// Fails if a step does not reach the weights, if the epoch's mean is not over tokens, or if
// anything, dropout included, is drawn from elsewhere than the seed.
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
    let tokens = corpus.tokens();
    assert!(
        matches!(small, Err(TrainError::Vocabulary { takes: [100, 20], found }) if found == tokens)
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
