//! Why weights are not loaded, and in what a file and a model differ.

use crate::device::DeviceError;
use std::{fmt, path::PathBuf};

use safetensors::SafeTensorError;

use super::Location;

/// One thing in which model and file differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightsDifference {
    /// The model's tensor `name` is not in the file.
    Missing {
        /// The tensor's name in the model.
        name: String,
        /// Where it is in the file.
        location: Location,
    },
    /// The file holds a tensor that the model does not have.
    Extra {
        /// Where it is in the file.
        location: Location,
    },
    /// The model has no such part to leave out.
    NoPart {
        /// The name of the part.
        part: String,
    },
    /// A tensor has another shape in the file.
    Shape {
        /// The tensor's name in the model.
        name: String,
        /// Where it is in the file.
        location: Location,
        /// The shape that would fit.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor holds elements of a type that is not read.
    Dtype {
        /// The tensor's name in the model.
        name: String,
        /// Where it is in the file.
        location: Location,
        /// The type of its elements.
        found: String,
    },
    /// A tensor holds a number too large for the model's dtype.
    Range {
        /// The tensor's name in the model.
        name: String,
        /// Where it is in the file.
        location: Location,
    },
}

impl fmt::Display for WeightsDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, location } => write!(f, "no {location} for {name}"),
            Self::Extra { location } => write!(f, "{location} is not in the model"),
            Self::NoPart { part } => write!(f, "the model has no {part} to leave out"),
            Self::Shape { name, location, expected, found } => {
                write!(f, "{location} has shape {found:?}, and {name} needs {expected:?}")
            }
            Self::Dtype { name, location, found } => {
                write!(f, "{location} holds {found}, and {name} needs F64, F32, F16 or BF16")
            }
            Self::Range { name, location } => {
                write!(f, "{location} holds a number that {name} would make infinite")
            }
        }
    }
}

/// Why weights were not loaded. The model is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file concerned.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is no safetensors file.
    #[error("no safetensors: {0}")]
    Format(#[from] SafeTensorError),
    /// Model and file differ: all differences are here, and in words the first three.
    #[error("the model differs from the file: {}", named(.0))]
    Mismatch(Vec<WeightsDifference>),
    /// An error of the device, such as no memory left.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// How many differences are named; more are only counted.
const NAMED: usize = 3;

fn named(differences: &[WeightsDifference]) -> String {
    let mut words: Vec<_> = differences.iter().take(NAMED).map(ToString::to_string).collect();
    if let Some(more) = differences.len().checked_sub(NAMED).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if a file of another model is told of by dozens of tensors.
    #[test]
    fn three_differences_are_named() {
        let differences = |count: usize| {
            let extra = |i: usize| WeightsDifference::Extra {
                location: Location::from(format!("t{i}").as_str()),
            };
            WeightsError::Mismatch((0..count).map(extra).collect()).to_string()
        };
        let three = "the model differs from the file: t0 is not in the model; t1 is not in the \
                     model; t2 is not in the model";
        assert_eq!(differences(3), three);
        assert_eq!(differences(44), format!("{three}; and 41 more"));
    }
}
