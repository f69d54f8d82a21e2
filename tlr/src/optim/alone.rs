//! An update without a trainer, by an optimizer that averages over ranks.

use super::{gradients, ErrOf, StepFigures, TunableOptimizer};
use crate::{
    error::Error,
    tensors::{self, Backend, Model},
};
use dfdx::{
    optim::{OptimizerUpdateError, UnusedTensors},
    shapes::Dtype,
    tensor::Gradients,
    tensor_ops::Device,
};

/// Makes an update outside of a trainer, by a copy of the gradients. They are averaged over the
/// ranks before any optimizer sees them, as a trainer would do.
pub(crate) fn update_alone<Opt: TunableOptimizer>(
    optimizer: &mut Opt,
    model: &mut Opt::Model,
    gradients: &Gradients<Opt::Dtype, Opt::Device>,
) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    let mut own = gradients::complete(&*model, gradients);
    // The other ranks wait for this one, also if it lacks a gradient.
    let told = own.as_mut().map_err(|error| gradients::to_error(&*model, error));
    let averaged = average_alone(optimizer, model, told);
    let mut own = own?;
    averaged?;
    let updated = optimizer.update_owned(model, &mut own);
    // That they are averaged holds for these gradients alone, even if they were only gathered.
    optimizer.end_averaging();
    updated
}

/// Averages the gradients of an update outside of a trainer, unless that was done already.
pub(crate) fn average_alone<Opt: TunableOptimizer>(
    optimizer: &mut Opt,
    model: &Opt::Model,
    own: Result<&mut Gradients<Opt::Dtype, Opt::Device>, Error>,
) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>> {
    if !optimizer.averages_over_ranks() {
        return Ok(());
    }
    let averaged = optimizer.average_over_ranks(model, own, &mut StepFigures::unless_averaged());
    averaged.map_err(|error| {
        tracing::error!(%error, "no parameter was updated");
        // dfdx's error has no room for this one: see `Trainer`'s `Optimizer`.
        OptimizerUpdateError::UnusedParams(all_trained(model))
    })
}

fn all_trained<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>) -> UnusedTensors {
    let trained = tensors::list(model).into_iter().filter(|tensor| tensor.trainable);
    UnusedTensors { ids: trained.map(|tensor| tensor.id).collect() }
}
