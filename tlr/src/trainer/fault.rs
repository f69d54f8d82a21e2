//! [`StepFault`]: the errors of a step, of the device or of this crate.

use crate::{error::Error, tensors::device_error};
use dfdx::{
    optim::{OptimizerUpdateError, UnusedTensors},
    tensor::UniqueId,
};
use std::fmt;

/// An error of a step. It keeps the parts that dfdx's own error type needs.
#[derive(Debug)]
pub(super) enum StepFault<Err> {
    Tlr(Error),
    Unused(UnusedTensors),
    Device(Err),
    /// An error after the update, at the end of its window.
    AtWindowEnd(Box<StepFault<Err>>),
}

impl<Err: fmt::Display + 'static> StepFault<Err> {
    /// The fault as this crate's error. `names` has the names of these tensors.
    pub(super) fn to_error(&self, names: &dyn Fn(&[UniqueId]) -> Vec<String>) -> Error {
        match self {
            Self::Tlr(error) => error.clone(),
            Self::Unused(unused) => Error::UnusedParameters { tensors: names(&unused.ids) },
            Self::Device(error) => device_error(error.to_string(), error),
            Self::AtWindowEnd(fault) => Error::WindowEnd(Box::new(fault.to_error(names))),
        }
    }
}

impl<Err> From<Error> for StepFault<Err> {
    fn from(error: Error) -> Self {
        Self::Tlr(error)
    }
}

impl<Err> From<OptimizerUpdateError<Err>> for StepFault<Err> {
    fn from(error: OptimizerUpdateError<Err>) -> Self {
        match error {
            OptimizerUpdateError::UnusedParams(unused) => Self::Unused(unused),
            OptimizerUpdateError::DeviceError(error) => Self::Device(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{DeviceError, ParallelError};
    use std::error::Error as _;

    // Fails if an error at a window's end is only a text, which no program can match on.
    #[test]
    fn an_error_at_the_end_of_a_window_stays_a_value() {
        let names = |_: &[UniqueId]| Vec::new();
        let lost = Error::Parallel { rank: 2, step: 7, problem: ParallelError::Ended };
        let at_end = |fault| StepFault::<&str>::AtWindowEnd(Box::new(fault)).to_error(&names);
        let of_ranks = at_end(StepFault::Tlr(lost.clone()));
        assert_eq!(of_ranks, Error::WindowEnd(Box::new(lost.clone())));
        assert_eq!(of_ranks.source().map(ToString::to_string), Some(lost.to_string()));
        let of_device = at_end(StepFault::Device("no memory"));
        assert_eq!(
            of_device,
            Error::WindowEnd(Box::new(Error::Device(DeviceError::new("no memory"))))
        );
        let text = "at the end of a window: device: no memory: the step itself was made";
        assert_eq!(of_device.to_string(), text);
    }
}
