//! A strict reader for the IDX files that MNIST and its relatives come in.
//!
//! An IDX file is a magic number, one big-endian `u32` a dimension, and then the elements. Only
//! unsigned bytes are read, as images (three dimensions, magic `0x00000803`) or labels (one
//! dimension, magic `0x00000801`). A file may be compressed with gzip, which is detected from its
//! first bytes and not from its name.

use std::path::Path;

use super::{contents::Contents, DataError};

pub use super::contents::MAX_BYTES;

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;

/// The contents of an IDX file of images.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdxImages {
    /// The number of images.
    pub count: usize,
    /// The height of an image in pixels.
    pub rows: usize,
    /// The width of an image in pixels.
    pub columns: usize,
    /// `count * rows * columns` bytes, image by image and row by row.
    pub pixels: Vec<u8>,
}

/// Reads a file of images, plain or compressed with gzip.
///
/// # Errors
/// A [`DataError`] that names the file, and the offset in the decompressed contents where that
/// makes sense: [`Io`](DataError::Io) when the file cannot be read, [`Gzip`](DataError::Gzip),
/// [`Magic`](DataError::Magic), [`Truncated`](DataError::Truncated),
/// [`Trailing`](DataError::Trailing), [`ZeroDimension`](DataError::ZeroDimension), and
/// [`TooLarge`](DataError::TooLarge) when the header announces more than [`MAX_BYTES`]. Memory is
/// only taken for data that is really there.
///
/// # Example
/// ```no_run
/// use tlr_models::data::idx;
///
/// let images = idx::read_images("train-images-idx3-ubyte.gz".as_ref())?;
/// assert_eq!(images.pixels.len(), images.count * images.rows * images.columns);
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
pub fn read_images(path: &Path) -> Result<IdxImages, DataError> {
    let ([count, rows, columns], pixels) = read(path, IMAGES_MAGIC)?;
    Ok(IdxImages { count, rows, columns, pixels })
}

/// Reads a file of labels, plain or compressed with gzip.
///
/// # Errors
/// As [`read_images`].
///
/// Example: as [`read_images`].
pub fn read_labels(path: &Path) -> Result<Vec<u8>, DataError> {
    let ([_], labels) = read(path, LABELS_MAGIC)?;
    Ok(labels)
}

