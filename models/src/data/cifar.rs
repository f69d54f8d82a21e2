//! CIFAR-10 and CIFAR-100 from their binary files.
//!
//! A file is a sequence of records without a header: for CIFAR-10 a label byte, for CIFAR-100 a
//! coarse and a fine label byte, then 3072 bytes of 32x32 pixels, the red plane first, then the
//! green and the blue one. A file may be compressed with gzip, which is detected from its first
//! bytes and not from its name.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    contents::{self, plain_or_gzip, Contents},
    DataError, Dataset, Images,
};

/// `[channels, rows, columns]` of an image.
pub const SHAPE: [usize; 3] = [3, 32, 32];

const PIXELS: usize = 3 * 32 * 32;

/// What to do about a missing file.
const HELP: &str = "put the files of CIFAR's binary version there";

/// How the records of a file are laid out.
struct Format {
    /// The number of classes of each label byte. The last label is the one that is used.
    labels: &'static [usize],
    /// How many records a whole file has. More than these are an error.
    records: usize,
}

const CIFAR10: Format = Format { labels: &[10], records: 10_000 };
const CIFAR100_TRAIN: Format = Format { labels: &[20, 100], records: 50_000 };
const CIFAR100_TEST: Format = Format { labels: &[20, 100], records: 10_000 };

/// Images of CIFAR, and what is missing of the original.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cifar {
    /// To train and to test on.
    pub data: Dataset,
    /// The files that are missing or have fewer records than the original's.
    pub short: Vec<Short>,
}

/// A file that is missing, or ends after a whole record but before the last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Short {
    /// The file concerned.
    pub path: PathBuf,
    /// How many records it has; none if the file is missing.
    pub records: usize,
    /// How many records the original has.
    pub expected: usize,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, records, expected } = self;
        match records {
            0 => write!(f, "{} is missing: 0 of {expected} images", path.display()),
            _ => write!(f, "{} is short: {records} of {expected} images", path.display()),
        }
    }
}

/// Reads CIFAR-10 from `dir`: those of `data_batch_1.bin` to `data_batch_5.bin` that are there, in
/// this order, to train on, and `test_batch.bin` to test on, each plain or ending in `.gz`. The
/// original has 10,000 images a file, ten classes.
///
/// A part of the original can be trained on too: [`Cifar::short`] says what it lacks.
///
/// # Errors
/// [`DataError::Missing`] when there is no training file or no test file, [`DataError::Io`],
/// [`DataError::Gzip`], [`DataError::Truncated`] for a file that ends within a record or holds
/// none, [`DataError::LabelAt`] for the first label that is 10 or more, and [`DataError::Trailing`]
/// for a file of more than 10,000 records.
///
/// # Example
/// ```no_run
/// use tlr_models::data::cifar;
///
/// let cifar = cifar::load10("cifar-10-batches-bin".as_ref())?;
/// assert_eq!(cifar.data.train.shape(), [3, 32, 32]);
/// for short in &cifar.short {
///     println!("{short}");
/// }
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
pub fn load10(dir: &Path) -> Result<Cifar, DataError> {
    let (mut train, mut short) = (Vec::new(), Vec::new());
    for number in 1..=5 {
        let name = format!("data_batch_{number}.bin");
        match plain_or_gzip(dir, &name) {
            Some(path) => train.push(path),
            None => {
                let (path, expected) = (dir.join(name), CIFAR10.records);
                short.push(Short { path, records: 0, expected });
            }
        }
    }
    if train.is_empty() {
        return Err(missing(dir, "data_batch_1.bin"));
    }
    load(dir, &train, "test_batch.bin", [&CIFAR10; 2], short)
}

/// Reads CIFAR-100 from `dir`: `train.bin` and `test.bin`, each plain or ending in `.gz`, with the
/// 100 fine labels as classes. The original has 50,000 and 10,000 images.
///
/// # Errors
/// As for [`load10`]; coarse labels must be below 20, fine ones below 100, and `train.bin` may hold
/// up to 50,000 records.
///
/// # Example
/// ```no_run
/// let data = tlr_models::data::cifar::load100("cifar-100-binary".as_ref())?.data;
/// assert_eq!(data.train.classes(), 100);
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
pub fn load100(dir: &Path) -> Result<Cifar, DataError> {
    let train = find(dir, "train.bin")?;
    load(dir, &[train], "test.bin", [&CIFAR100_TRAIN, &CIFAR100_TEST], Vec::new())
}

fn load(
    dir: &Path,
    train: &[PathBuf],
    test: &str,
    [of_train, of_test]: [&Format; 2],
    mut short: Vec<Short>,
) -> Result<Cifar, DataError> {
    let test = find(dir, test)?;
    let train = read(train, of_train, &mut short)?;
    let test = read(&[test], of_test, &mut short)?;
    Ok(Cifar { data: Dataset::new(train, test)?, short })
}

fn find(dir: &Path, name: &str) -> Result<PathBuf, DataError> {
    plain_or_gzip(dir, name).ok_or_else(|| missing(dir, name))
}

fn missing(dir: &Path, name: &str) -> DataError {
    contents::missing(dir, name, HELP)
}

fn read(paths: &[PathBuf], format: &Format, short: &mut Vec<Short>) -> Result<Images, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in paths {
        let before = labels.len();
        read_file(path, format, &mut pixels, &mut labels)?;
        let (records, expected) = (labels.len() - before, format.records);
        if records < expected {
            short.push(Short { path: path.clone(), records, expected });
        }
    }
    Images::new(pixels, labels, SHAPE, format.labels.last().copied().unwrap_or(0))
}

fn read_file(
    path: &Path,
    format: &Format,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u8>,
) -> Result<(), DataError> {
    let record = (format.labels.len() + PIXELS) as u64;
    let mut contents = Contents::open(path)?;
    for count in 0..=format.records {
        let start = contents.offset();
        // One byte more than the last record needs, to see whether the file goes on.
        let bytes = contents.read_up_to(if count < format.records { record } else { 1 })?;
        if bytes.is_empty() && count > 0 {
            return Ok(());
        }
        if count == format.records {
            break;
        }
        if (bytes.len() as u64) < record {
            return Err(DataError::Truncated {
                path: path.to_owned(),
                part: "record",
                expected: start + record,
                found: contents.offset(),
            });
        }
        let (found, image) = bytes.split_at(format.labels.len());
        for ((offset, &label), &classes) in (start..).zip(found).zip(format.labels) {
            if usize::from(label) >= classes {
                return Err(DataError::LabelAt { path: path.to_owned(), offset, label, classes });
            }
        }
        labels.extend(found.last());
        pixels.extend(image);
    }
    Err(DataError::Trailing { path: path.to_owned(), expected: format.records as u64 * record })
}

#[cfg(test)]
mod tests;
