//! BLEU, the usual score of translations: how many of their words, and runs of up to four words,
//! occur in a reference.
//!
//! Papineni, Roukos, Ward and Zhu, *BLEU: a Method for Automatic Evaluation of Machine
//! Translation*, ACL 2002; with one reference a sentence.

use std::{collections::HashMap, hash::Hash};

use super::TextError;

/// The longest runs that are counted.
pub const ORDER: usize = 4;

/// What to count for a run length none of whose runs is right. Without smoothing such a length
/// makes the whole score zero, which says little about a short text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Smoothing {
    /// No smoothing, as in the paper.
    #[default]
    None,
    /// Counts this many right runs instead of none, in (0, 1]; 0.1 is usual.
    Epsilon(f64),
    /// Counts half a run for the first such length, a quarter for the second, and so on.
    Exponential,
}

/// A score and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bleu {
    /// From 0 to 100, the best: 100 x brevity penalty x geometric mean of the precisions.
    pub score: f64,
    /// The part of the runs of one, two, three and four tokens that is found in the reference, each
    /// run at most as often as it is there; from 0 to 1, smoothed.
    pub precisions: [f64; ORDER],
    /// exp(1 − reference length / translation length) where the translations are the shorter,
    /// else 1.
    pub brevity_penalty: f64,
    /// Tokens of all translations.
    pub translation_len: usize,
    /// Tokens of all references.
    pub reference_len: usize,
}

/// The BLEU of a whole text, counted over all sentences together and not averaged over them.
///
/// Tokens can be words (see [`words_13a`](super::words_13a)) or ids. If no token is right, or
/// all translations are shorter than four tokens, the score is zero whatever the smoothing.
///
/// # Errors
/// [`TextError::Count`] when there are more translations than references or fewer,
/// [`TextError::Zero`] when there are none, [`TextError::Epsilon`] for an epsilon outside of
/// (0, 1].
///
/// ```
/// use tlr_models::data::text::{bleu::{bleu, Smoothing}, words_13a};
///
/// let translations = [words_13a("the cat sat on the mat.")];
/// let references = [words_13a("the cat is on the mat.")];
/// let plain = bleu(&translations, &references, Smoothing::None)?;
/// assert_eq!(plain.precisions, [6.0 / 7.0, 4.0 / 6.0, 2.0 / 5.0, 1.0 / 4.0]);
/// assert!((plain.score - 48.89).abs() < 0.01);
/// # Ok::<(), tlr_models::data::text::TextError>(())
/// ```
pub fn bleu<T: Eq + Hash>(
    translations: &[Vec<T>],
    references: &[Vec<T>],
    smoothing: Smoothing,
) -> Result<Bleu, TextError> {
    let (left, right) = (translations.len(), references.len());
    if left != right {
        return Err(TextError::Count { what: "sentences", left, right });
    }
    if left == 0 {
        return Err(TextError::Zero { what: "number of sentences" });
    }
    if let Smoothing::Epsilon(epsilon) = smoothing
        && !(epsilon > 0.0 && epsilon <= 1.0)
    {
        return Err(TextError::Epsilon { epsilon });
    }
    let (mut correct, mut all) = ([0_usize; ORDER], [0_usize; ORDER]);
    for (translation, reference) in translations.iter().zip(references) {
        for (order, (correct, all)) in (1..).zip(correct.iter_mut().zip(&mut all)) {
            let (found, wanted) = (runs(translation, order), runs(reference, order));
            let clipped = |(run, count): (&&[T], &usize)| {
                (*count).min(wanted.get(*run).copied().unwrap_or(0))
            };
            *correct += found.iter().map(clipped).sum::<usize>();
            *all += found.values().sum::<usize>();
        }
    }
    let length = |text: &[Vec<T>]| text.iter().map(Vec::len).sum::<usize>();
    let (translation_len, reference_len) = (length(translations), length(references));
    let brevity_penalty = if translation_len >= reference_len {
        1.0
    } else if translation_len == 0 {
        0.0
    } else {
        (1.0 - reference_len as f64 / translation_len as f64).exp()
    };
    let precisions = precisions(correct, all, smoothing);
    let mean = precisions.iter().map(|precision| precision.ln()).sum::<f64>() / ORDER as f64;
    // The logarithm of zero is minus infinity, and its exponential zero again.
    let score = 100.0 * brevity_penalty * mean.exp();
    Ok(Bleu { score, precisions, brevity_penalty, translation_len, reference_len })
}

/// How often each run of `order` tokens occurs.
fn runs<T: Eq + Hash>(sentence: &[T], order: usize) -> HashMap<&[T], usize> {
    let mut counts = HashMap::new();
    for run in sentence.windows(order) {
        *counts.entry(run).or_insert(0) += 1;
    }
    counts
}

