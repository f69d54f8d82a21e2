//! The tokens of a language: learned from sentences, and turned into ids and back.

use tokenizers::{
    models::{
        bpe::{BpeTrainer, BPE},
        wordlevel::{WordLevel, WordLevelTrainer},
        TrainerWrapper,
    },
    normalizers::{Lowercase, Sequence as Normalizers, NFC},
    pre_tokenizers::{
        metaspace::{Metaspace, PrependScheme},
        punctuation::Punctuation,
        sequence::Sequence,
        whitespace::Whitespace,
    },
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    SplitDelimiterBehavior, Tokenizer,
};

use super::TextError;

/// The id of `<unk>`, which stands for whatever the vocabulary lacks.
pub const UNK: usize = 0;
/// The id of `<pad>`, which fills batches up.
pub const PAD: usize = 1;
/// The id of `<bos>`, which begins a sentence.
pub const BOS: usize = 2;
/// The id of `<eos>`, which ends a sentence.
pub const EOS: usize = 3;

/// The special tokens, in the order of their ids.
const SPECIAL: [&str; 4] = ["<unk>", "<pad>", "<bos>", "<eos>"];

/// What a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokens {
    /// A word, or a run of punctuation marks; rare ones become `<unk>`.
    #[default]
    Words,
    /// A part of a word, from a letter to the whole, joined by how often they meet (byte-pair
    /// encoding); only letters that training never saw become `<unk>`.
    Subwords,
}

impl std::fmt::Display for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Words => "words",
            Self::Subwords => "subwords",
        })
    }
}

/// How a [`Vocabulary`] is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VocabularyConfig {
    /// What a token is. Default words.
    pub tokens: Tokens,
    /// The most tokens, the four special ones among them. Default 10,000.
    pub size: usize,
    /// How often a word, or a pair of parts to join, must occur. Default 2.
    pub min_frequency: u64,
    /// Whether capitals become small letters. Default false.
    pub lowercase: bool,
}

impl Default for VocabularyConfig {
    fn default() -> Self {
        Self { tokens: Tokens::Words, size: 10_000, min_frequency: 2, lowercase: false }
    }
}

/// The tokens of a language and their ids: `<unk>`, `<pad>`, `<bos>` and `<eos>` are 0 to 3.
///
/// Text is brought into Unicode's composed form (NFC), and runs of white space count as one space.
/// The special tokens' names in a text are ordinary text.
///
/// ```
/// use tlr_models::data::text::{Vocabulary, VocabularyConfig, UNK};
///
/// let vocabulary = Vocabulary::learn(
///     ["a dog runs.", "a cat runs."],
///     VocabularyConfig { min_frequency: 1, ..Default::default() },
/// )?;
/// let ids = vocabulary.encode("a bird runs.")?;
/// assert_eq!(ids[1], UNK);
/// assert_eq!(vocabulary.decode(&ids)?, "a <unk> runs .");
/// assert_eq!((vocabulary.len(), vocabulary.is_empty()), (4 + 5, false)); // a . cat dog runs
/// assert_eq!((vocabulary.token(UNK).as_deref(), vocabulary.id("bird")), (Some("<unk>"), None));
/// # Ok::<(), tlr_models::data::text::TextError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Vocabulary {
    tokenizer: Tokenizer,
    len: usize,
}

