//! Why a run ends early.

use super::{Changes, DeviceError, Share};
#[cfg(feature = "text")]
use crate::search::SearchError;
use crate::{
    baselines::PeerError,
    data::DataError,
    layers::{LayerError, Misfit},
    report::count,
};
use dfdx::prelude::CpuError;
#[cfg(feature = "text")]
use std::convert::Infallible;
use std::path::PathBuf;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The data or the batch size makes no sense.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The rate's configuration was refused, or training failed.
    #[error(transparent)]
    Rate(#[from] tlr::Error),
    /// A peer was refused, or failed.
    #[error(transparent)]
    Peer(PeerError),
    /// The run was asked to stop, and has been saved if that was asked for.
    #[error("stopped after step {step}")]
    Stopped {
        /// How many steps were made.
        step: usize,
    },
    /// A checkpoint that is to be written is there already.
    #[error(
        "there is a checkpoint at {} already: resume from it, or remove it first",
        .0.display()
    )]
    CheckpointExists(PathBuf),
    /// The checkpoint cannot be written at its path.
    #[error("cannot write the checkpoint {}: {source}; nothing was trained", path.display())]
    CheckpointPath {
        /// The file that could not be written.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Another run that goes on writes this checkpoint.
    #[error(
        "another program writes the checkpoint {}: wait for it, or choose another file",
        .0.display()
    )]
    CheckpointInUse(PathBuf),
    /// The run in the checkpoint has been through more epochs than are asked for.
    #[error(
        "the run in {} has been through {made} epochs already, and {asked} are asked for; ask for \
         {made} or more, or begin anew with another file",
        path.display()
    )]
    EpochsMade {
        /// The checkpoint.
        path: PathBuf,
        /// The epochs that were made or begun.
        made: usize,
        /// The epochs that are asked for.
        asked: usize,
    },
    /// The checkpoint is of another run.
    #[error("the checkpoint {} is of another run: {changes}", path.display())]
    AnotherRun {
        /// The checkpoint.
        path: PathBuf,
        /// The settings and the data that differ.
        changes: Changes,
    },
    /// Another version of this program wrote the checkpoint.
    #[error(
        "another version of this program wrote the checkpoint {}: its run is stored in format \
         {found}, and this version reads format {expected}",
        path.display()
    )]
    AnotherFormat {
        /// The checkpoint.
        path: PathBuf,
        /// The format in the checkpoint.
        found: u32,
        /// The format that is read.
        expected: u32,
    },
    /// No run can have left the checkpoint as it is.
    #[error("the checkpoint {} is damaged, or not of a run: {what}", path.display())]
    DamagedRun {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The run would have no epochs.
    #[error("a run has at least one epoch")]
    NoEpochs,
    /// The model does not take images of this kind.
    #[error(
        "the model takes images of {takes} in at most {most} classes, not of {shape:?} (channels, \
         rows, columns) in {classes}"
    )]
    Images {
        /// The images that the model takes, in words.
        takes: &'static str,
        /// The most classes that it can distinguish.
        most: usize,
        /// Channels, rows and columns of the images.
        shape: [usize; 3],
        /// Their classes.
        classes: usize,
    },
    /// A label that the source shows is no class.
    #[error(
        "an image has the label {label}, but labels must lie in 0..{classes}: the first class is 0"
    )]
    Label {
        /// The label.
        label: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// The optimizer makes its steps on another number of ranks than the run has.
    #[error(
        "the run has {}, and the optimizer makes its steps on {}: the ranks would train different \
         models. Make the optimizer for the ranks of the run, as `train::learner` does, or train \
         on one rank",
        count(*ranks, "rank"),
        count(*together, "rank")
    )]
    Apart {
        /// The number of ranks of the run.
        ranks: usize,
        /// The number of ranks that make each step of the optimizer together.
        together: usize,
    },
    /// The source shows another part of each batch than that of this rank.
    #[error(
        "this is {own}, and the source shows the share of {shown}: the ranks would train on the \
         same examples, or leave some out. Give the source its share, by \
         `share(Share::of_rank(…))`"
    )]
    OtherShare {
        /// The share of this rank.
        own: Share,
        /// The share that the source shows.
        shown: Share,
    },
    /// The network is too large for a program without optimisation, and not compiled into one.
    #[error("this takes a network that only a program built with --release has")]
    OnlyRelease,
    /// Sentences cannot be encoded, or a batch would have none.
    #[cfg(feature = "text")]
    #[error(transparent)]
    Text(#[from] crate::data::text::TextError),
    /// There are more tokens than the model has room for.
    #[cfg(feature = "text")]
    #[error(
        "the model has room for {takes:?} tokens in source and target, and the vocabularies hold \
         {found:?}; learn smaller ones"
    )]
    Vocabulary {
        /// How many tokens of source and target it has room for.
        takes: [usize; 2],
        /// How many the vocabularies hold.
        found: [usize; 2],
    },
    /// A translation could not be found.
    #[cfg(feature = "text")]
    #[error(transparent)]
    Search(SearchError<Infallible>),
    /// An input does not fit a layer.
    #[error("{layer}: {misfit}")]
    Layer {
        /// The layer, with the sizes that it was made for.
        layer: String,
        /// What does not fit.
        #[source]
        misfit: Misfit,
    },
    /// What a run has done could not be put into bytes, or another rank's bytes hold no such thing.
    #[error("the record of a run: {0}")]
    Record(#[from] postcard::Error),
    /// A peer was asked to train on a GPU.
    #[cfg(any(test, feature = "lab"))]
    #[error("peers train on the CPU only")]
    PeersOnCpu,
    /// There is no such device, it is out of memory, or it has failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl TrainError {
    /// Whether all ranks know of it: an exchange that failed, or a stop that they have agreed on.
    pub(crate) fn all_know(&self) -> bool {
        match self {
            Self::Stopped { .. } => true,
            Self::Rate(tlr::Error::WindowEnd(error)) => is_told(error),
            Self::Rate(error) => is_told(error),
            _ => false,
        }
    }
}

