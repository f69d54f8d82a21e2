//! Finds the pictures of a folder that cannot be decoded, before training does.

use rayon::prelude::*;

use super::{decode::decode, Folder, Pictures};
use crate::data::{DataError, Needed};

impl Folder {
    /// Decodes every picture once and leaves out those that cannot be: files that are damaged or
    /// cut off, links to nothing, folders called like a picture. The second value says which
    /// pictures were left out, and why.
    ///
    /// It takes as long as the decoding of an epoch, on the threads of rayon's pool. `tell` is
    /// called after each picture.
    ///
    /// # Errors
    /// [`DataError::NoneSound`] when no picture is left of a class to train on, or none to test on.
    ///
    /// ```
    /// use tlr_models::data::folder::{self, Folder};
    ///
    /// let dir = tempfile::tempdir()?;
    /// folder::write_drawn(dir.path(), 7, 6, 2, 2, 20)?;
    /// std::fs::write(dir.path().join("train/00-disc/cut.jpg"), b"\xff\xd8\xff")?;
    ///
    /// let (folder, broken) = Folder::open(dir.path())?.without_broken(|| {})?;
    /// assert_eq!((folder.train.len(), broken.len()), (6, 1));
    /// assert!(broken[0].to_string().contains("cut.jpg"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn without_broken(
        self,
        tell: impl Fn() + Sync,
    ) -> Result<(Self, Vec<DataError>), DataError> {
        let (train, mut broken) = sound(&self.train, &tell);
        let (val, more) = sound(&self.val, &tell);
        broken.extend(more);
        for (label, class) in train.classes.iter().enumerate() {
            // Sorted by label.
            if train.files.binary_search_by_key(&label, |(_, label)| *label).is_err() {
                return Err(DataError::NoneSound(Needed::OfClass(class.clone())));
            }
        }
        if val.is_empty() {
            return Err(DataError::NoneSound(Needed::ToTestOn));
        }
        Ok((Self { train, val, ..self }, broken))
    }
}

fn sound(pictures: &Pictures, tell: &(impl Fn() + Sync)) -> (Pictures, Vec<DataError>) {
    let results: Vec<_> = pictures
        .files
        .par_iter()
        .map(|file| {
            let decoded = decode(&file.0);
            tell();
            decoded.map(|_| file.clone())
        })
        .collect();
    let (mut files, mut broken) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(file) => files.push(file),
            Err(error) => broken.push(error),
        }
    }
    (Pictures { files: files.into(), classes: pictures.classes.clone() }, broken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tempfile::TempDir;

    use super::*;
    use crate::data::folder::write_drawn;

    /// Three pictures to train on for each of two classes, and two to test on.
    fn drawn() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        write_drawn(dir.path(), 1, 6, 2, 2, 16).unwrap();
        dir
    }

    fn cut(path: &Path) {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }

    #[test]
    fn what_cannot_be_decoded_is_left_out_and_named() {
        let dir = drawn();
        let disc = dir.path().join("train/00-disc");
        cut(&disc.join("000002.png"));
        std::fs::create_dir(disc.join("folder.png")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere", disc.join("link.jpg")).unwrap();
        std::fs::write(dir.path().join("val/01-ring/text.webp"), b"no picture").unwrap();

        let told = AtomicUsize::new(0);
        let folder = Folder::open(dir.path()).unwrap();
        let all = folder.train.len() + folder.val.len();
        let tell = || {
            told.fetch_add(1, Ordering::Relaxed);
        };
        let (left, broken) = folder.without_broken(tell).unwrap();
        assert_eq!(told.into_inner(), all);
        let labels: Vec<usize> =
            (0..left.train.len()).map(|i| left.train.get(i).unwrap().1).collect();
        assert_eq!((labels, left.val.len()), (vec![0, 0, 1, 1, 1], 2));
        let names = ["000002.png", "folder.png", "link.jpg", "text.webp"];
        let names = names.iter().filter(|name| cfg!(unix) || **name != "link.jpg");
        for (error, name) in broken.iter().zip(names) {
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
        assert_eq!(broken.len(), all - left.train.len() - left.val.len());

        let again = left.clone().without_broken(|| {}).unwrap();
        assert_eq!((again.0.train.len(), again.1.len()), (5, 0));
    }

    #[test]
    fn a_class_or_a_half_without_a_sound_picture_is_an_error() {
        let class = Needed::OfClass("01-ring".to_owned());
        for (half, needed) in [("train/01-ring", class), ("val", Needed::ToTestOn)] {
            let dir = drawn();
            let files = Folder::open(dir.path()).unwrap();
            for pictures in [&files.train, &files.val] {
                for (path, _) in (0..pictures.len()).filter_map(|i| pictures.get(i)) {
                    if path.starts_with(dir.path().join(half)) {
                        cut(path);
                    }
                }
            }
            let error = files.without_broken(|| {}).unwrap_err();
            assert!(matches!(&error, DataError::NoneSound(of) if *of == needed), "{error}");
        }
    }
}
