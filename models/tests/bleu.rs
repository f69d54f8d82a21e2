//! Words and scores beside sacrebleu's: `bleu/make.py` made `bleu/expected.json`.
#![cfg(feature = "text")]
#![allow(clippy::unwrap_used, missing_docs)]

use serde::Deserialize;
use tlr_models::{
    data::text::words_13a,
    train::{score, BLEU_SIGNATURE},
};

#[derive(Deserialize)]
struct Expected {
    signature: String,
    tokens: Vec<Tokens>,
    scores: Vec<Score>,
}

#[derive(Deserialize)]
struct Tokens {
    sentence: String,
    /// With a space between them.
    words: String,
}

#[derive(Deserialize)]
struct Score {
    name: String,
    translations: Vec<String>,
    references: Vec<String>,
    score: f64,
    precisions: [f64; 4],
    brevity_penalty: f64,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("bleu/expected.json")).unwrap()
}

#[test]
fn words_are_those_of_sacrebleu() {
    let expected = expected();
    assert!(expected.tokens.len() > 150);
    for Tokens { sentence, words } in expected.tokens {
        assert_eq!(words_13a(&sentence).join(" "), words, "{sentence:?}");
    }
}

#[test]
fn scores_are_those_of_sacrebleu() {
    let expected = expected();
    // Without the number of references and the version.
    assert!(expected.signature.contains(BLEU_SIGNATURE), "{}", expected.signature);
    assert_eq!(expected.scores.len(), 8);
    for of in expected.scores {
        let found = score(&of.translations, &of.references).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(found.score, of.score), "{}: {} for {}", of.name, found.score, of.score);
        assert!(close(found.brevity_penalty, of.brevity_penalty), "{}", of.name);
        // sacrebleu smooths precisions that do not count, where no word is right.
        if of.score > 0.0 {
            let same = |(a, b): (&f64, f64)| close(100.0 * a, b);
            assert!(found.precisions.iter().zip(of.precisions).all(same), "{}", of.name);
        }
    }
}
