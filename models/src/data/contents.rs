//! The contents of a file, decompressed on the way, and where a file of some name is.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use super::DataError;

/// The largest amount of data that is read from one file: 1 GiB.
pub const MAX_BYTES: u64 = 1 << 30;

/// The contents of a file, read from front to back and decompressed on the way where the first
/// bytes say gzip.
pub(super) struct Contents<'a> {
    path: &'a Path,
    reader: Box<dyn Read>,
    gzip: bool,
    offset: u64,
}

impl<'a> Contents<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self, DataError> {
        let unreadable = |source| DataError::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mut file = BufReader::with_capacity(1 << 16, file);
        let gzip = file.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn Read> =
            if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self { path, reader, gzip, offset: 0 })
    }

    /// How many decompressed bytes have been read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next `limit` bytes, or fewer at the end of the file.
    pub(super) fn read_up_to(&mut self, limit: u64) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let result = (&mut self.reader).take(limit).read_to_end(&mut bytes);
        self.offset += bytes.len() as u64;
        match result {
            Ok(_) => Ok(bytes),
            Err(source) if self.gzip => {
                Err(DataError::Gzip { path: self.path.to_owned(), offset: self.offset, source })
            }
            Err(source) => {
                Err(DataError::Io { action: "read", path: self.path.to_owned(), source })
            }
        }
    }
}

/// The first of the files `dir/name` and `dir/name.gz` that is there.
pub(super) fn plain_or_gzip(dir: &Path, name: &str) -> Option<PathBuf> {
    [dir.join(name), dir.join(format!("{name}.gz"))].into_iter().find(|path| path.is_file())
}

/// The error for a file that the folder has in no spelling, or for a path that is no folder or may
/// not be read.
pub(super) fn missing(dir: &Path, name: &str, help: &'static str) -> DataError {
    match fs::read_dir(dir) {
        Ok(_) => DataError::Missing { dir: dir.to_owned(), name: name.to_owned(), help },
        Err(source) => DataError::Io { action: "look into", path: dir.to_owned(), source },
    }
}
