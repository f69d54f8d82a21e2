//! Greedy and beam search, for the best sequence by a model that scores one token after another.
//!
//! The search knows no model. It asks a function for the log probabilities of what may follow.

use std::cmp::Ordering;

/// How to search, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// Sequences that are followed at a time; 1 is greedy search. Default 1; 0 is as 1.
    pub width: usize,
    /// The most tokens after the first. A sequence that has not ended by then is cut off. Default
    /// 100.
    pub max_length: usize,
    /// Sequences of different lengths are compared by their log probability over length to this
    /// power. 0 compares the probabilities, which favours short ones; 1 the mean a token.
    /// Default 1.
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

/// The sequence that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The tokens, without the first one and without the one that ends the sequence.
    pub tokens: Vec<usize>,
    /// The logarithm of the sequence's probability, that of its end included.
    pub log_probability: f64,
    /// Whether the sequence has reached its end: false if it was cut off at the greatest length.
    pub ended: bool,
}

/// Why a search stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError<Err> {
    /// The function that scores gave more or fewer rows than there are sequences.
    #[error("{expected} sequences to go on with, and scores for {found}")]
    Scores {
        /// How many sequences it was asked about.
        expected: usize,
        /// How many rows of scores it gave.
        found: usize,
    },
    /// No token has a probability above zero.
    #[error("nothing can follow: all log probabilities are NaN or minus infinity")]
    NothingFollows,
    /// The function that scores has failed.
    #[error(transparent)]
    Model(#[from] Err),
}

struct Beam {
    /// The sequence's tokens, the first one too.
    tokens: Vec<usize>,
    log_probability: f64,
}

/// Higher first, then the smaller tokens first: no two are alike.
fn best_first(a: (f64, &[usize]), b: (f64, &[usize])) -> Ordering {
    b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1))
}

/// The best sequence that starts with `options.start`, by beam search.
///
/// `next` gets sequences of the same length, with their first token, and gives for each the log
/// probabilities of the tokens that may follow; minus infinity and NaN are for those that may not.
/// A sequence that ends counts as found if it is among the best `width` of its step. The search is
/// over when it has found `width`, when none is left to follow, or at `max_length`, where those
/// that did not end count too. Of equally good sequences the one with the smaller tokens is taken,
/// so that a search always finds the same.
///
/// If the width is at least the number of all sequences that there are, the search is exhaustive.
///
/// # Errors
/// [`SearchError`]: `next` fails, it gives another number of rows than there are sequences, or no
/// token can follow.
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
/// let options =
///     SearchOptions { width: 2, length_penalty: 0.0, start: 9, end: 2, ..Default::default() };
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

/// The `count` likeliest tokens, the best first. Of equals the smaller token comes first.
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

/// Greedy search for a batch of sequences: each goes on with its likeliest token.
///
/// `next` gets all of them, with their first token, and gives a row of log probabilities for each;
/// one that has ended goes on as `options.end`, and its row is ignored. `width` and
/// `length_penalty` have no effect. Each result is what [`beam`] finds with a width of 1.
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
mod tests;
