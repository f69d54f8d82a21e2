//! A parallel text as ids, and padded batches of it.

use super::{ParallelText, TextError, Vocabulary, BOS, EOS, PAD};

/// A parallel text as ids, each sentence between `<bos>` and `<eos>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPairs {
    pairs: Vec<(Vec<usize>, Vec<usize>)>,
}

impl EncodedPairs {
    /// Encodes both sides of a text.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when a tokenizer refuses.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::text::{toy, Buckets, EncodedPairs, Vocabulary, VocabularyConfig, BOS};
    ///
    /// let text = toy::draw(0, 40, 4, 4)?.train;
    /// let learn = |side: &[String]| Vocabulary::learn(side, VocabularyConfig::default());
    /// let (source, target) = (learn(text.source())?, learn(text.target())?);
    /// let pairs = EncodedPairs::new(&text, &source, &target)?;
    /// assert_eq!(pairs.get(0).expect("one of 40").0[0], BOS);
    /// assert_eq!((pairs.len(), pairs.is_empty()), (40, false));
    /// let batch = pairs.batch(&[0, 1])?;
    /// assert!(batch.source.rows == 2 && batch.source.columns <= pairs.longest().0);
    /// let batches = Buckets::new(&pairs, 8, 0)?;
    /// assert_eq!((batches.batches_per_epoch(), batches.epoch(0).count()), (5, 5));
    /// # Ok::<(), tlr_models::data::text::TextError>(())
    /// ```
    pub fn new(
        text: &ParallelText,
        source: &Vocabulary,
        target: &Vocabulary,
    ) -> Result<Self, TextError> {
        let framed = |vocabulary: &Vocabulary, sentence: &str| -> Result<Vec<usize>, TextError> {
            let mut ids = vec![BOS];
            ids.extend(vocabulary.encode(sentence)?);
            ids.push(EOS);
            Ok(ids)
        };
        let pairs = text
            .source()
            .iter()
            .zip(text.target())
            .map(|(from, to)| Ok((framed(source, from)?, framed(target, to)?)))
            .collect::<Result<_, TextError>>()?;
        Ok(Self { pairs })
    }

    /// The number of pairs, at least one.
    ///
    /// Example: [`new`](Self::new).
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no pairs; always false, since a [`ParallelText`] has one.
    ///
    /// Example: [`new`](Self::new).
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The ids of pair `index`, source and target, if there is one.
    ///
    /// Example: [`new`](Self::new).
    pub fn get(&self, index: usize) -> Option<(&[usize], &[usize])> {
        self.pairs.get(index).map(|(source, target)| (&**source, &**target))
    }

    /// The lengths of the longest source and of the longest target, `<bos>` and `<eos>` counted:
    /// how many positions a model needs.
    ///
    /// Example: [`new`](Self::new).
    pub fn longest(&self) -> (usize, usize) {
        self.pairs
            .iter()
            .fold((0, 0), |(a, b), (source, target)| (a.max(source.len()), b.max(target.len())))
    }

    /// The pairs `indices`, in that order, each side padded to its longest sentence.
    ///
    /// # Errors
    /// [`TextError::Index`] when an index is not below [`len`](Self::len).
    ///
    /// Example: [`new`](Self::new).
    pub fn batch(&self, indices: &[usize]) -> Result<PairBatch, TextError> {
        let (mut sources, mut targets) = (Vec::new(), Vec::new());
        for &index in indices {
            let (source, target) =
                self.get(index).ok_or(TextError::Index { index, len: self.len() })?;
            sources.push(source);
            targets.push(target);
        }
        Ok(PairBatch { source: Padded::new(&sources), target: Padded::new(&targets) })
    }
}

/// Pairs to train on at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PairBatch {
    /// The sentences to translate.
    pub source: Padded,
    /// Their translations.
    pub target: Padded,
}

/// Sentences filled up with `<pad>` to the length of the longest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Padded {
    /// The ids of a tensor of shape (rows, columns), sentence by sentence.
    pub ids: Vec<usize>,
    /// The number of sentences.
    pub rows: usize,
    /// The length of the longest sentence.
    pub columns: usize,
    /// The length of each sentence; what follows in its row is padding.
    pub lengths: Vec<usize>,
}

impl Padded {
    /// Pads sentences of ids.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::text::{Padded, PAD};
    ///
    /// let padded = Padded::new(&[vec![7, 8], vec![9]]);
    /// assert_eq!((padded.rows, padded.columns), (2, 2));
    /// assert_eq!(padded.ids, [7, 8, 9, PAD]);
    /// ```
    pub fn new<S: AsRef<[usize]>>(sentences: &[S]) -> Self {
        let lengths: Vec<usize> = sentences.iter().map(|ids| ids.as_ref().len()).collect();
        let columns = lengths.iter().copied().max().unwrap_or(0);
        let mut padded = Vec::with_capacity(sentences.len() * columns);
        for (row, ids) in sentences.iter().enumerate() {
            padded.extend(ids.as_ref());
            padded.resize((row + 1) * columns, PAD);
        }
        Self { ids: padded, rows: sentences.len(), columns, lengths }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::text::VocabularyConfig;

    /// Pairs whose lengths without frame are those given.
    pub(in crate::data::text) fn of_lengths(lengths: &[(usize, usize)]) -> EncodedPairs {
        let framed = |length: usize| [vec![BOS], vec![7; length], vec![EOS]].concat();
        EncodedPairs { pairs: lengths.iter().map(|&(a, b)| (framed(a), framed(b))).collect() }
    }

    #[test]
    fn sentences_are_framed_and_sides_not_swapped() {
        let text = ParallelText::new(
            vec!["ein Hund".into(), "ein Hund ein Hund".into()],
            vec!["a dog".into(), "a dog dog".into()],
        )
        .unwrap();
        let config = VocabularyConfig { min_frequency: 1, ..Default::default() };
        let german = Vocabulary::learn(text.source(), config).unwrap();
        let english = Vocabulary::learn(text.target(), config).unwrap();
        let pairs = EncodedPairs::new(&text, &german, &english).unwrap();
        // "dog" is the more frequent; "Hund" comes before "ein".
        assert_eq!(pairs.get(0), Some((&[BOS, 5, 4, EOS][..], &[BOS, 5, 4, EOS][..])));
        assert_eq!(pairs.get(1), Some((&[BOS, 5, 4, 5, 4, EOS][..], &[BOS, 5, 4, 4, EOS][..])));
        assert_eq!((pairs.len(), pairs.longest()), (2, (6, 5)));
        assert_eq!(german.decode(pairs.get(1).unwrap().0).unwrap(), "ein Hund ein Hund");
    }

    #[test]
    fn each_side_is_padded_to_its_longest() {
        let pairs = of_lengths(&[(1, 3), (2, 0), (9, 9)]);
        let batch = pairs.batch(&[1, 0]).unwrap();
        assert_eq!(batch.source.ids, [BOS, 7, 7, EOS, BOS, 7, EOS, PAD]);
        assert_eq!((batch.source.rows, batch.source.columns), (2, 4));
        assert_eq!(batch.source.lengths, [4, 3]);
        assert_eq!(batch.target.ids, [BOS, EOS, PAD, PAD, PAD, BOS, 7, 7, 7, EOS]);
        assert_eq!(batch.target.lengths, [2, 5]);
        assert_eq!(pairs.batch(&[]).unwrap().source, Padded::new::<Vec<usize>>(&[]));
        let error = pairs.batch(&[0, 3]).unwrap_err();
        assert!(matches!(error, TextError::Index { index: 3, len: 3 }), "{error}");
    }
}
