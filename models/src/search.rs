//! Which sequence a model that scores one token after another finds best: greedy and beam search.
//!
//! The search knows no model. It asks a function for the log probabilities of what may follow.

use std::cmp::Ordering;

/// How to search, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// Sequences that are followed at a time; 1 is greedy search. Default 1; 0 is as 1.
    pub width: usize,
    /// Tokens after the first at which a sequence ends, ended or not. Default 100.
    pub max_length: usize,
    /// Sequences of different lengths are compared by their log probability over length to this power.
    /// 0 compares the probabilities, which favours short ones; 1 the mean a token. Default 1.
    pub length_penalty: f64,
    /// The first token, which is given. Default 2.
    pub start: usize,
    /// The token that ends a sequence. Default 3.
    pub end: usize,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { width: 1, max_length: 100, length_penalty: 1.0, start: 2, end: 3 }
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Without the first token and the one that ends it.
    pub tokens: Vec<usize>,
    /// The logarithm of its probability, that of its end included.
    pub log_probability: f64,
    /// Whether it ended by itself, and not by its length.
    pub ended: bool,
}

/// Why a search stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError<Err> {
    /// Not one row of scores for each sequence.
    #[error("{expected} sequences to go on with, and scores for {found}")]
    Scores {
        /// Sequences asked about.
        expected: usize,
        /// Rows of scores.
        found: usize,
    },
    /// No token has a probability above zero.
    #[error("nothing can follow: all log probabilities are NaN or minus infinity")]
    NothingFollows,
    /// Of the function that scores.
    #[error(transparent)]
    Model(#[from] Err),
}

struct Beam {
    /// With the first token.
    tokens: Vec<usize>,
    log_probability: f64,
}

/// Higher first, then the smaller tokens first: no two are alike.
fn best_first(a: (f64, &[usize]), b: (f64, &[usize])) -> Ordering {
    b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1))
}

/// The best sequence that starts with `options.start`, by beam search.
///
/// `next` is told sequences of the same length, with their first token, and gives for each the log
/// probabilities of the tokens that may follow; minus infinity and NaN are for those that may not. A
/// sequence that ends counts as found if it is among the best `width` of its step. The search is over
/// when it has found `width`, when none is left to follow, or at `max_length`, where those that did not
/// end count too. Of equals the one with the smaller tokens is taken, so that a search always finds
/// the same.
///
/// With a width of at least all sequences that there are, that is an exhaustive search.
///
/// # Errors
/// [`SearchError`]: `next`'s own, another number of rows than sequences, and nothing that can follow.
///
/// # Example
/// ```
/// use tlr_models::search::{beam, SearchOptions};
///
/// // Tokens 0 and 1, and 2 that ends. 0 is likelier at first, but leads nowhere.
/// let next = |sequences: &[Vec<usize>]| -> Result<Vec<Vec<f64>>, std::convert::Infallible> {
///     Ok(sequences.iter().map(|tokens| match tokens[1..] {
///         [] => [0.6, 0.4, 0.0],
///         [0] => [0.5, 0.1, 0.4],
///         _ => [0.0, 0.1, 0.9],
///     }.map(f64::ln).to_vec()).collect())
/// };
/// let options = SearchOptions { width: 2, length_penalty: 0.0, start: 9, end: 2, ..Default::default() };
/// assert_eq!(beam(&options, next)?.tokens, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn beam<Err>(
    options: &SearchOptions,
    mut next: impl FnMut(&[Vec<usize>]) -> Result<Vec<Vec<f64>>, Err>,
) -> Result<Found, SearchError<Err>> {
    let width = options.width.max(1);
    let mut beams = vec![Beam { tokens: vec![options.start], log_probability: 0.0 }];
    let mut found: Vec<Beam> = Vec::new();
    for _ in 0..options.max_length {
        let sequences: Vec<Vec<usize>> = beams.iter().map(|beam| beam.tokens.clone()).collect();
        let scores = next(&sequences)?;
        if scores.len() != beams.len() {
            let (expected, found) = (beams.len(), scores.len());
            return Err(SearchError::Scores { expected, found });
        }
        let mut followers: Vec<Beam> = Vec::new();
        for (beam, scores) in beams.iter().zip(&scores) {
            let possible =
                scores.iter().enumerate().filter(|(_, score)| **score > f64::NEG_INFINITY);
            for (token, score) in likeliest(possible, width.saturating_mul(2)) {
                let tokens = beam.tokens.iter().copied().chain([token]).collect();
                let log_probability = beam.log_probability + score;
                followers.push(Beam { tokens, log_probability });
            }
        }
        followers.sort_by(|a, b| {
            best_first((a.log_probability, &a.tokens), (b.log_probability, &b.tokens))
        });
        let mut live = Vec::new();
        for (rank, follower) in followers.into_iter().enumerate() {
            if follower.tokens.last() != Some(&options.end) {
                if live.len() < width {
                    live.push(follower);
                }
            } else if rank < width {
                found.push(follower);
            }
        }
        beams = live;
        if found.len() >= width || beams.is_empty() {
            beams.clear();
            break;
        }
    }
    found.extend(beams);
    let score = |beam: &Beam| {
        let length = (beam.tokens.len() - 1).max(1) as f64;
        beam.log_probability / length.powf(options.length_penalty)
    };
    let best = found
        .into_iter()
        .min_by(|a, b| best_first((score(a), &a.tokens), (score(b), &b.tokens)))
        .ok_or(SearchError::NothingFollows)?;
    let ended = best.tokens.len() > 1 && best.tokens.last() == Some(&options.end);
    let mut tokens: Vec<usize> = best.tokens.into_iter().skip(1).collect();
    if ended {
        tokens.pop();
    }
    Ok(Found { tokens, log_probability: best.log_probability, ended })
}

