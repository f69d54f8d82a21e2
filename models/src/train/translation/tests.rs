//! Training to translate, scoring, and saving, with tiny corpora.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::{data::text::toy, Seq2SeqTransformer};
use dfdx::{nn::BuildModule, prelude::Cpu};

type Small = Seq2SeqTransformer<100, 100, 16, 2, 32, 1, 1, f32, Cpu>;

fn corpus() -> Corpus {
    let data = toy::draw(1, 400, 40, 1).unwrap();
    Corpus::new(&data.train, &data.val, VocabularyConfig::default()).unwrap()
}

// The counts leave padding out, and count each token of a sentence once.
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

// The model has 100 tokens, the language fewer. Fails if a token without a word is looked up.
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
