//! Sentences in two languages, for translation: read from disk or made here.
//!
//! [`toy::draw`] needs no files; [`multi30k::load`] reads the real thing. Both give a
//! [`Translation`]. A [`Vocabulary`] learned on its training half turns sentences into ids,
//! [`Buckets`] puts pairs of like length together, and [`EncodedPairs::batch`] pads them:
//!
//! ```
//! use tlr_models::data::text::{toy, Buckets, EncodedPairs, Vocabulary, VocabularyConfig};
//!
//! let data = toy::draw(7, 100, 10, 10)?;
//! let german = Vocabulary::learn(data.train.source(), VocabularyConfig::default())?;
//! let english = Vocabulary::learn(data.train.target(), VocabularyConfig::default())?;
//! let pairs = EncodedPairs::new(&data.train, &german, &english)?;
//! for indices in Buckets::new(&pairs, 16, 7)?.epoch(0) {
//!     let batch = pairs.batch(&indices)?;
//!     assert_eq!(batch.target.ids.len(), batch.target.rows * batch.target.columns);
//! }
//! # Ok::<(), tlr_models::data::text::TextError>(())
//! ```
//!
//! [`bleu`] scores the translations, and [`WordByWord`] gives translations that any model should
//! exceed.

pub mod bleu;
pub mod multi30k;
pub mod toy;

mod buckets;
mod error;
mod mteval;
mod pairs;
mod parallel;
mod vocabulary;
mod word_by_word;

pub use buckets::Buckets;
pub use error::TextError;
pub use mteval::words_13a;
pub use pairs::{EncodedPairs, Padded, PairBatch};
pub use parallel::{ParallelText, Translation};
pub use vocabulary::{words, Tokens, Vocabulary, VocabularyConfig, BOS, EOS, PAD, UNK};
pub use word_by_word::WordByWord;
