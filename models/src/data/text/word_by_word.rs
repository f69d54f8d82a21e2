//! Translation word by word, which every model should be better than.

use std::collections::HashMap;

use super::{words, ParallelText, TextError};

/// How many passes are made over the text. After that the translations change little.
const PASSES: usize = 5;

/// Translates each word by the one that it most often stands for, and leaves the words' order as it
/// is. A model that looks at whole sentences should be better than this.
///
/// The translations are learned as in the first model of Brown, Della Pietra, Della Pietra and
/// Mercer, *The Mathematics of Statistical Machine Translation*, 1993: by expectation maximisation,
/// from all words of the pairs that occur together. Punctuation stands for itself.
///
/// ```
/// use tlr_models::data::text::{ParallelText, WordByWord};
///
/// let [german, english] = [["der Hund", "der Mann", "ein Hund"], ["the dog", "the man", "a dog"]];
/// let owned = |text: [&str; 3]| text.map(String::from).to_vec();
/// let dictionary = WordByWord::learn(&ParallelText::new(owned(german), owned(english))?)?;
/// assert_eq!(dictionary.translate("ein Mann bellt")?, "a man bellt");
/// # Ok::<(), tlr_models::data::text::TextError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordByWord(HashMap<String, String>);

impl WordByWord {
    /// Learns from sentences and their translations.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the tokenizer refuses.
    ///
    /// Example: [`WordByWord`].
    pub fn learn(text: &ParallelText) -> Result<Self, TextError> {
        let (mut sources, mut targets) = (Numbers::default(), Numbers::default());
        let pairs = text.source().iter().zip(text.target());
        let pairs = pairs
            .map(|(source, target)| Ok((sources.of(source)?, targets.of(target)?)))
            .collect::<Result<Vec<_>, TextError>>()?;
        // How likely a target word is, given a source word; at first all are alike.
        let mut likely: HashMap<(usize, usize), f64> = HashMap::new();
        for _ in 0..PASSES {
            let mut counts: HashMap<(usize, usize), f64> = HashMap::new();
            let mut totals = vec![0.0; sources.words.len()];
            for (source, target) in &pairs {
                for &to in target {
                    let given = |from: &usize| likely.get(&(*from, to)).copied().unwrap_or(1.0);
                    let sum: f64 = source.iter().map(given).sum();
                    for &from in source {
                        let part = given(&from) / sum;
                        *counts.entry((from, to)).or_insert(0.0) += part;
                        if let Some(total) = totals.get_mut(from) {
                            *total += part;
                        }
                    }
                }
            }
            for ((from, _), count) in &mut counts {
                *count /= totals.get(*from).copied().unwrap_or(1.0);
            }
            likely = counts;
        }
        let mut best: Vec<Option<(f64, usize)>> = vec![None; sources.words.len()];
        for ((from, to), likely) in likely {
            if let Some(best) = best.get_mut(from) {
                // Of equally likely words the one that came first in the text wins, in whatever
                // order they are looked at.
                let better = best
                    .is_none_or(|(most, other)| likely > most || (likely == most && to < other));
                if better {
                    *best = Some((likely, to));
                }
            }
        }
        let translation = |(word, best): (String, Option<(f64, usize)>)| {
            Some((word, targets.words.get(best?.1)?.clone()))
        };
        Ok(Self(sources.words.into_iter().zip(best).filter_map(translation).collect()))
    }

    /// Translates a sentence into as many words, with a space between them. Words that were not
    /// learned stay as they are.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the tokenizer refuses.
    ///
    /// Example: [`WordByWord`].
    pub fn translate(&self, sentence: &str) -> Result<String, TextError> {
        let words = words(sentence)?;
        let translated: Vec<&str> =
            words.iter().map(|word| self.0.get(word).unwrap_or(word).as_str()).collect();
        Ok(translated.join(" "))
    }
}

/// Words, numbered as they come.
#[derive(Default)]
struct Numbers {
    numbers: HashMap<String, usize>,
    words: Vec<String>,
}

impl Numbers {
    fn of(&mut self, sentence: &str) -> Result<Vec<usize>, TextError> {
        let number = |word: String| {
            *self.numbers.entry(word).or_insert_with_key(|word| {
                self.words.push(word.clone());
                self.words.len() - 1
            })
        };
        let words = words(sentence)?.into_iter();
        Ok(words.filter(|word| word.contains(char::is_alphanumeric)).map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::text::toy;

    // Fails if source and target are mixed up, or if words that merely occur together, such as
    // those in every sentence, win: counted like a word, the full stop stands for "the".
    #[test]
    fn words_of_the_toy_language_are_learned() {
        let data = toy::draw(1, 1500, 1, 1).unwrap();
        let dictionary = WordByWord::learn(&data.train).unwrap();
        assert_eq!(
            dictionary
                .translate("weil der kleine Hund heute den Apfel im Wald gesehen hat .")
                .unwrap(),
            "because the small dog today the apple in forest seen has ."
        );
        assert_eq!(dictionary, WordByWord::learn(&data.train).unwrap());
        assert_eq!(dictionary.translate("Gürteltier").unwrap(), "Gürteltier");
    }
}
