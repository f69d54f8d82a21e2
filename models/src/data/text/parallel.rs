//! Sentences and their translations, line by line, from files.

use std::path::Path;

use super::TextError;
use crate::data::{
    contents::{Contents, MAX_BYTES},
    DataError,
};

/// Sentences and their translations, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParallelText {
    source: Vec<String>,
    target: Vec<String>,
}

impl ParallelText {
    /// Joins sentences and their translations.
    ///
    /// # Errors
    /// [`TextError::Count`] when one side has more, [`TextError::Zero`] when there are none.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::text::ParallelText;
    ///
    /// let text = ParallelText::new(vec!["Ein Hund".into()], vec!["A dog".into()])?;
    /// assert_eq!((text.len(), text.target()), (1, &["A dog".to_owned()][..]));
    /// assert!(!text.is_empty());
    /// assert_eq!(text.take(1)?.swap().source(), ["A dog"]);
    /// # Ok::<(), tlr_models::data::text::TextError>(())
    /// ```
    pub fn new(source: Vec<String>, target: Vec<String>) -> Result<Self, TextError> {
        if source.len() != target.len() {
            let (left, right) = (source.len(), target.len());
            return Err(TextError::Count { what: "sentences", left, right });
        }
        if source.is_empty() {
            return Err(TextError::Zero { what: "number of sentences" });
        }
        Ok(Self { source, target })
    }

    /// Reads two files that match line by line, each plain or compressed with gzip. Lines end in
    /// `\n` or `\r\n`; the last may end without. White space around a sentence is dropped.
    ///
    /// # Errors
    /// [`TextError::File`], [`TextError::Utf8`], [`TextError::Blank`] and [`TextError::Uneven`]
    /// name file and line; [`TextError::Zero`] when both files are empty.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::text::ParallelText;
    ///
    /// let dir = tempfile::tempdir()?;
    /// let (german, english) = (dir.path().join("de"), dir.path().join("en"));
    /// std::fs::write(&german, "Ein Hund\n")?;
    /// std::fs::write(&english, "A dog\n")?;
    /// assert_eq!(ParallelText::read(&german, &english)?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(source: &Path, target: &Path) -> Result<Self, TextError> {
        let (first, second) = (lines(source)?, lines(target)?);
        let (longer, shorter) =
            if first.len() > second.len() { (source, target) } else { (target, source) };
        if first.len() != second.len() {
            return Err(TextError::Uneven {
                longer: longer.to_owned(),
                shorter: shorter.to_owned(),
                line: first.len().min(second.len()) + 1,
            });
        }
        Self::new(first, second)
    }

    /// The number of pairs, at least one.
    ///
    /// Example: [`new`](Self::new).
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Whether there are no pairs; always false, since an empty text is refused.
    ///
    /// Example: [`new`](Self::new).
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// The sentences to translate.
    ///
    /// Example: [`new`](Self::new).
    pub fn source(&self) -> &[String] {
        &self.source
    }

    /// Their translations, in the same order.
    ///
    /// Example: [`new`](Self::new).
    pub fn target(&self) -> &[String] {
        &self.target
    }

    /// The other direction: translations become what is translated.
    ///
    /// Example: [`new`](Self::new).
    pub fn swap(self) -> Self {
        Self { source: self.target, target: self.source }
    }

    /// Keeps the first `n` pairs, or all of them when there are fewer.
    ///
    /// # Errors
    /// [`TextError::Zero`] when `n` is zero.
    ///
    /// Example: [`new`](Self::new).
    pub fn take(mut self, n: usize) -> Result<Self, TextError> {
        if n == 0 {
            return Err(TextError::Zero { what: "number of sentences to take" });
        }
        self.source.truncate(n);
        self.target.truncate(n);
        Ok(self)
    }
}

/// Sentence pairs to train on, to watch training by, and to test on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Translation {
    /// To train on.
    pub train: ParallelText,
    /// To watch training by.
    pub val: ParallelText,
    /// To test on at the end.
    pub test: ParallelText,
}

impl Translation {
    /// The other direction.
    ///
    /// # Example
    /// ```
    /// let data = tlr_models::data::text::toy::draw(0, 4, 2, 2)?;
    /// let german = data.train.source().to_vec();
    /// assert_eq!(data.swap().train.target(), german);
    /// # Ok::<(), tlr_models::data::text::TextError>(())
    /// ```
    pub fn swap(self) -> Self {
        Self { train: self.train.swap(), val: self.val.swap(), test: self.test.swap() }
    }
}

