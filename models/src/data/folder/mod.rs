//! Folders of pictures, laid out as ImageNet is, read while training.
//!
//! `train/<class>/` and `val/<class>/` hold the pictures: JPEG, PNG, WebP, BMP or PNM. Nothing is
//! read before it is needed: [`Pictures::batches`] decodes, cuts, scales and normalises on threads
//! of its own, a fixed number of batches ahead. [`Folder::without_broken`] reads all of it once, to
//! find what cannot be decoded before training does.
//!
//! ```
//! use tlr_models::data::{folder::{self, Folder, Loader, Preparation, Crop}, Batches};
//!
//! let dir = tempfile::tempdir()?;
//! folder::write_drawn(dir.path(), 7, 12, 4, 3, 40)?;
//!
//! let data = Folder::open(dir.path())?;
//! let (prepare, loader) = (Preparation::square(32), Loader::default());
//! let batches = Batches::new(data.train.len(), 8, 7)?;
//! for epoch in 0..2 {
//!     let crop = Crop::Random { seed: 7, epoch };
//!     for batch in data.train.batches(batches.epoch(epoch), &prepare, crop, loader)? {
//!         let batch = batch?;
//!         assert_eq!(batch.pixels.len(), batch.labels.len() * 3 * 32 * 32);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod decode;
mod drawn;
mod edges;
mod jpeg;
mod list;
mod loader;
mod png;
mod preparation;
mod prepare;
mod sound;

pub use drawn::write_drawn;
pub use list::PassedOver;
pub use loader::{Loader, PictureBatch, PictureBatches};
pub use preparation::{Preparation, IMAGENET_DEVIATION, IMAGENET_MEAN};
pub use prepare::Crop;

use std::{
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
    /// The files in both that are no pictures.
    pub passed_over: PassedOver,
}

impl Folder {
    /// Lists `dir/train/<class>/` and `dir/val/<class>/` without opening a picture.
    ///
    /// The classes are the folders in `train`, sorted by name; `val` may lack some of them. A
    /// class's pictures may lie in folders below its own. What ends in `.jpg`, `.jpeg`, `.jpe`,
    /// `.jfif`, `.png`, `.webp`, `.bmp`, `.pnm`, `.ppm`, `.pgm` or `.pbm`, in capitals too, counts
    /// as a picture, and others are [passed over](Self::passed_over). Of Tiny ImageNet, `val` is
    /// taken as it comes: one folder, `images`, and the list `val_annotations.txt`.
    ///
    /// # Errors
    /// [`DataError::Io`] when a folder cannot be listed, [`DataError::NoPictures`] for a class in
    /// `train` or a whole half without any, [`DataError::UnknownClass`] for a class only in `val`,
    /// [`DataError::Annotation`] for a list that is none.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::folder::{write_drawn, Folder};
    ///
    /// let dir = std::env::temp_dir().join("tlr-doc-pictures");
    /// write_drawn(&dir, 7, 4, 2, 2, 16)?; // seed, to train on, to test on, classes, side
    /// let folder = Folder::open(&dir)?;
    /// assert_eq!((folder.train.len(), folder.val.len()), (4, 2));
    /// assert_eq!(folder.train.classes().len(), 2);
    /// assert_eq!((folder.train.is_empty(), folder.passed_over.is_empty()), (false, true));
    /// assert_eq!(folder.passed_over.len(), 0);
    /// let (file, label) = folder.train.get(0).expect("the first of four");
    /// assert!(file.is_file() && label == 0);
    /// # Ok::<(), tlr_models::data::DataError>(())
    /// ```
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        let mut passed_over = PassedOver::default();
        let (classes, files) = list::train(&dir.join("train"), &mut passed_over)?;
        let names: Arc<[String]> =
            classes.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let train = Pictures { files: files.into(), classes: Arc::clone(&names) };
        let files = list::val(&dir.join("val"), &classes, &mut passed_over)?;
        Ok(Self { train, val: Pictures { files: files.into(), classes: names }, passed_over })
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
    ///
    /// Example: [`Folder::open`].
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are no pictures; always false, since [`Folder::open`] refuses an empty half.
    ///
    /// Example: [`Folder::open`].
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The names of the classes, sorted; a label is a position in this list.
    ///
    /// Example: [`Folder::open`].
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The file and the label of picture `index`, if there is one.
    ///
    /// Example: [`Folder::open`].
    pub fn get(&self, index: usize) -> Option<(&Path, usize)> {
        self.files.get(index).map(|(path, label)| (path.as_path(), *label))
    }

    /// The file and the label of picture `index`.
    fn entry(&self, index: usize) -> Result<(&Path, usize), DataError> {
        self.get(index).ok_or(DataError::Index { index, len: self.len() })
    }
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

