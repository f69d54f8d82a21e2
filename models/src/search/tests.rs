//! The search against all sequences that there are, and its edges.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::{prop_assert_eq, proptest};
use std::convert::Infallible;

const START: usize = 7;
const END: usize = 0;

/// A made-up language: log probabilities that depend on all tokens so far.
fn language(seed: u64, vocabulary: usize, tokens: &[usize]) -> Vec<f64> {
    let mut state = tokens.iter().fold(seed, |state, token| {
        (state ^ *token as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    });
    let weights: Vec<f64> = (0..vocabulary)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Some are as likely as others.
            ((state >> 60) as f64 + 0.5).powi(2)
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| (weight / sum).ln()).collect()
}

fn options(width: usize, max_length: usize, length_penalty: f64) -> SearchOptions {
    SearchOptions { width, max_length, length_penalty, start: START, end: END }
}

/// Every sequence that ends or is as long as it may be, by its score and then its tokens.
fn exhaustive(seed: u64, vocabulary: usize, options: &SearchOptions) -> Found {
    let mut best: Option<(f64, Vec<usize>, f64)> = None;
    let mut open = vec![(vec![START], 0.0)];
    while let Some((tokens, log_probability)) = open.pop() {
        let length = tokens.len() - 1;
        if length > 0 && (tokens.last() == Some(&END) || length == options.max_length) {
            let score = log_probability / (length as f64).powf(options.length_penalty);
            let better = best.as_ref().is_none_or(|(most, other, _)| {
                score > *most || (score == *most && tokens < *other)
            });
            if better {
                best = Some((score, tokens, log_probability));
            }
            continue;
        }
        for (token, score) in language(seed, vocabulary, &tokens).into_iter().enumerate() {
            let followed = tokens.iter().copied().chain([token]).collect();
            open.push((followed, log_probability + score));
        }
    }
    let (_, tokens, log_probability) = best.unwrap();
    let ended = tokens.last() == Some(&END);
    let tokens = tokens[1..tokens.len() - usize::from(ended)].to_vec();
    Found { tokens, log_probability, ended }
}

fn search(seed: u64, vocabulary: usize, options: &SearchOptions) -> Found {
    beam(options, |sequences| -> Result<_, Infallible> {
        Ok(sequences.iter().map(|tokens| language(seed, vocabulary, tokens)).collect())
    })
    .unwrap()
}

proptest! {
    // Fails for a wrong length, a lost sequence or another order of equals.
    #[test]
    fn wide_enough_it_is_exhaustive(
        seed in 0u64..1_000_000,
        vocabulary in 1usize..5,
        length in 1usize..5,
        penalty in 0usize..3,
    ) {
        let options = options(1000, length, [0.0, 0.6, 1.0][penalty]);
        prop_assert_eq!(
            search(seed, vocabulary, &options),
            exhaustive(seed, vocabulary, &options)
        );
    }

    #[test]
    fn greedy_is_a_width_of_1(seed in 0u64..1_000_000, vocabulary in 1usize..6) {
        let options = options(1, 8, 1.0);
        let found = greedy(&options, 3, |sequences| -> Result<_, Infallible> {
            let seeds = seed..;
            let rows = seeds.zip(sequences);
            Ok(rows.map(|(seed, tokens)| language(seed, vocabulary, tokens)).collect())
        })
        .unwrap();
        for (row, found) in found.iter().enumerate() {
            prop_assert_eq!(found, &search(seed + row as u64, vocabulary, &options));
        }
    }
}

// 0.6 · 0.4 first, 0.4 · 0.9 behind it: found by two beams and not by one. Without a length
// penalty the short end at 0.35 wins.
#[test]
fn a_wider_beam_finds_what_a_narrow_one_misses() {
    let next = |sequences: &[Vec<usize>]| -> Result<Vec<Vec<f64>>, Infallible> {
        let rows = sequences.iter().map(|tokens| match tokens[1..] {
            [] => [0.01, 0.55, 0.44],
            [1] => [0.4, 0.3, 0.3],
            _ => [0.9, 0.05, 0.05],
        });
        Ok(rows.map(|row| row.map(f64::ln).to_vec()).collect())
    };
    assert_eq!(beam(&options(1, 3, 1.0), next).unwrap().tokens, [1]);
    let found = beam(&options(2, 3, 1.0), next).unwrap();
    assert_eq!((found.tokens, found.ended), (vec![2], true));
    assert!((found.log_probability - (0.44f64 * 0.9).ln()).abs() < 1e-15);
}

// Ends at once with 0.5, or three tokens of 0.7 each: the mean a token is larger.
#[test]
fn long_ones_are_not_at_a_disadvantage() {
    let next = |sequences: &[Vec<usize>]| -> Result<Vec<Vec<f64>>, Infallible> {
        let rows = sequences.iter().map(|tokens| match tokens.len() {
            1 => [0.5, 0.5],
            2 => [0.1, 0.9],
            _ => [0.9, 0.1],
        });
        Ok(rows.map(|row| row.map(f64::ln).to_vec()).collect())
    };
    assert!(beam(&options(3, 3, 0.0), next).unwrap().tokens.is_empty());
    assert_eq!(beam(&options(3, 3, 1.0), next).unwrap().tokens, [1, 1]);
}

#[test]
fn bounded() {
    let next = |sequences: &[Vec<usize>]| -> Result<Vec<Vec<f64>>, Infallible> {
        Ok(vec![vec![f64::NEG_INFINITY, 0.0]; sequences.len()])
    };
    let found = beam(&options(2, 5, 1.0), next).unwrap();
    assert_eq!((found.tokens, found.ended), (vec![1; 5], false));
    let found = greedy(&options(1, 5, 1.0), 2, next).unwrap();
    assert_eq!((found[1].tokens.clone(), found[1].ended), (vec![1; 5], false));
    assert!(beam(&options(2, 0, 1.0), next).unwrap().tokens.is_empty());
}

#[test]
fn scores_that_make_no_sense_are_errors() {
    type Scores = Result<Vec<Vec<f64>>, Infallible>;
    let none =
        |sequences: &[Vec<usize>]| -> Scores { Ok(vec![vec![f64::NAN; 3]; sequences.len()]) };
    let more = |_: &[Vec<usize>]| -> Scores { Ok(vec![vec![0.0; 3]; 9]) };
    let options = options(2, 5, 1.0);
    assert!(matches!(beam(&options, none), Err(SearchError::NothingFollows)));
    assert!(matches!(greedy(&options, 2, none), Err(SearchError::NothingFollows)));
    assert!(matches!(beam(&options, more), Err(SearchError::Scores { expected: 1, found: 9 })));
    assert!(matches!(
        greedy(&options, 2, more),
        Err(SearchError::Scores { expected: 2, found: 9 })
    ));
}

#[test]
fn errors_of_the_model_come_through() {
    let broken = |_: &[Vec<usize>]| Err("out of paper");
    assert!(matches!(beam(&options(2, 5, 1.0), broken), Err(SearchError::Model("out of paper"))));
}
