//! Folders of pictures, laid out as ImageNet is, read while training.
//!
//! `train/<class>/` and `val/<class>/` hold the pictures, JPEG or PNG. Nothing is read before it is
//! needed: [`Pictures::batches`] decodes, cuts, scales and normalises on threads of its own, a fixed
//! number of batches ahead.
//!
//! ```
//! use tlr_models::data::{folder::{self, Folder, Loader, Preparation, View}, Batches};
//!
//! let dir = tempfile::tempdir()?;
//! folder::write_drawn(dir.path(), 7, 12, 4, 3, 40)?;
//!
//! let data = Folder::open(dir.path())?;
//! let (prepare, loader) = (Preparation::square(32), Loader::default());
//! let batches = Batches::new(data.train.len(), 8, 7)?;
//! for epoch in 0..2 {
//!     let view = View::Random { seed: 7, epoch };
//!     for batch in data.train.batches(batches.epoch(epoch), &prepare, view, loader)? {
//!         let batch = batch?;
//!         assert_eq!(batch.pixels.len(), batch.labels.len() * 3 * 32 * 32);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod drawn;
mod loader;
mod prepare;

pub use drawn::write_drawn;
pub use loader::{Loader, PictureBatch, PictureBatches};
pub use prepare::{Preparation, View, IMAGENET_DEVIATION, IMAGENET_MEAN};

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::DataError;

/// A folder with pictures to train on and to test on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Folder {
    /// The pictures of `train/`.
    pub train: Pictures,
    /// The pictures of `val/`, never trained on.
    pub val: Pictures,
}

impl Folder {
    /// Lists `dir/train/<class>/` and `dir/val/<class>/` without opening a picture.
    ///
    /// The classes are the folders in `train`, sorted by name; `val` may lack some of them. Files
    /// ending in `.jpg`, `.jpeg` or `.png`, in capitals too, count as pictures, others and names
    /// with a dot in front are passed over.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] when a folder cannot be listed, [`DataError::NoPictures`] for a class in
    /// `train` or a whole half without any, [`DataError::UnknownClass`] for a class only in `val`.
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        let (train, val) = (dir.join("train"), dir.join("val"));
        let classes = list(&train, |path| path.is_dir())?;
        if classes.is_empty() {
            return Err(DataError::NoPictures { dir: train });
        }
        let names: Arc<[String]> =
            classes.iter().map(|name| name.to_string_lossy().into_owned()).collect();

        let mut half = Vec::new();
        for (label, class) in classes.iter().enumerate() {
            let before = half.len();
            add_pictures(&train.join(class), label, &mut half)?;
            if half.len() == before {
                return Err(DataError::NoPictures { dir: train.join(class) });
            }
        }
        let train = Pictures { files: half.into(), classes: Arc::clone(&names) };

        let mut half = Vec::new();
        for class in list(&val, |path| path.is_dir())? {
            let Ok(label) = classes.binary_search(&class) else {
                return Err(DataError::UnknownClass { dir: val.join(class) });
            };
            add_pictures(&val.join(class), label, &mut half)?;
        }
        if half.is_empty() {
            return Err(DataError::NoPictures { dir: val });
        }
        Ok(Self { train, val: Pictures { files: half.into(), classes: names } })
    }
}

/// The pictures of one half of a [`Folder`], sorted by class and then by name.
///
/// Cloning is cheap: the list is shared.
#[derive(Clone, Debug)]
pub struct Pictures {
    files: Arc<[(PathBuf, usize)]>,
    classes: Arc<[String]>,
}

impl Pictures {
    /// The number of pictures, at least one.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are no pictures; always false, since [`Folder::open`] refuses an empty half.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The names of the classes, sorted; a label is a position in this list.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The file and the label of picture `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<(&Path, usize)> {
        self.files.get(index).map(|(path, label)| (path.as_path(), *label))
    }

    /// The file and the label of picture `index`.
    fn entry(&self, index: usize) -> Result<(&Path, usize), DataError> {
        self.get(index).ok_or(DataError::Index { index, len: self.len() })
    }
}

/// The sorted names in `dir` that are `wanted`, without hidden ones.
fn list(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<OsString>, DataError> {
    let failed = |source| DataError::Io { action: "list", path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && wanted(&entry.path()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn add_pictures(
    dir: &Path,
    label: usize,
    files: &mut Vec<(PathBuf, usize)>,
) -> Result<(), DataError> {
    let is_picture = |path: &Path| {
        let ending = path.extension().unwrap_or_default();
        ["jpg", "jpeg", "png"].iter().any(|known| ending.eq_ignore_ascii_case(known))
    };
    files.extend(list(dir, is_picture)?.into_iter().map(|name| (dir.join(name), label)));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::TempDir;

    use super::*;

    /// A folder with these (empty) files.
    fn folder(files: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, []).unwrap();
        }
        dir
    }

    #[test]
    fn classes_and_pictures_are_sorted_and_others_passed_over() {
        let dir = folder(&[
            "train/zebra/2.JPEG",
            "train/zebra/1.jpg",
            "train/zebra/notes.txt",
            "train/ant/x.PNG",
            "train/.cache/y.png",
            "train/readme.png",
            "val/zebra/v.png",
            "val/zebra/.hidden.png",
        ]);
        let data = Folder::open(dir.path()).unwrap();
        assert_eq!(data.train.classes(), ["ant", "zebra"]);
        let entries = |pictures: &Pictures| -> Vec<(String, usize)> {
            (0..pictures.len())
                .map(|i| pictures.get(i).unwrap())
                .map(|(path, label)| (path.file_name().unwrap().to_str().unwrap().into(), label))
                .collect()
        };
        let expected = [("x.PNG", 0), ("1.jpg", 1), ("2.JPEG", 1)];
        assert_eq!(entries(&data.train), expected.map(|(name, label)| (name.to_owned(), label)));
        assert_eq!(entries(&data.val), [("v.png".to_owned(), 1)]);
        assert_eq!(data.val.classes(), data.train.classes());
        assert!(data.train.get(3).is_none());
    }

    #[test]
    fn folders_that_lack_something_are_refused() {
        let error = |files: &[&str]| Folder::open(folder(files).path()).unwrap_err();
        assert!(matches!(error(&[]), DataError::Io { action: "list", path, .. }
            if path.ends_with("train")));
        assert!(matches!(error(&["train/a/1.png"]), DataError::Io { path, .. }
            if path.ends_with("val")));
        assert!(matches!(error(&["train/1.png", "val/a/1.png"]), DataError::NoPictures { dir }
            if dir.ends_with("train")));
        let files = ["train/a/1.png", "train/b/1.txt", "val/a/1.png"];
        assert!(matches!(error(&files), DataError::NoPictures { dir } if dir.ends_with("train/b")));
        let files = ["train/a/1.png", "val/a/1.txt"];
        assert!(matches!(error(&files), DataError::NoPictures { dir } if dir.ends_with("val")));
        let files = ["train/a/1.png", "val/b/1.png"];
        assert!(matches!(error(&files), DataError::UnknownClass { dir } if dir.ends_with("val/b")));
    }
}