    /// The files below the half, and their labels.
    fn entries<'a>(pictures: &'a Pictures, half: &Path) -> Vec<(&'a str, usize)> {
        (0..pictures.len())
            .map(|index| pictures.get(index).unwrap())
            .map(|(path, label)| (path.strip_prefix(half).unwrap().to_str().unwrap(), label))
            .collect()
    }

    #[test]
    fn classes_and_pictures_are_sorted_and_others_counted() {
        let dir = folder(&[
            "train/zebra/2.JPEG",
            "train/zebra/1.jpg",
            "train/zebra/notes.txt",
            "train/zebra/3.TIF",
            "train/zebra/4.tif",
            "train/zebra/noted",
            "train/ant/x.PNG",
            "train/.cache/y.png",
            "train/__MACOSX/._y.png",
            "train/zebra/__MACOSX/z.png",
            "train/readme.png",
            "val/zebra/v.png",
            "val/zebra/w.txt",
            "val/zebra/.hidden.png",
        ]);
        let data = Folder::open(dir.path()).unwrap();
        assert_eq!(data.train.classes(), ["ant", "zebra"]);
        let expected = [("ant/x.PNG", 0), ("zebra/1.jpg", 1), ("zebra/2.JPEG", 1)];
        assert_eq!(entries(&data.train, &dir.path().join("train")), expected);
        assert_eq!(entries(&data.val, &dir.path().join("val")), [("zebra/v.png", 1)]);
        assert_eq!(data.val.classes(), data.train.classes());
        assert!(data.train.get(3).is_none());
        let others = "1 .png outside of a class, 2 .tif, 2 .txt, 1 without an ending";
        assert_eq!((data.passed_over.to_string(), data.passed_over.len()), (others.to_owned(), 6));
    }

    #[test]
    fn every_ending_counts_in_folders_of_any_depth() {
        let files = [
            "train/a/1.bmp",
            "train/a/b/2.jfif",
            "train/a/b/c/3.Jpe",
            "train/a/b/c/4.jpeg",
            "train/a/d/5.jpg",
            "train/a/d/6.pbm",
            "train/a/e/7.pgm",
            "train/a/e/8.png",
            "train/a/f/9.pnm",
            "train/a/f/g/a.PPM",
            "train/a/h.webp",
        ];
        let dir = folder(&[&files[..], &["val/a/x/1.jpg"]].concat());
        let data = Folder::open(dir.path()).unwrap();
        let found = entries(&data.train, dir.path());
        assert_eq!(found, files.map(|file| (file, 0)));
        assert_eq!((data.val.len(), data.passed_over.is_empty()), (1, true));
    }

    /// `val` as Tiny ImageNet has it.
    fn tiny(list: &str) -> (TempDir, Result<Folder, DataError>) {
        let dir = folder(&[
            "train/n01/images/n01_0.JPEG",
            "train/n01/n01_boxes.txt",
            "train/n02/images/n02_0.JPEG",
            "val/images/val_0.JPEG",
            "val/images/val_1.JPEG",
            "val/images/val_2.JPEG",
        ]);
        std::fs::write(dir.path().join("val/val_annotations.txt"), list).unwrap();
        let opened = Folder::open(dir.path());
        (dir, opened)
    }

    #[test]
    fn tiny_imagenet_is_taken_as_it_comes() {
        let (dir, opened) = tiny("val_1.JPEG\tn02\t0\t32\nval_2.JPEG\tn01\t1\t2\n");
        let data = opened.unwrap();
        let expected = [("n01/images/n01_0.JPEG", 0), ("n02/images/n02_0.JPEG", 1)];
        assert_eq!(entries(&data.train, &dir.path().join("train")), expected);
        let expected = [("images/val_2.JPEG", 0), ("images/val_1.JPEG", 1)];
        assert_eq!(entries(&data.val, &dir.path().join("val")), expected);
        assert_eq!(data.passed_over.to_string(), "1 .jpeg that the list lacks, 1 .txt");

        // Once sorted into folders, the list does not matter.
        std::fs::create_dir(dir.path().join("val/n02")).unwrap();
        let from = dir.path().join("val/images/val_0.JPEG");
        std::fs::rename(from, dir.path().join("val/n02/val_0.JPEG")).unwrap();
        let error = Folder::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataError::UnknownClass { dir } if dir.ends_with("val/images")));
        std::fs::remove_dir_all(dir.path().join("val/images")).unwrap();
        let data = Folder::open(dir.path()).unwrap();
        assert_eq!(entries(&data.val, &dir.path().join("val")), [("n02/val_0.JPEG", 1)]);
    }

    #[test]
    fn a_list_that_is_none_is_refused_by_its_line() {
        for (list, says) in [
            ("val_0.JPEG\tn01\t0\nval_1.JPEG n01 0\n", "line 2: no tab"),
            ("val_0.JPEG\tn03\t0\n", "line 1: there is no class n03"),
        ] {
            let error = tiny(list).1.unwrap_err().to_string();
            assert!(error.contains("val_annotations.txt") && error.contains(says), "{error}");
        }
        assert!(matches!(tiny("").1, Err(DataError::NoPictures { dir }) if dir.ends_with("val")));
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
