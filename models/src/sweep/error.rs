//! Why a sweep ends early.

use crate::{report::ReportError, train::TrainError};
use std::path::PathBuf;

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// A file or folder of results could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file of results is not one of this program's.
    #[error("{}: {source}; move the file away to start anew", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: csv::Error,
    },
    /// The folder of results cannot be written to, or another sweep holds it.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A run cannot begin: data or options that make no sense.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A thread to run on could not be started.
    #[error("cannot start a thread: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}