impl Vocabulary {
    /// Learns the vocabulary of `sentences`. The same sentences and configuration give the same
    /// ids. After the special tokens, words come in the order of their frequency, equal ones by the
    /// alphabet; parts of words as letters and then as they were joined.
    ///
    /// # Errors
    /// [`TextError::VocabularySize`] when `size` is below what the special tokens and one word, or
    /// for [`Tokens::Subwords`] every letter, need. [`TextError::Tokenizer`] when the tokenizer
    /// refuses.
    ///
    /// Example: [`Vocabulary`].
    pub fn learn<S: AsRef<str>>(
        sentences: impl IntoIterator<Item = S>,
        config: VocabularyConfig,
    ) -> Result<Self, TextError> {
        if config.size <= SPECIAL.len() {
            let least = SPECIAL.len() + 1;
            return Err(TextError::VocabularySize { size: config.size, least });
        }
        let special: Vec<_> = SPECIAL.iter().map(|&token| AddedToken::from(token, true)).collect();
        let unknown = SPECIAL[UNK].to_owned();
        let (mut tokenizer, mut trainer): (Tokenizer, TrainerWrapper) = match config.tokens {
            Tokens::Words => {
                let model = WordLevel::builder().unk_token(unknown).build().map_err(failed)?;
                let mut tokenizer = Tokenizer::new(model);
                tokenizer.with_pre_tokenizer(Some(Whitespace));
                let trainer = WordLevelTrainer::builder()
                    .vocab_size(config.size)
                    .min_frequency(config.min_frequency)
                    .special_tokens(special)
                    .show_progress(false)
                    .build()
                    .map_err(failed)?;
                (tokenizer, trainer.into())
            }
            Tokens::Subwords => {
                let model = BPE::builder().unk_token(unknown).build().map_err(failed)?;
                let mut tokenizer = Tokenizer::new(model);
                let spaces = Metaspace::new('▁', PrependScheme::Always, true);
                let marks = Punctuation::new(SplitDelimiterBehavior::Isolated);
                let parts = Sequence::new(vec![spaces.clone().into(), marks.into()]);
                tokenizer.with_pre_tokenizer(Some(parts));
                tokenizer.with_decoder(Some(spaces));
                let trainer = BpeTrainer::builder()
                    .vocab_size(config.size)
                    .min_frequency(config.min_frequency)
                    .special_tokens(special)
                    .show_progress(false)
                    .build();
                (tokenizer, trainer.into())
            }
        };
        let normalizers =
            if config.lowercase { vec![NFC.into(), Lowercase.into()] } else { vec![NFC.into()] };
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(failed)?;
        tokenizer.set_encode_special_tokens(true);
        let sentences: Vec<String> =
            sentences.into_iter().map(|sentence| one_space(sentence.as_ref())).collect();
        tokenizer.train(&mut trainer, sentences.iter()).map_err(failed)?;
        let len = tokenizer.get_vocab_size(true);
        if len > config.size {
            return Err(TextError::VocabularySize { size: config.size, least: len });
        }
        Ok(Self { tokenizer, len })
    }

    /// The number of tokens, at least the four special ones.
    ///
    /// Example: [`Vocabulary`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tokens; always false.
    ///
    /// Example: [`Vocabulary`].
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The token with this id. Parts that begin a word have `▁` in front.
    ///
    /// Example: [`Vocabulary`].
    pub fn token(&self, id: usize) -> Option<String> {
        self.tokenizer.id_to_token(u32::try_from(id).ok()?)
    }

    /// The id of a token.
    ///
    /// Example: [`Vocabulary`].
    pub fn id(&self, token: &str) -> Option<usize> {
        self.tokenizer.token_to_id(token).map(|id| id as usize)
    }

    /// The ids of a sentence, without `<bos>` and `<eos>`.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the tokenizer refuses.
    ///
    /// Example: [`Vocabulary`].
    pub fn encode(&self, sentence: &str) -> Result<Vec<usize>, TextError> {
        let encoding = self.tokenizer.encode_fast(one_space(sentence), false).map_err(failed)?;
        Ok(encoding.get_ids().iter().map(|&id| id as usize).collect())
    }

    /// The sentence that these ids stand for, without `<pad>`, `<bos>` and `<eos>`. From words,
    /// it has a space between all tokens, punctuation marks too; from parts, it is written as
    /// usual.
    ///
    /// # Errors
    /// [`TextError::Id`] when an id names no token, [`TextError::Tokenizer`] when the tokenizer
    /// refuses.
    ///
    /// Example: [`Vocabulary`].
    pub fn decode(&self, ids: &[usize]) -> Result<String, TextError> {
        let mut plain = Vec::with_capacity(ids.len());
        for &id in ids {
            if id >= self.len {
                return Err(TextError::Id { id, len: self.len });
            }
            if ![PAD, BOS, EOS].contains(&id) {
                plain.extend(u32::try_from(id));
            }
        }
        self.tokenizer.decode(&plain, false).map_err(failed)
    }
}

