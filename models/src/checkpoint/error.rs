use std::{fmt, path::PathBuf};

use safetensors::SafeTensorError;

use super::Source;

/// One thing in which model and file differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The model's tensor `name` is not in the file.
    Missing {
        /// In the model.
        name: String,
        /// In the file.
        source: Source,
    },
    /// The file holds what is no tensor of the model.
    Extra {
        /// In the file.
        source: Source,
    },
    /// The model has no such part to leave out.
    NoPart {
        /// The name that was told.
        part: String,
    },
    /// A tensor has another shape in the file.
    Shape {
        /// In the model.
        name: String,
        /// In the file.
        source: Source,
        /// What would fit.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<usize>,
    },
    /// A tensor holds no numbers that are read.
    Dtype {
        /// In the model.
        name: String,
        /// In the file.
        source: Source,
        /// What it holds.
        found: String,
    },
    /// A tensor holds a number too large for the model's dtype.
    Range {
        /// In the model.
        name: String,
        /// In the file.
        source: Source,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, source } => write!(f, "no {source} for {name}"),
            Self::Extra { source } => write!(f, "{source} is not in the model"),
            Self::NoPart { part } => write!(f, "the model has no {part} to leave out"),
            Self::Shape { name, source, expected, found } => {
                write!(f, "{source} has shape {found:?}, and {name} needs {expected:?}")
            }
            Self::Dtype { name, source, found } => {
                write!(f, "{source} holds {found}, and {name} needs F64, F32, F16 or BF16")
            }
            Self::Range { name, source } => {
                write!(f, "{source} holds a number that {name} would make infinite")
            }
        }
    }
}

/// Why a checkpoint was not loaded. The model is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// These are not safetensors.
    #[error("no safetensors: {0}")]
    Format(#[from] SafeTensorError),
    /// Model and file differ: everything in which they do.
    #[error(
        "the model differs from the file: {}",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Mismatch(Vec<Difference>),
    /// Of the device, such as no memory left.
    #[error("device: {0}")]
    Device(String),
}
