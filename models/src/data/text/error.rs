//! What can go wrong with sentences.

use std::path::PathBuf;

use crate::data::DataError;

/// Why sentences could not be read, encoded, cut into batches or scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file is missing, cannot be read, does not decompress or is too large.
    #[error(transparent)]
    File(#[from] DataError),

    /// A file is not UTF-8.
    #[error(
        "{}: line {line} is not UTF-8 from offset {offset} on; convert the file",
        path.display()
    )]
    Utf8 {
        /// The file concerned.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The offset of the first wrong byte in the file, decompressed.
        offset: usize,
    },

    /// A line without a word.
    #[error("{}: line {line} is blank; remove it from both files", path.display())]
    Blank {
        /// The file concerned.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },

    /// Two files that should match line by line do not.
    #[error(
        "{}: line {line} has no partner, {} ends before it; the files must match line by line",
        longer.display(),
        shorter.display()
    )]
    Uneven {
        /// The file with more lines.
        longer: PathBuf,
        /// The file with fewer.
        shorter: PathBuf,
        /// The first line without a partner, counted from 1.
        line: usize,
    },

    /// Two lists that should match one to one do not.
    #[error("{left} {what} on one side, {right} on the other; both must be as many")]
    Count {
        /// What was counted, for example `sentences`.
        what: &'static str,
        /// How many came first.
        left: usize,
        /// How many came second.
        right: usize,
    },

    /// A number that must be at least one is zero.
    #[error("{what} is zero; pass at least 1")]
    Zero {
        /// What was zero, for example `batch size`.
        what: &'static str,
    },

    /// A vocabulary cannot be as small as was asked for.
    #[error(
        "a vocabulary of {size} tokens was asked for, but this text needs {least}; pass at \
         least that"
    )]
    VocabularySize {
        /// The size asked for.
        size: usize,
        /// The least size that holds the special tokens and the characters of the text, or one
        /// word.
        least: usize,
    },

    /// The tokenizer failed.
    #[error("tokenizer: {source}")]
    Tokenizer {
        /// What it reported.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// An id outside of the vocabulary.
    #[error("id {id} names no token, the vocabulary holds {len}")]
    Id {
        /// The id.
        id: usize,
        /// The number of tokens.
        len: usize,
    },

    /// An index outside of a set of pairs.
    #[error("pair {index} was asked for, but the set holds {len}; use an index below {len}")]
    Index {
        /// The index.
        index: usize,
        /// The number of pairs.
        len: usize,
    },

    /// More sentences than the toy language can be asked for.
    #[error("{asked} sentences were asked for; the toy language gives at most {limit}")]
    TooMany {
        /// How many were asked for in all.
        asked: usize,
        /// The most there are.
        limit: usize,
    },

    /// Smoothing by a number of right runs that is zero or less, or more than one.
    #[error("smoothing by {epsilon}; it must be in (0, 1]")]
    Epsilon {
        /// The number.
        epsilon: f64,
    },
}