fn precisions(correct: [usize; ORDER], all: [usize; ORDER], smoothing: Smoothing) -> [f64; ORDER] {
    let mut precisions = [0.0; ORDER];
    if correct == [0; ORDER] {
        return precisions;
    }
    let mut halved = 1.0;
    for (precision, (correct, all)) in precisions.iter_mut().zip(correct.into_iter().zip(all)) {
        if all == 0 {
            break;
        }
        let correct = match smoothing {
            _ if correct > 0 => correct as f64,
            Smoothing::None => 0.0,
            Smoothing::Epsilon(epsilon) => epsilon,
            Smoothing::Exponential => {
                halved /= 2.0;
                halved
            }
        };
        *precision = correct / all as f64;
    }
    precisions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TRANSLATIONS: [&str; 5] = [
        "the small dog sees the red ball in the garden today .",
        "two young white men are outside near many bushes .",
        "a man is holding a guitar while the other man looks at his shirt .",
        "the the the the the the the",
        "a girl climbs",
    ];
    const REFERENCES: [&str; 5] = [
        "the small dog sees a red ball in the garden every day .",
        "two young , white males are outside near many bushes .",
        "a man in green holds a guitar while the other man observes his shirt .",
        "the cat is on the mat",
        "a little girl climbing into a wooden playhouse .",
    ];

    fn split<'a>(text: &[&'a str]) -> Vec<Vec<&'a str>> {
        text.iter().map(|sentence| sentence.split_whitespace().collect()).collect()
    }

    fn score(translations: &[&str], references: &[&str], smoothing: Smoothing) -> Bleu {
        bleu(&split(translations), &split(references), smoothing).unwrap()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    /// The example of the paper's section 2.1: of seven "the", two count.
    #[test]
    fn a_word_counts_at_most_as_often_as_in_the_reference() {
        let bleu = score(&TRANSLATIONS[3..4], &REFERENCES[3..4], Smoothing::None);
        close(bleu.precisions[0], 2.0 / 7.0);
        assert_eq!((bleu.score, bleu.brevity_penalty), (0.0, 1.0));
    }

    /// By hand: 4 of 5 words, 3 of 4, 2 of 3 and 1 of 2 runs; 5 words for 6.
    #[test]
    fn precisions_and_brevity_multiply() {
        let bleu = score(&["a b c d x"], &["a b c d e f"], Smoothing::None);
        assert_eq!(bleu.precisions, [4.0 / 5.0, 3.0 / 4.0, 2.0 / 3.0, 1.0 / 2.0]);
        close(bleu.brevity_penalty, (-0.2_f64).exp());
        close(bleu.score, 100.0 * (-0.2_f64).exp() * 0.2_f64.powf(0.25));
        assert_eq!((bleu.translation_len, bleu.reference_len), (5, 6));
    }

    /// From sacrebleu 2.6.0: `BLEU(tokenize='none', smooth_method=…)`, with `smooth_value=0.1` for
    /// `floor`, which is `Epsilon(0.1)`. NLTK 3.10.4's `corpus_bleu` gives the same for "long" and
    /// "three" (method 1 for epsilon); for the others it counts a sentence of fewer than n words as
    /// one wrong n-gram, which neither the paper nor sacrebleu does.
    #[test]
    fn scores_are_those_of_sacrebleu() {
        let (plain, exponential, floor) =
            (Smoothing::None, Smoothing::Exponential, Smoothing::Epsilon(0.1));
        let all = (&TRANSLATIONS[..], &REFERENCES[..]);
        let long = (&TRANSLATIONS[..1], &["the small dog sees a red ball in the garden ."][..]);
        let two = (&["a girl climbs", "a man sings"][..], &[REFERENCES[4], "a man is singing"][..]);
        let three = (&["a b c d e"][..], &["a b c x d e"][..]);
        let short = (&["a little girl"][..], &REFERENCES[4..]);
        let none = (&["x y z w"][..], &["a b c d"][..]);
        for ((translations, references), smoothing, expected, last) in [
            (all, plain, 38.16456526451499, 28.125),
            (all, exponential, 38.16456526451499, 28.125),
            (all, floor, 38.16456526451499, 28.125),
            (long, plain, 54.52469119630866, 33.333333333333336),
            (three, plain, 0.0, 0.0),
            (three, exponential, 40.93653765389909, 25.0),
            (three, floor, 27.37591267534726, 5.0),
            (two, exponential, 0.0, 0.0),
            (short, floor, 0.0, 0.0),
            (none, exponential, 0.0, 0.0),
            (none, floor, 0.0, 0.0),
        ] {
            let bleu = score(translations, references, smoothing);
            close(bleu.score, expected);
            close(100.0 * bleu.precisions[3], last);
        }
        let bleu = score(all.0, all.1, plain);
        close(bleu.brevity_penalty, 0.8616241104274074);
        assert_eq!((bleu.translation_len, bleu.reference_len), (47, 54));
        close(100.0 * bleu.precisions[2], 37.83783783783784);
        close(score(two.0, two.1, exponential).precisions[2], 0.25);
        close(score(two.0, two.1, floor).precisions[2], 0.05);
    }

    #[test]
    fn a_perfect_translation_scores_100_and_an_empty_one_0() {
        close(score(&REFERENCES, &REFERENCES, Smoothing::None).score, 100.0);
        for smoothing in [Smoothing::None, Smoothing::Epsilon(0.1), Smoothing::Exponential] {
            assert_eq!(score(&[""], &["a b c d"], smoothing).score, 0.0);
            assert_eq!(score(&["a"], &[""], smoothing).score, 0.0);
            assert_eq!(score(&[""], &[""], smoothing).score, 0.0);
        }
    }

    #[test]
    fn ids_score_like_words() {
        let ids = bleu(&[vec![4, 5, 6, 7, 9]], &[vec![4, 5, 6, 7, 8, 1]], Smoothing::None).unwrap();
        assert_eq!(ids, score(&["a b c d x"], &["a b c d e f"], Smoothing::None));
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let one = vec![vec![1_usize]];
        let error = bleu(&one, &[], Smoothing::None).unwrap_err();
        assert!(matches!(error, TextError::Count { left: 1, right: 0, .. }), "{error}");
        let error = bleu::<usize>(&[], &[], Smoothing::None).unwrap_err();
        assert!(matches!(error, TextError::Zero { .. }), "{error}");
        for epsilon in [0.0, -1.0, 1.01, f64::NAN, f64::INFINITY] {
            let error = bleu(&one, &one, Smoothing::Epsilon(epsilon)).unwrap_err();
            assert!(matches!(error, TextError::Epsilon { .. }), "{error}");
        }
    }
}