/// The lines of a file, trimmed.
fn lines(path: &Path) -> Result<Vec<String>, TextError> {
    let bytes = Contents::open(path)?.read_up_to(MAX_BYTES + 1)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(DataError::FileTooLarge { path: path.to_owned(), limit: MAX_BYTES }.into());
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let line = 1 + bytes.iter().take(offset).filter(|&&byte| byte == b'\n').count();
        TextError::Utf8 { path: path.to_owned(), line, offset }
    })?;
    // A mark that some editors put in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            return Err(TextError::Blank { path: path.to_owned(), line: index + 1 });
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use flate2::{write::GzEncoder, Compression};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(source: &[u8], target: &[u8]) -> Result<ParallelText, TextError> {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["source", "target"].map(|name| dir.path().join(name));
        std::fs::write(&a, source).unwrap();
        std::fs::write(&b, target).unwrap();
        ParallelText::read(&a, &b)
    }

    fn pairs(source: &[&str], target: &[&str]) -> ParallelText {
        let owned = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        ParallelText::new(owned(source), owned(target)).unwrap()
    }

    #[test]
    fn plain_and_compressed_lines_read_the_same() {
        let expected = pairs(&["Zwei Männer.", "Ein Hund"], &["Two men.", "A dog"]);
        let german = "Zwei Männer.\nEin Hund\n".as_bytes();
        for english in [
            &b"Two men.\nA dog\n"[..],
            b"Two men.\nA dog",
            b"Two men.\r\nA dog\r\n",
            b"\xef\xbb\xbfTwo men.\n A dog \n",
        ] {
            assert_eq!(read(german, english).unwrap(), expected);
            assert_eq!(read(&gzip(german), &gzip(english)).unwrap(), expected);
        }
    }

    #[test]
    fn the_first_line_without_a_partner_is_named() {
        for (source, target, longer) in
            [("a\nb\nc\n", "a\n", "source"), ("a\n", "a\nb\n", "target"), ("", "a", "target")]
        {
            let error = read(source.as_bytes(), target.as_bytes()).unwrap_err();
            let TextError::Uneven { longer: found, shorter, line } = error else {
                unreachable!("{error}")
            };
            assert!(found.ends_with(longer) && !shorter.ends_with(longer));
            assert_eq!(line, source.lines().count().min(target.lines().count()) + 1);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named_by_line_and_offset() {
        for source in
            [b"ab\nM\xc3\xa4nner\nx\xffy\n".to_vec(), gzip(b"ab\nM\xc3\xa4nner\nx\xffy\n")]
        {
            let error = read(&source, b"a\nb\nc\n").unwrap_err();
            assert!(
                matches!(&error, TextError::Utf8 { path, line: 3, offset: 12 }
                    if path.ends_with("source")),
                "{error}"
            );
        }
        // A letter cut in two by the end of the file.
        let error = read(b"a\n", b"M\xc3").unwrap_err();
        assert!(matches!(error, TextError::Utf8 { line: 1, offset: 1, .. }), "{error}");
    }

    #[test]
    fn blank_lines_and_empty_files_are_refused() {
        let error = read(b"a\n \nb\n", b"a\nb\nc\n").unwrap_err();
        assert!(matches!(error, TextError::Blank { line: 2, .. }), "{error}");
        assert!(matches!(read(b"", b""), Err(TextError::Zero { .. })));
        let count = ParallelText::new(vec!["a".into()], Vec::new()).unwrap_err();
        assert!(matches!(count, TextError::Count { left: 1, right: 0, .. }));
    }

    #[test]
    fn damaged_gzip_is_noticed() {
        let lines: String = (0..300).map(|i| format!("line {i} of {}\n", i * i)).collect();
        let bytes = gzip(lines.as_bytes());
        for length in (2..bytes.len()).step_by(11) {
            let error = read(&bytes[..length], lines.as_bytes()).unwrap_err();
            assert!(matches!(error, TextError::File(DataError::Gzip { .. })), "{length}: {error}");
            assert!(error.to_string().contains("source"), "{error}");
        }
        // The damage is behind the header. The data, too, has bits that carry no information.
        let intact = read(&bytes, lines.as_bytes()).unwrap();
        for at in (10..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            match read(&damaged, lines.as_bytes()) {
                Ok(text) => assert!(text == intact, "{at}"),
                Err(error) => assert!(error.to_string().contains("source"), "{at}: {error}"),
            }
        }
    }

    #[test]
    fn directions_and_beginnings() {
        let text = pairs(&["a", "b"], &["c", "d"]);
        assert_eq!(text.clone().swap(), pairs(&["c", "d"], &["a", "b"]));
        assert_eq!(text.clone().take(1).unwrap(), pairs(&["a"], &["c"]));
        assert_eq!(text.clone().take(9).unwrap(), text);
        assert!(matches!(text.take(0), Err(TextError::Zero { .. })));
    }
}