fn is_told(error: &tlr::Error) -> bool {
    matches!(error, tlr::Error::Parallel { .. })
}

/// What a trainer refuses too, the device, or a trial in a run, is the same error if a peer reports
/// it.
impl From<PeerError> for TrainError {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Model(error) => Self::Rate(error),
            PeerError::Device(error) => Self::Device(error.into()),
            PeerError::Trial(error) => match error.downcast() {
                Ok(own) => *own,
                Err(other) => Self::Peer(PeerError::Trial(other)),
            },
            error => Self::Peer(error),
        }
    }
}

impl From<CpuError> for TrainError {
    fn from(error: CpuError) -> Self {
        Self::Device(error.into())
    }
}

impl<E: Into<DeviceError>> From<LayerError<E>> for TrainError {
    fn from(error: LayerError<E>) -> Self {
        match error {
            LayerError::Shape { layer, misfit } => Self::Layer { layer, misfit },
            LayerError::Device(error) => Self::Device(error.into()),
        }
    }
}

/// Converts the error of a device of any type: `?` cannot do that where the type is a parameter.
pub(crate) fn failed(error: impl Into<DeviceError>) -> TrainError {
    TrainError::Device(error.into())
}

#[cfg(feature = "text")]
impl<E: Into<DeviceError>> From<SearchError<LayerError<E>>> for TrainError {
    fn from(error: SearchError<LayerError<E>>) -> Self {
        match error {
            SearchError::Model(error) => error.into(),
            SearchError::Scores { expected, found } => {
                Self::Search(SearchError::Scores { expected, found })
            }
            SearchError::NothingFollows => Self::Search(SearchError::NothingFollows),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::error::Error as _;

    // Fails if a rank leaves the others, which costs them their time-out, though they know.
    #[test]
    fn what_all_ranks_know_is_not_told_again() {
        let ended =
            || tlr::Error::Parallel { rank: 0, step: 1, problem: tlr::ParallelError::Ended };
        let at_the_end = tlr::Error::WindowEnd(Box::new(ended()));
        for error in [ended(), at_the_end] {
            assert!(TrainError::Rate(error).all_know());
        }
        let own = tlr::Error::WindowEnd(Box::new(tlr::Error::NothingToTrain));
        assert!(!TrainError::Rate(own).all_know());
        assert!(!TrainError::NoEpochs.all_know());
    }

    #[test]
    fn errors_keep_their_kind() {
        let error = TrainError::from(LayerError::Device(CpuError::OutOfMemory));
        assert_eq!(error.to_string(), "the CPU has too little memory; smaller batches need less");
        let (layer, misfit) = ("sum".to_owned(), Misfit::Rows { rows: 2, onto: 3 });
        let error = TrainError::from(LayerError::<CpuError>::Shape { layer, misfit });
        assert_eq!(error.to_string(), "sum: 2 rows to add to 3");
        assert_eq!(error.source().unwrap().downcast_ref(), Some(&misfit));
        let error = TrainError::from(PeerError::Device(CpuError::OutOfMemory));
        let device = DeviceError::OutOfMemory { device: "CPU" };
        assert!(matches!(error, TrainError::Device(found) if found == device));
    }
}
