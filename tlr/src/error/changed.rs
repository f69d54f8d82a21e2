//! In what a model is not the one that an optimizer was made for.

use std::fmt;

/// One thing in which a model is not the one that an optimizer was made for.
///
/// # Example
/// ```
/// let difference = tlr::TensorDifference::Replaced { tensor: "head.bias".to_owned() };
/// assert_eq!(difference.to_string(), "`head.bias` is another tensor");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorDifference {
    /// Another tensor has the place of this one.
    Replaced {
        /// The name of the tensor that was there.
        tensor: String,
    },
    /// The model has more tensors, or fewer.
    Count {
        /// How many there were.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A model in half precision is not the one that its master was made of.
    NotOfMaster,
}

impl fmt::Display for TensorDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replaced { tensor } => write!(f, "`{tensor}` is another tensor"),
            Self::Count { expected, found } => write!(f, "{found} tensors instead of {expected}"),
            Self::NotOfMaster => f.write_str("it is not the one that the master was made of"),
        }
    }
}
