//! [`Trainer`] as an optimizer of dfdx's.

use super::{StepFault, Trainer};
use crate::{
    engine::RateRule,
    optim::{gradients::StepGradients, ErrOf, TunableOptimizer},
};
use dfdx::{
    optim::{Optimizer, OptimizerUpdateError, UnusedTensors},
    tensor::Gradients,
};

/// The drop-in: the same as the inherent [`Trainer::update`], with dfdx's error.
///
/// dfdx's error has no room for this crate's own. If one of those stops a step (the model changed,
/// weights that are not finite with the safeguard off, too many rollbacks), all parameters are
/// reported as unused, and the error itself is a `tracing` event. The same holds for
/// [`Error::WindowEnd`](crate::Error::WindowEnd). But then the step was made: do not make it again.
/// Call the inherent methods, which shadow this one, to have the error as a value.
impl<Opt, R> Optimizer<Opt::Model, Opt::Device, Opt::Dtype> for Trainer<Opt, R>
where
    Opt: TunableOptimizer,
    R: RateRule,
{
    fn update(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>> {
        let fault = match self.drive(model, StepGradients::Borrowed(gradients), None) {
            Ok(_) => return Ok(()),
            Err(fault) => fault,
        };
        let error = self.to_error(&fault);
        let fault = match fault {
            StepFault::AtWindowEnd(fault) => {
                tracing::error!(%error, "the step was made, but its window could not be ended");
                *fault
            }
            fault @ (StepFault::Unused(_) | StepFault::Device(_)) => fault,
            fault => {
                tracing::error!(%error, "no parameter was updated");
                fault
            }
        };
        Err(match fault {
            StepFault::Unused(unused) => OptimizerUpdateError::UnusedParams(unused),
            StepFault::Device(error) => OptimizerUpdateError::DeviceError(error),
            _ => OptimizerUpdateError::UnusedParams(UnusedTensors {
                ids: self.snapshots.trainable_ids(),
            }),
        })
    }
}