fn read<const N: usize>(path: &Path, magic: u32) -> Result<([usize; N], Vec<u8>), DataError> {
    let mut contents = Contents::open(path)?;

    let header_end = 4 + 4 * N as u64;
    let header = contents.read_up_to(header_end)?;
    let mut words = header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let truncated = |part, expected, found| DataError::Truncated {
        path: path.to_owned(),
        part,
        expected,
        found,
    };
    match words.next() {
        Some(found) if found != magic => {
            return Err(DataError::Magic { path: path.to_owned(), expected: magic, found });
        }
        _ if contents.offset() < header_end => {
            return Err(truncated("header", header_end, contents.offset()));
        }
        _ => {}
    }

    let dimensions: Vec<u32> = words.collect();
    if let Some(zero) = dimensions.iter().position(|&d| d == 0) {
        return Err(DataError::ZeroDimension {
            path: path.to_owned(),
            offset: 4 + 4 * zero as u64,
        });
    }
    let bytes = dimensions
        .iter()
        .try_fold(1u64, |product, &d| product.checked_mul(u64::from(d)))
        .filter(|&bytes| bytes <= MAX_BYTES);
    let Some(bytes) = bytes else {
        return Err(DataError::TooLarge { path: path.to_owned(), dimensions, limit: MAX_BYTES });
    };

    let data = contents.read_up_to(bytes)?;
    let end = header_end + bytes;
    if contents.offset() < end {
        return Err(truncated("data", end, contents.offset()));
    }
    if !contents.read_up_to(1)?.is_empty() {
        return Err(DataError::Trailing { path: path.to_owned(), expected: end });
    }

    let mut sizes = [0; N];
    for (size, dimension) in sizes.iter_mut().zip(dimensions) {
        // Lossless: the product of all dimensions is at most MAX_BYTES.
        *size = dimension as usize;
    }
    Ok((sizes, data))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io::Write, path::PathBuf};

    use flate2::{write::GzEncoder, Compression};
    use tempfile::TempDir;

    use super::*;

    fn images(dimensions: [u32; 3], data: &[u8]) -> Vec<u8> {
        let mut bytes = IMAGES_MAGIC.to_be_bytes().to_vec();
        for d in dimensions {
            bytes.extend(d.to_be_bytes());
        }
        bytes.extend(data);
        bytes
    }

    fn labels(count: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = LABELS_MAGIC.to_be_bytes().to_vec();
        bytes.extend(count.to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some-file");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn images_of(bytes: &[u8]) -> Result<IdxImages, DataError> {
        let (_dir, path) = file(bytes);
        read_images(&path)
    }

    fn labels_of(bytes: &[u8]) -> Result<Vec<u8>, DataError> {
        let (_dir, path) = file(bytes);
        read_labels(&path)
    }

    #[test]
    fn plain_and_compressed_files_read_the_same() {
        let bytes = images([2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let expected = IdxImages { count: 2, rows: 1, columns: 3, pixels: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(images_of(&bytes).unwrap(), expected);
        assert_eq!(images_of(&gzip(&bytes)).unwrap(), expected);
        let bytes = labels(3, &[7, 8, 9]);
        assert_eq!(labels_of(&bytes).unwrap(), [7, 8, 9]);
        assert_eq!(labels_of(&gzip(&bytes)).unwrap(), [7, 8, 9]);
    }

    #[test]
    fn swapped_files_are_told_by_their_magic() {
        let error = labels_of(&images([1, 1, 1], &[0])).unwrap_err();
        assert!(matches!(
            error,
            DataError::Magic { expected: LABELS_MAGIC, found: IMAGES_MAGIC, .. }
        ));
        let error = images_of(&labels(1, &[0])).unwrap_err();
        assert!(matches!(error, DataError::Magic { found: LABELS_MAGIC, .. }));
        assert!(error.to_string().contains("0x00000803"), "{error}");
        assert!(error.to_string().contains("some-file"), "{error}");
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = images([2, 2, 1], &[1, 2, 3, 4]);
        for length in 0..bytes.len() {
            for bytes in [bytes[..length].to_vec(), gzip(&bytes[..length])] {
                let error = images_of(&bytes).unwrap_err();
                let (part, expected) = if length < 16 { ("header", 16) } else { ("data", 20) };
                assert!(
                    matches!(
                        error,
                        DataError::Truncated { part: p, expected: e, found, .. }
                            if p == part && e == expected && found == length as u64
                    ),
                    "{length}: {error}"
                );
            }
        }
    }

    #[test]
    fn trailing_bytes_are_noticed() {
        for bytes in [labels(2, &[1, 2, 3]), gzip(&labels(2, &[1, 2, 3]))] {
            let error = labels_of(&bytes).unwrap_err();
            assert!(matches!(error, DataError::Trailing { expected: 10, .. }));
        }
    }

    #[test]
    fn zero_dimensions_are_named_by_offset() {
        for (dimensions, at) in [([0, 1, 1], 4), ([1, 0, 1], 8), ([1, 1, 0], 12)] {
            let error = images_of(&images(dimensions, &[])).unwrap_err();
            assert!(matches!(error, DataError::ZeroDimension { offset, .. } if offset == at));
        }
    }

    #[test]
    fn announced_data_is_neither_trusted_nor_allocated() {
        for dimensions in [[u32::MAX; 3], [u32::MAX, 1, 1], [1 << 20, 32, 33]] {
            let error = images_of(&images(dimensions, &[0; 10])).unwrap_err();
            assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
        }
        let error = images_of(&images([1 << 20, 32, 32], &[0; 10])).unwrap_err();
        assert!(matches!(error, DataError::Truncated { found: 26, .. }));
    }

    #[test]
    fn damaged_gzip_is_noticed() {
        let mut bytes = gzip(&labels(200, &(0..200).collect::<Vec<u8>>()));
        assert!(matches!(labels_of(&bytes[..bytes.len() - 4]), Err(DataError::Gzip { .. })));
        let checksum = bytes.len() - 8;
        bytes[checksum] ^= 1;
        assert!(matches!(labels_of(&bytes), Err(DataError::Gzip { .. })));
        assert!(matches!(labels_of(&[0x1f, 0x8b]), Err(DataError::Gzip { .. })));
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = read_labels(&dir.path().join("absent")).unwrap_err();
        assert!(matches!(error, DataError::Io { action: "read", .. }));
        assert!(error.to_string().contains("absent"), "{error}");
        assert!(matches!(read_labels(dir.path()), Err(DataError::Io { .. })));
    }
}
