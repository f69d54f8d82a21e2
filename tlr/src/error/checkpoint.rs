//! What can be wrong with a checkpoint.

use super::words::shown;
use std::{
    fmt::{self, Display},
    io,
    path::PathBuf,
};

/// What is wrong with a checkpoint.
///
/// # Example
/// ```
/// # #[cfg(feature = "dfdx")] {
/// use tlr::{Checkpoint, CheckpointError, Error};
///
/// match Checkpoint::from_bytes(b"no checkpoint") {
///     Err(Error::Checkpoint { problem: CheckpointError::NotACheckpoint(_), path: None }) => (),
///     other => unreachable!("{other:?}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be written or read. What was at the path before is still there.
    #[error("cannot {doing} it: {message}")]
    Io {
        /// What failed: `read`, `write`, or a part of these.
        doing: &'static str,
        /// The kind of the system's error.
        kind: io::ErrorKind,
        /// The system's error in words.
        message: String,
    },
    /// The file is no checkpoint, or one that was cut short.
    #[error("it is no checkpoint, or not a whole one: {0}")]
    NotACheckpoint(String),
    /// The parts of the file do not fit together: it was changed after it was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The file has another version of the format.
    #[error(
        "its format has version {found} and this tlr reads version {known}: read it with the \
         tlr that wrote it"
    )]
    Version {
        /// The version of the file.
        found: String,
        /// The version that this crate reads.
        known: u32,
    },
    /// Training cannot have left this figure there: the file was changed.
    #[error("`{name}` is {}, and has to be {range}: the file was changed", shown(*value))]
    OutOfRange {
        /// Its name in the file: `optimizer.(gathered)`.
        name: String,
        /// What it can be.
        range: String,
        /// What it is.
        value: f64,
    },
    /// The checkpoint was made with another model, optimizer or configuration.
    #[error("it does not fit this model, optimizer and configuration:{}", list(.0))]
    Differs(Vec<Difference>),
}

#[cfg(feature = "dfdx")]
impl CheckpointError {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing, kind: error.kind(), message: error.to_string() }
    }

    pub(crate) fn lacks(tensor: String) -> Self {
        Self::Differs(vec![Difference::Missing { tensor }])
    }

    /// `Ok` if `holds`; otherwise the error that says which range `value` missed.
    pub(crate) fn unless(
        holds: bool,
        name: String,
        range: impl Into<String>,
        value: f64,
    ) -> Result<(), Self> {
        match holds {
            true => Ok(()),
            false => Err(Self::OutOfRange { name, range: range.into(), value }),
        }
    }
}

/// One thing in which a checkpoint differs from the objects that it is loaded into.
///
/// # Example
/// ```
/// let tensor = "model.head.weight".to_owned();
/// let difference = tlr::Difference::Shape { tensor, file: vec![10, 64], here: vec![10, 32] };
/// let words = "`model.head.weight` has the shape [10, 64] in the file and [10, 32] here";
/// assert_eq!(difference.to_string(), words);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// A tensor that the file lacks.
    Missing {
        /// Its name in the file: `model.hidden.weight`.
        tensor: String,
    },
    /// A tensor that only the file has.
    Extra {
        /// Its name in the file.
        tensor: String,
    },
    /// A tensor of another shape.
    Shape {
        /// Its name in the file.
        tensor: String,
        /// Its shape in the file.
        file: Vec<usize>,
        /// The shape it should have.
        here: Vec<usize>,
    },
    /// A tensor of another element type.
    Dtype {
        /// Its name in the file.
        tensor: String,
        /// Its type in the file.
        file: String,
        /// The type it should have.
        here: String,
    },
    /// A setting with another value.
    Setting {
        /// Such as `rule.damping` or `layers`.
        name: String,
        /// Its value in the file, if it has one.
        file: Option<String>,
        /// Its value here, if it has one.
        here: Option<String>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { tensor } => write!(f, "the file lacks the tensor `{tensor}`"),
            Self::Extra { tensor } => write!(f, "only the file has the tensor `{tensor}`"),
            Self::Shape { tensor, file, here } => {
                write!(f, "`{tensor}` has the shape {file:?} in the file and {here:?} here")
            }
            Self::Dtype { tensor, file, here } => {
                write!(f, "`{tensor}` is of {file} in the file and of {here} here")
            }
            Self::Setting { name, file, here } => {
                let word = |value: &Option<String>| match value {
                    Some(value) => value.clone(),
                    None => "missing".to_owned(),
                };
                write!(f, "`{name}` is {} in the file and {} here", word(file), word(here))
            }
        }
    }
}

/// How many differences are named. More are only counted.
const SHOWN: usize = 8;

fn list(differences: &[Difference]) -> String {
    let mut list: String =
        differences.iter().take(SHOWN).map(|difference| format!("\n  {difference}")).collect();
    if differences.len() > SHOWN {
        list += &format!("\n  and {} more", differences.len() - SHOWN);
    }
    list
}

/// `checkpoint`, and its path if there is one.
pub(super) fn named(path: &Option<PathBuf>) -> impl Display + '_ {
    struct Named<'a>(&'a Option<PathBuf>);
    impl Display for Named<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                Some(path) => write!(f, "checkpoint {}", path.display()),
                None => f.write_str("checkpoint"),
            }
        }
    }
    Named(path)
}
