//! Multi30k, captions of photographs in German and English.

use std::path::Path;

use super::{ParallelText, TextError, Translation};
use crate::data::contents::{self, plain_or_gzip};

/// Reads Multi30k's first task from `dir`, German to English ([`Translation::swap`] turns it
/// round): `train.de`, `train.en`, `val.de`, `val.en`, `test_2016_flickr.de` and
/// `test_2016_flickr.en`, each plain or ending in `.gz`. The original has 29,000, 1,014 and 1,000
/// pairs of raw text, neither tokenised nor lowercased.
///
/// # Errors
/// [`TextError::File`] with [`DataError::Missing`](crate::data::DataError::Missing) when a file is
/// not there, and the errors of [`ParallelText::read`].
///
/// # Example
/// ```no_run
/// let text = tlr_models::data::text::multi30k::load("multi30k".as_ref())?;
/// assert_eq!(text.train.source().len(), text.train.target().len());
/// # Ok::<(), tlr_models::data::text::TextError>(())
/// ```
pub fn load(dir: &Path) -> Result<Translation, TextError> {
    Ok(Translation {
        train: read(dir, "train")?,
        val: read(dir, "val")?,
        test: read(dir, "test_2016_flickr")?,
    })
}

fn read(dir: &Path, half: &str) -> Result<ParallelText, TextError> {
    let find = |language: &str| {
        let name = format!("{half}.{language}");
        let help = "put the files of Multi30k's first task there, raw text";
        plain_or_gzip(dir, &name).ok_or_else(|| contents::missing(dir, &name, help))
    };
    ParallelText::read(&find("de")?, &find("en")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::text::{Buckets, EncodedPairs, Tokens, Vocabulary, VocabularyConfig};
    use crate::data::DataError;

    #[test]
    fn each_file_has_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let halves = ["train", "val", "test_2016_flickr"];
        for half in halves {
            for language in ["de", "en"] {
                let name = format!("{half}.{language}");
                std::fs::write(dir.path().join(&name), format!("{name}\n")).unwrap();
            }
        }
        let data = load(dir.path()).unwrap();
        let expected = |half: &str| (format!("{half}.de"), format!("{half}.en"));
        for (text, half) in [&data.train, &data.val, &data.test].into_iter().zip(halves) {
            assert_eq!((text.source()[0].clone(), text.target()[0].clone()), expected(half));
        }
        assert_eq!(data.swap().val.source(), ["val.en"]);

        std::fs::remove_file(dir.path().join("val.en")).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(
            matches!(&error, TextError::File(DataError::Missing { name, .. }) if name == "val.en"),
            "{error}"
        );
    }

    #[test]
    fn the_real_files_load_and_round_trip() {
        let dir = crate::needs::shared("data/multi30k");
        if !crate::needs::found("multi30k", dir.is_dir()) {
            return;
        }
        let data = load(&dir).unwrap();
        assert_eq!([data.train.len(), data.val.len(), data.test.len()], [29_000, 1014, 1000]);
        assert_eq!(data.train.target()[0], "Two young, White males are outside near many bushes.");
        let config =
            VocabularyConfig { tokens: Tokens::Subwords, size: 4000, ..Default::default() };
        let [german, english] = [data.train.source(), data.train.target()]
            .map(|text| Vocabulary::learn(text, config).unwrap());
        assert_eq!((german.len(), english.len()), (4000, 4000));
        // Whatever is made of known letters comes back as it was, but for runs of spaces.
        for (text, vocabulary) in [(data.test.source(), &german), (data.test.target(), &english)] {
            let back = |s: &str| vocabulary.decode(&vocabulary.encode(s).unwrap()).unwrap();
            let same = text.iter().filter(|s| {
                let spaced: Vec<&str> = s.split_whitespace().collect();
                back(s) == spaced.join(" ")
            });
            let same = same.count();
            assert!(same >= 995, "{same}");
        }
        let pairs = EncodedPairs::new(&data.test, &german, &english).unwrap();
        let (mut ids, mut padded) = (0, 0);
        for indices in Buckets::new(&pairs, 50, 1).unwrap().epoch(0) {
            let batch = pairs.batch(&indices).unwrap();
            padded += batch.target.ids.len();
            ids += batch.target.lengths.iter().sum::<usize>();
        }
        // Without buckets it is 1.8 and more.
        assert!((padded as f64) < 1.1 * ids as f64, "{padded} {ids}");
    }
}
