//! The MNIST handwritten digits, from files or from a mirror.

#[cfg(feature = "download")]
mod download;

#[cfg(feature = "download")]
pub use download::{download, DEFAULT_BASE_URL};

use std::path::{Path, PathBuf};

use super::{contents, idx, DataError, Dataset, Images};

/// What to do about a missing file.
const HELP: &str = "put the four MNIST files there, or fetch them: `mnist --download` does, and \
                    `tlr_models::data::mnist::download`";

const SIDE: usize = 28;
const CLASSES: usize = 10;

/// The files of a set.
const NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Reads the four MNIST files in `dir`: 28x28 pixels, ten classes; 60,000 images to train on and
/// 10,000 to test on in the original set.
///
/// A file may be plain or end in `.gz`, and may be spelt with a dash or a dot before `idx`
/// (`train-images-idx3-ubyte`, `train-images.idx3-ubyte`). Sets in the same format, such as
/// Fashion-MNIST, load too.
///
/// # Errors
/// [`DataError::Missing`] when a file is not there, the errors of [`idx::read_images`],
/// [`DataError::Size`] when images are not 28x28, [`DataError::Count`] when there are more images
/// than labels or fewer, and [`DataError::Contents`] when a label is 10 or more.
///
/// # Example
/// ```no_run
/// use tlr_models::data::mnist;
///
/// let data = mnist::load("mnist".as_ref())?;
/// assert_eq!(data.train.shape(), [1, 28, 28]);
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
pub fn load(dir: &Path) -> Result<Dataset, DataError> {
    let [train_images, train_labels, test_images, test_labels] = NAMES;
    Dataset::new(
        load_split(dir, train_images, train_labels)?,
        load_split(dir, test_images, test_labels)?,
    )
}

fn load_split(dir: &Path, images: &'static str, labels: &'static str) -> Result<Images, DataError> {
    let images_path = find(dir, images)?;
    let labels_path = find(dir, labels)?;
    let images = idx::read_images(&images_path)?;
    let labels = idx::read_labels(&labels_path)?;
    if (images.rows, images.columns) != (SIDE, SIDE) {
        return Err(DataError::Size {
            path: images_path,
            rows: images.rows,
            columns: images.columns,
        });
    }
    if images.count != labels.len() {
        return Err(DataError::Count {
            images_path,
            labels_path,
            images: images.count,
            labels: labels.len(),
        });
    }
    // Sizes and counts are right by now: what remains is a label that names no class.
    Images::new(images.pixels, labels, [1, SIDE, SIDE], CLASSES)
        .map_err(|source| DataError::Contents { path: labels_path, source: Box::new(source) })
}

fn find(dir: &Path, name: &'static str) -> Result<PathBuf, DataError> {
    let dotted = name.replace("-idx", ".idx");
    [name, &dotted]
        .iter()
        .flat_map(|name| [dir.join(name), dir.join(format!("{name}.gz"))])
        .find(|path| path.is_file())
        .ok_or_else(|| contents::missing(dir, name, HELP))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use flate2::{write::GzEncoder, Compression};
    use tempfile::TempDir;

    use super::*;

    fn images(count: u32, rows: u32, columns: u32) -> Vec<u8> {
        let mut bytes = 0x803_u32.to_be_bytes().to_vec();
        for d in [count, rows, columns] {
            bytes.extend(d.to_be_bytes());
        }
        bytes.extend((0..count * rows * columns).map(|i| i as u8));
        bytes
    }

    fn labels(labels: &[u8]) -> Vec<u8> {
        let mut bytes = 0x801_u32.to_be_bytes().to_vec();
        bytes.extend((labels.len() as u32).to_be_bytes());
        bytes.extend(labels);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A directory with three training and two test images.
    fn small() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("train-images-idx3-ubyte", images(3, 28, 28)),
            ("train-labels.idx1-ubyte", labels(&[1, 9, 0])),
            ("t10k-images-idx3-ubyte.gz", gzip(&images(2, 28, 28))),
            ("t10k-labels.idx1-ubyte.gz", gzip(&labels(&[3, 4]))),
        ] {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    #[test]
    fn every_spelling_loads() {
        let dir = small();
        let data = load(dir.path()).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (3, 2));
        assert_eq!((data.train.rows(), data.train.columns()), (28, 28));
        assert_eq!(data.train.classes(), 10);
        assert_eq!(data.train.label(1).unwrap(), 9);
        assert_eq!(data.test.label(1).unwrap(), 4);
        assert_eq!(data.train.pixels_of(1).unwrap()[0], (28 * 28) as u8);
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = small();
        std::fs::remove_file(dir.path().join("t10k-labels.idx1-ubyte.gz")).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(
            matches!(&error, DataError::Missing { name, .. } if name == "t10k-labels-idx1-ubyte")
        );
        assert!(error.to_string().contains("download"), "{error}");
    }

    #[test]
    fn counts_sizes_and_labels_are_checked() {
        let dir = small();
        let labels_path = dir.path().join("train-labels.idx1-ubyte");
        std::fs::write(&labels_path, labels(&[1, 2])).unwrap();
        assert!(matches!(load(dir.path()), Err(DataError::Count { images: 3, labels: 2, .. })));
        std::fs::write(&labels_path, labels(&[1, 10, 2])).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{}: image 1 has label 10, but labels must lie in 0..10",
                labels_path.display()
            )
        );
        std::fs::write(dir.path().join("train-images-idx3-ubyte"), images(3, 28, 27)).unwrap();
        assert!(matches!(load(dir.path()), Err(DataError::Size { rows: 28, columns: 27, .. })));
    }

    #[test]
    fn the_original_files_load() {
        let dir = crate::needs::shared("data/mnist");
        if !crate::needs::found("mnist", dir.is_dir()) {
            return;
        }
        let data = load(&dir).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (60_000, 10_000));
        assert_eq!([0, 1, 2].map(|i| data.train.label(i).unwrap()), [5, 0, 4]);
    }
}
