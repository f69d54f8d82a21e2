//! The numbers that a peer computes with: the types of weights, and tensors of them as vectors.

use serde::{de::DeserializeOwned, Serialize};
use std::fmt::Debug;

/// The values of several tensors.
pub type Tensors<E> = Vec<Vec<E>>;

/// The type of weights and of what a rule keeps beside them. Arithmetic is in f64 and rounded once.
pub trait Real:
    Copy + Debug + Default + PartialEq + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// The same number in f64.
    fn wide(self) -> f64;
    /// The nearest number of this type.
    fn round(value: f64) -> Self;
}

impl Real for f32 {
    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn round(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    fn wide(self) -> f64 {
        self
    }

    fn round(value: f64) -> Self {
        value
    }
}
