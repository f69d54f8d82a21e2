use std::path::PathBuf;

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A report could not be written to its file.
    #[error(
        "cannot write {}: {source}; check that the directory exists and is writable",
        path.display()
    )]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
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

    /// The plotting library failed.
    #[error("cannot draw the figure: {reason}; please report this as a bug")]
    Draw {
        /// What the plotting library reported.
        reason: String,
    },
}