/// The words and runs of punctuation marks of a sentence, as [`Tokens::Words`] sees them.
///
/// # Errors
/// [`TextError::Tokenizer`] when the tokenizer refuses.
///
/// ```
/// assert_eq!(tlr_models::data::text::words("A dog's toy.")?, ["A", "dog", "'", "s", "toy", "."]);
/// # Ok::<(), tlr_models::data::text::TextError>(())
/// ```
pub fn words(sentence: &str) -> Result<Vec<String>, TextError> {
    let mut text = PreTokenizedString::from(sentence);
    Whitespace.pre_tokenize(&mut text).map_err(failed)?;
    let splits = text.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(splits.into_iter().map(|(word, ..)| word.to_owned()).collect())
}

fn one_space(sentence: &str) -> String {
    sentence.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TextError {
    TextError::Tokenizer { source: source.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SENTENCES: [&str; 4] =
        ["Der Hund sieht den Ball.", "Der Hund sieht ihn.", "Ein Mann sieht den Mann.", "Männer!"];

    fn config(tokens: Tokens, size: usize, min_frequency: u64) -> VocabularyConfig {
        VocabularyConfig { tokens, size, min_frequency, lowercase: false }
    }

    fn tokens(vocabulary: &Vocabulary) -> Vec<String> {
        (0..vocabulary.len()).map(|id| vocabulary.token(id).unwrap()).collect()
    }

    #[test]
    fn words_are_ordered_by_frequency_after_the_special_tokens() {
        let words = Vocabulary::learn(SENTENCES, config(Tokens::Words, 100, 2)).unwrap();
        // Three times: "." and "sieht"; twice the others.
        let expected =
            ["<unk>", "<pad>", "<bos>", "<eos>", ".", "sieht", "Der", "Hund", "Mann", "den"];
        assert_eq!(tokens(&words), expected);
        assert_eq!([UNK, PAD, BOS, EOS], [0, 1, 2, 3]);
        assert_eq!(words.id("sieht"), Some(5));
        assert_eq!((words.id("Ball"), words.token(10)), (None, None));
        let seven = Vocabulary::learn(SENTENCES, config(Tokens::Words, 7, 2)).unwrap();
        assert_eq!(tokens(&seven), expected[..7]);
        let all = Vocabulary::learn(SENTENCES, config(Tokens::Words, 100, 1)).unwrap();
        assert_eq!(all.len(), 15);
    }

    #[test]
    fn unknown_words_become_unk() {
        let words = Vocabulary::learn(SENTENCES, config(Tokens::Words, 100, 2)).unwrap();
        let ids = words.encode("Der  Vogel\tsieht den Hund.").unwrap();
        assert_eq!(ids, [6, UNK, 5, 9, 7, 4]);
        assert_eq!(words.decode(&ids).unwrap(), "Der <unk> sieht den Hund .");
        assert_eq!(words.encode("").unwrap(), [0; 0]);
    }

    #[test]
    fn parts_of_words_come_back_as_they_were() {
        let parts = Vocabulary::learn(SENTENCES, config(Tokens::Subwords, 60, 1)).unwrap();
        assert!(parts.len() <= 60);
        assert_eq!(tokens(&parts)[..4], SPECIAL);
        for sentence in SENTENCES.iter().copied().chain(["Hunde! sehn dünn.", "Den Ball."]) {
            let known = !sentence.contains('ü');
            let ids = parts.encode(sentence).unwrap();
            assert_eq!(!ids.contains(&UNK), known, "{sentence}");
            if known {
                assert_eq!(parts.decode(&ids).unwrap(), sentence);
            }
        }
        // Joined parts make it shorter than letters.
        assert!(parts.encode("Der Hund sieht").unwrap().len() < 8);
    }

    #[test]
    fn learning_is_repeatable() {
        let text: Vec<String> = (0..500)
            .map(|i| format!("w{} x{} äb{} cd{}", i % 7, i % 11, i % 13, i * i % 17))
            .collect();
        for kind in [Tokens::Words, Tokens::Subwords] {
            let learn = || tokens(&Vocabulary::learn(&text, config(kind, 45, 2)).unwrap());
            let first = learn();
            for _ in 0..5 {
                assert_eq!(learn(), first);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever a file holds, its ids are in the vocabulary and can be turned back.
        #[test]
        fn any_text_can_be_encoded(sentence in ".*", learned in ".*") {
            for kind in [Tokens::Words, Tokens::Subwords] {
                let vocabulary = Vocabulary::learn([&learned], config(kind, 100_000, 1)).unwrap();
                for text in [&sentence, &learned] {
                    let ids = vocabulary.encode(text).unwrap();
                    prop_assert!(ids.iter().all(|id| *id < vocabulary.len()));
                    vocabulary.decode(&ids).unwrap();
                }
                let ids = vocabulary.encode(&learned).unwrap();
                prop_assert!(!ids.contains(&UNK));
                words(&sentence).unwrap();
            }
        }
    }

    #[test]
    fn special_names_in_a_text_are_text() {
        for kind in [Tokens::Words, Tokens::Subwords] {
            let text = ["a <pad> b <eos> c < > pad eos", "a <pad> b <eos> c < > pad eos"];
            let vocabulary = Vocabulary::learn(text, config(kind, 100, 1)).unwrap();
            let ids = vocabulary.encode("a <pad> b <eos>").unwrap();
            assert!(ids.iter().all(|id| *id > EOS), "{kind:?}: {ids:?}");
        }
    }

    #[test]
    fn framing_is_left_out_of_sentences() {
        let words = Vocabulary::learn(SENTENCES, config(Tokens::Words, 100, 2)).unwrap();
        assert_eq!(words.decode(&[BOS, 6, 7, EOS, PAD, PAD]).unwrap(), "Der Hund");
        let error = words.decode(&[6, 10]).unwrap_err();
        assert!(matches!(error, TextError::Id { id: 10, len: 10 }), "{error}");
        assert!(words.decode(&[usize::MAX]).is_err());
    }

    #[test]
    fn capitals_and_accents_are_normalised() {
        let lower = VocabularyConfig { lowercase: true, ..config(Tokens::Words, 100, 2) };
        let lower = Vocabulary::learn(SENTENCES, lower).unwrap();
        assert_eq!(lower.encode("DER hund").unwrap(), lower.encode("der Hund").unwrap());
        assert!(!lower.encode("DER hund").unwrap().contains(&UNK));
        // A letter with its accent apart.
        let all = Vocabulary::learn(SENTENCES, config(Tokens::Words, 100, 1)).unwrap();
        assert_eq!(all.encode("Ma\u{308}nner").unwrap(), [all.id("Männer").unwrap()]);
    }

    #[test]
    fn sizes_too_small_are_refused() {
        for kind in [Tokens::Words, Tokens::Subwords] {
            for size in [0, 4] {
                let error = Vocabulary::learn(SENTENCES, config(kind, size, 1)).unwrap_err();
                assert!(matches!(error, TextError::VocabularySize { least: 5, .. }), "{error}");
            }
        }
        let error = Vocabulary::learn(SENTENCES, config(Tokens::Subwords, 10, 1)).unwrap_err();
        let TextError::VocabularySize { size: 10, least } = error else { unreachable!("{error}") };
        let fits = Vocabulary::learn(SENTENCES, config(Tokens::Subwords, least, 1)).unwrap();
        assert_eq!(fits.len(), least);
    }
}
