//! [`Fingerprint`]: what identifies a data set among others of the same size.

#[cfg(feature = "text")]
use super::text::ParallelText;
use super::Images;
#[cfg(feature = "pictures")]
use super::{folder::Pictures, DataError};
use std::fmt;
use xxhash_rust::xxh3::Xxh3Default;

/// How many pictures of a folder are read whole; of the others only size and name count.
#[cfg(feature = "pictures")]
const READ: usize = 1000;

/// A hash that is the same on every machine and in every version. It finds mistakes, not fraud.
#[derive(Default)]
pub(crate) struct Fingerprint(Xxh3Default);

impl Fingerprint {
    fn number(&mut self, number: usize) {
        self.0.update(&(number as u64).to_le_bytes());
    }

    /// Adds bytes with their length in front, so that no two lists give the same hash.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.update(bytes);
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.digest())
    }
}

impl Images {
    /// The number of images and a fingerprint of pixels and labels, in order.
    ///
    /// ```
    /// let [one, two] = [1, 2].map(|seed| tlr_models::data::digits::draw(seed, 9, 9));
    /// let (one, two) = (one?.train.identity(), two?.train.identity());
    /// assert!(one.starts_with("9 images, ") && one != two);
    /// # Ok::<(), tlr_models::data::DataError>(())
    /// ```
    pub fn identity(&self) -> String {
        let mut hash = Fingerprint::default();
        let [channels, rows, columns] = self.shape();
        for size in [channels, rows, columns, self.classes()] {
            hash.number(size);
        }
        let images = (0..self.len()).map(|index| (self.pixels_of(index), self.label(index)));
        for (pixels, label) in images {
            hash.add(pixels.unwrap_or_default());
            hash.number(usize::from(label.unwrap_or_default()));
        }
        format!("{} images, {hash}", self.len())
    }
}

#[cfg(feature = "text")]
impl ParallelText {
    /// The number of pairs and a fingerprint of their sentences, in order.
    ///
    /// Example: [`Images::identity`].
    pub fn identity(&self) -> String {
        let mut hash = Fingerprint::default();
        for sentence in self.source().iter().chain(self.target()) {
            hash.add(sentence.as_bytes());
        }
        format!("{} pairs, {hash}", self.len())
    }
}

#[cfg(feature = "pictures")]
impl Pictures {
    /// The number of pictures and a fingerprint of their labels, names and sizes, in order, and of
    /// the contents of a thousand that are spread evenly: of all, if there are no more.
    ///
    /// # Errors
    /// [`DataError::Io`] for a file that cannot be read.
    ///
    /// Example: [`Images::identity`].
    pub fn identity(&self) -> Result<String, DataError> {
        let mut hash = Fingerprint::default();
        let every = self.len().div_ceil(READ);
        for index in 0..self.len() {
            let Some((path, label)) = self.get(index) else { break };
            let failed = |source| DataError::Io { action: "read", path: path.to_owned(), source };
            hash.number(label);
            hash.add(path.file_name().unwrap_or_default().as_encoded_bytes());
            if index % every == 0 {
                hash.add(&std::fs::read(path).map_err(failed)?);
            } else {
                hash.number(path.metadata().map_err(failed)?.len() as usize);
            }
        }
        Ok(format!("{} pictures, {hash}", self.len()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Fails if pixels, labels, classes or the shape do not count.
    #[test]
    fn images_of_the_same_size_differ() {
        let images = |pixels: [u8; 4], labels: [u8; 2], shape, classes| {
            Images::new(pixels.into(), labels.into(), shape, classes).unwrap().identity()
        };
        let one = images([1, 2, 3, 4], [0, 1], [1, 1, 2], 2);
        assert_eq!(one, images([1, 2, 3, 4], [0, 1], [1, 1, 2], 2));
        for other in [
            images([1, 2, 3, 5], [0, 1], [1, 1, 2], 2),
            images([3, 4, 1, 2], [0, 1], [1, 1, 2], 2),
            images([1, 2, 3, 4], [1, 1], [1, 1, 2], 2),
            images([1, 2, 3, 4], [0, 1], [1, 2, 1], 2),
            images([1, 2, 3, 4], [0, 1], [1, 1, 2], 3),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    #[cfg(feature = "text")]
    fn sentences_do_not_run_into_each_other() {
        let text = |source: [&str; 2], target: [&str; 2]| {
            let owned = |words: [&str; 2]| words.map(str::to_owned).to_vec();
            ParallelText::new(owned(source), owned(target)).unwrap().identity()
        };
        let one = text(["ab", "c"], ["x", "y"]);
        assert!(one.starts_with("2 pairs, "));
        assert_ne!(one, text(["a", "bc"], ["x", "y"]));
        assert_ne!(one, text(["ab", "c"], ["y", "x"]));
    }

    // Fails if a name, a label or the contents do not count.
    #[test]
    #[cfg(feature = "pictures")]
    fn pictures_of_the_same_names_differ() {
        use crate::data::folder::{write_drawn, Folder};
        let identity = |seed, change: &dyn Fn(&std::path::Path)| {
            let dir = tempfile::tempdir().unwrap();
            write_drawn(dir.path(), seed, 6, 3, 3, 8).unwrap();
            change(dir.path());
            Folder::open(dir.path()).unwrap().train.identity().unwrap()
        };
        let one = identity(1, &|_| ());
        assert_eq!(one, identity(1, &|_| ()));
        assert!(one.starts_with("6 pictures, "));
        assert_ne!(one, identity(2, &|_| ()));
        let renamed = |dir: &std::path::Path| {
            std::fs::rename(dir.join("train/00-disc/000000.png"), dir.join("train/00-disc/9.png"))
                .unwrap();
        };
        assert_ne!(one, identity(1, &renamed));
        let moved = |dir: &std::path::Path| {
            let to = dir.join("train/01-ring/000000.png");
            std::fs::rename(dir.join("train/00-disc/000000.png"), to).unwrap();
        };
        assert_ne!(one, identity(1, &moved));
    }
}