/// The first `count`, best first, of equals the smaller token.
fn likeliest<'a>(
    scores: impl Iterator<Item = (usize, &'a f64)>,
    count: usize,
) -> impl Iterator<Item = (usize, f64)> {
    let mut scores: Vec<(usize, f64)> = scores.map(|(token, score)| (token, *score)).collect();
    let order = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if scores.len() > count {
        scores.select_nth_unstable_by(count, order);
        scores.truncate(count);
    }
    scores.sort_by(order);
    scores.into_iter()
}

/// The likeliest token after another, for a batch of sequences at a time.
///
/// `next` is told all of them, with their first token, and gives a row of log probabilities for each;
/// one that has ended goes on as `options.end`, and what is said of it is not heard. `width` and
/// `length_penalty` have no say. Each is what [`beam`] finds with a width of 1.
///
/// # Errors
/// As [`beam`].
///
/// # Example
/// ```
/// use tlr_models::search::{greedy, SearchOptions};
///
/// // Counts down from the first token's place in the batch; 0 ends.
/// let next = |sequences: &[Vec<usize>]| -> Result<Vec<Vec<f64>>, std::convert::Infallible> {
///     Ok(sequences.iter().enumerate().map(|(place, tokens)| {
///         let token = (place + 2).saturating_sub(tokens.len());
///         (0..4).map(|other| if other == token { 0.0 } else { -9.0 }).collect()
///     }).collect())
/// };
/// let options = SearchOptions { start: 9, end: 0, ..Default::default() };
/// let found = greedy(&options, 3, next)?;
/// assert_eq!(found[2].tokens, [3, 2, 1]);
/// assert!(found[0].ended && found[0].tokens == [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn greedy<Err>(
    options: &SearchOptions,
    batch: usize,
    mut next: impl FnMut(&[Vec<usize>]) -> Result<Vec<Vec<f64>>, Err>,
) -> Result<Vec<Found>, SearchError<Err>> {
    let mut sequences = vec![vec![options.start]; batch];
    let mut found = vec![Found { tokens: Vec::new(), log_probability: 0.0, ended: false }; batch];
    for _ in 0..options.max_length {
        if found.iter().all(|found| found.ended) {
            break;
        }
        let scores = next(&sequences)?;
        if scores.len() != batch {
            return Err(SearchError::Scores { expected: batch, found: scores.len() });
        }
        for ((sequence, found), scores) in sequences.iter_mut().zip(&mut found).zip(&scores) {
            if found.ended {
                sequence.push(options.end);
                continue;
            }
            let possible =
                scores.iter().enumerate().filter(|(_, score)| **score > f64::NEG_INFINITY);
            let (token, score) =
                likeliest(possible, 1).next().ok_or(SearchError::NothingFollows)?;
            sequence.push(token);
            found.log_probability += score;
            found.ended = token == options.end;
            if !found.ended {
                found.tokens.push(token);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
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
                let rows = sequences.iter().enumerate();
                Ok(rows.map(|(row, tokens)| language(seed + row as u64, vocabulary, tokens)).collect())
            })
            .unwrap();
            for (row, found) in found.iter().enumerate() {
                prop_assert_eq!(found, &search(seed + row as u64, vocabulary, &options));
            }
        }
    }

    // 0.6 · 0.4 first, 0.4 · 0.9 behind it: found by two beams and not by one. Without a length penalty
    // the short end at 0.35 wins.
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
        assert!(matches!(
            beam(&options(2, 5, 1.0), broken),
            Err(SearchError::Model("out of paper"))
        ));
    }
}
