//! What tells one data set from another of the same size.

use super::{folder::Pictures, text::ParallelText, DataError, Images};
use sha2::{Digest, Sha256};
use std::{fs::File, io::Read};

/// Pictures of a folder whose contents are read; of the others the size and the name count.
const READ: usize = 1000;

/// The first 16 hexadecimal digits of a hash.
pub(crate) fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Adds bytes with their length in front: no two lists look the same.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
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
        let mut hash = Sha256::new();
        let [channels, rows, columns] = self.shape();
        for size in [channels, rows, columns, self.classes()] {
            hash.update((size as u64).to_le_bytes());
        }
        for index in 0..self.len() {
            hash.update(self.pixels_of(index));
            hash.update([self.label(index)]);
        }
        format!("{} images, {}", self.len(), short(hash))
    }
}

impl ParallelText {
    /// The number of pairs and a fingerprint of their sentences, in order.
    pub fn identity(&self) -> String {
        let mut hash = Sha256::new();
        for sentence in self.source().iter().chain(self.target()) {
            add(&mut hash, sentence.as_bytes());
        }
        format!("{} pairs, {}", self.len(), short(hash))
    }
}

impl Pictures {
    /// The number of pictures and a fingerprint of their labels, names and sizes, in order, and of
    /// the contents of a thousand that are spread evenly: of all, where there are no more.
    ///
    /// # Errors
    /// [`DataError::Io`] for a file that cannot be read.
    pub fn identity(&self) -> Result<String, DataError> {
        let mut hash = Sha256::new();
        let every = self.len().div_ceil(READ);
        let mut bytes = Vec::new();
        for (index, (path, label)) in self.iter().enumerate() {
            let failed = |source| DataError::Io { action: "read", path: path.to_owned(), source };
            hash.update((label as u64).to_le_bytes());
            add(&mut hash, path.file_name().unwrap_or_default().as_encoded_bytes());
            if index % every == 0 {
                bytes.clear();
                let mut file = File::open(path).map_err(failed)?;
                file.read_to_end(&mut bytes).map_err(failed)?;
                add(&mut hash, &bytes);
            } else {
                hash.update(path.metadata().map_err(failed)?.len().to_le_bytes());
            }
        }
        Ok(format!("{} pictures, {}", self.len(), short(hash)))
    }

    fn iter(&self) -> impl Iterator<Item = (&std::path::Path, usize)> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::folder::{write_drawn, Folder};

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
    fn pictures_of_the_same_names_differ() {
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
