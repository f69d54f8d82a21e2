//! [`Fault`]: the errors of a step, of the device or of this crate.

use crate::error::Error;
use dfdx::optim::{OptimizerUpdateError, UnusedTensors};

/// An error of a step. dfdx's own parts are kept for dfdx's own error type.
#[derive(Debug)]
pub(super) enum Fault<Err> {
    Tlr(Error),
    Unused(UnusedTensors),
    Device(Err),
    /// An error after the update, at the end of its window.
    AtWindowEnd(Box<Fault<Err>>),
}

impl<Err> From<Error> for Fault<Err> {
    fn from(error: Error) -> Self {
        Self::Tlr(error)
    }
}

impl<Err> From<OptimizerUpdateError<Err>> for Fault<Err> {
    fn from(error: OptimizerUpdateError<Err>) -> Self {
        match error {
            OptimizerUpdateError::UnusedParams(unused) => Self::Unused(unused),
            OptimizerUpdateError::DeviceError(error) => Self::Device(error),
        }
    }
}
