//! Why a report could not be written or read.

use std::{io, path::PathBuf};

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A report could not be written to its file.
    #[error(
        "cannot write {}: {source}; {}",
        path.display(),
        advice(source.kind())
    )]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },

    /// Weights hold a number that f32 would make infinite. Nothing was written.
    #[error("cannot write {}: {tensor} holds a number beyond f32", path.display())]
    BeyondF32 {
        /// The file concerned.
        path: PathBuf,
        /// The first such tensor.
        tensor: String,
    },

    /// Another program writes its results to the folder.
    #[error(
        "another run writes to {} at this moment; wait for it, or choose another folder",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },

    /// A report that was written before could not be read.
    #[error("cannot read {}: {source}; make it anew", path.display())]
    Read {
        /// The file concerned.
        path: PathBuf,
        /// What the CSV reader reported.
        source: csv::Error,
    },

    /// A report that was written before lacks a column, or has something else than a number in it.
    #[error("{}: line {line} has no number in column {column}; make it anew", path.display())]
    Column {
        /// The file concerned.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The heading of the column.
        column: String,
    },
}

/// What to do about it.
fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or write elsewhere"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the way: take it away, or write elsewhere"
        }
        _ => "check that the folder exists and that you may write to it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_missing_folder() {
        let words = |kind: io::ErrorKind| {
            ReportError::Io { path: "out/run.json".into(), source: kind.into() }.to_string()
        };
        let full = words(io::ErrorKind::StorageFull);
        assert!(full.contains("out/run.json") && full.ends_with("; make room, or write elsewhere"));
        assert!(words(io::ErrorKind::NotFound).contains("the folder exists"));
    }
}
