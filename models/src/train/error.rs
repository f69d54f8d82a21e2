//! Why a run ends early.

use crate::{data::DataError, layers::LayerError};
use dfdx::prelude::CpuError;
use std::path::PathBuf;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The data or the batch size.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The rate's configuration, or training itself.
    #[error(transparent)]
    Rate(#[from] tlr::Error),
    /// It was told to stop, and was saved where it was to be.
    #[error("stopped after step {step}")]
    Stopped {
        /// Steps made.
        step: usize,
    },
    /// A checkpoint that is to be written is there already.
    #[error(
        "there is a checkpoint at {} already: resume from it, or remove it first",
        .0.display()
    )]
    CheckpointExists(PathBuf),
    /// No checkpoint can be written where it is to be.
    #[error("cannot write the checkpoint {}: {source}; nothing was trained", path.display())]
    CheckpointPath {
        /// Where it was to be.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A checkpoint of another run.
    #[error("the checkpoint {} is of another run: {what}", path.display())]
    AnotherRun {
        /// The checkpoint.
        path: PathBuf,
        /// In what it differs.
        what: String,
    },
    /// No epochs.
    #[error("a run has at least one epoch")]
    NoEpochs,
    /// Images of another kind than the model takes.
    #[error(
        "the model takes images of {takes} in at most {most} classes, not of {shape:?} (channels, \
         rows, columns) in {classes}"
    )]
    Images {
        /// What it takes.
        takes: &'static str,
        /// The classes it tells apart.
        most: usize,
        /// Channels, rows and columns of the images.
        shape: [usize; 3],
        /// Their classes.
        classes: usize,
    },
    /// Sentences that cannot be encoded, or batches of none.
    #[cfg(feature = "text")]
    #[error(transparent)]
    Text(#[from] crate::data::text::TextError),
    /// More tokens than the model has room for.
    #[cfg(feature = "text")]
    #[error(
        "the model has room for {takes:?} tokens in source and target, and the vocabularies hold \
         {found:?}; learn smaller ones"
    )]
    Vocabulary {
        /// What it has room for.
        takes: [usize; 2],
        /// What the vocabularies hold.
        found: [usize; 2],
    },
    /// A translation that could not be found.
    #[cfg(feature = "text")]
    #[error(transparent)]
    Search(#[from] crate::search::SearchError<LayerError<CpuError>>),
    /// An input that does not fit a layer, or no memory.
    #[error(transparent)]
    Layer(#[from] LayerError<CpuError>),
    /// Out of memory.
    #[error("device: {0}")]
    Device(#[from] CpuError),
}
