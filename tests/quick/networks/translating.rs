//! Transformers that learn to translate, and to repeat what they are told.

use dfdx::{optim::*, prelude::*};
use tlr_models::{
    data::text::{toy, TextError, Tokens, VocabularyConfig},
    layers::DropoutRate,
    padded,
    search::{Found, SearchOptions},
    shifted,
    train::{train_translator, Base, Corpus, Event, Options, Persistence, Run, TrainError},
    Seq2SeqTransformer,
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
