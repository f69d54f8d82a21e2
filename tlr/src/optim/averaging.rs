//! Gradients that are averaged over ranks: what a trainer passes to an optimizer that does so, and
//! an update without a trainer.

use super::{gradients, DeviceError, TunableOptimizer};
use crate::{
    engine::Standing,
    error::Error,
    tensors::{self, Backend},
};
use dfdx::{
    optim::{OptimizerUpdateError, UnusedTensors},
    tensor::Gradients,
};

/// The figures of one step, which
/// [`TunableOptimizer::average_over_ranks`](super::TunableOptimizer::average_over_ranks) replaces
/// by those of all ranks together.
///
/// An optimizer that wraps another one hands it on as it is.
#[derive(Clone, Debug)]
pub struct StepFigures {
    pub(crate) loss: Option<f64>,
    /// What this rank's batch weighs; afterwards, what the batches of all ranks weigh together.
    pub(crate) weight: f64,
    /// The engine's standing, which has to be the same on all ranks. None without an engine.
    pub(crate) standing: Option<Standing>,
    /// Whether this is a second set of gradients for the same batches.
    pub(crate) again: bool,
    /// Whether nothing is to be done if the gradients of the next update are the means already.
    pub(crate) unless_averaged: bool,
}

impl StepFigures {
    pub(crate) fn new(loss: Option<f64>) -> Self {
        Self { loss, weight: 1.0, standing: None, again: false, unless_averaged: false }
    }

    pub(crate) fn again(self) -> Self {
        Self { again: true, ..self }
    }

    fn unless_averaged() -> Self {
        Self { unless_averaged: true, ..Self::new(None) }
    }
}

/// Makes an update that no trainer asks for, by a copy of the gradients. A trainer would have
/// averaged them over the ranks before any optimizer sees them, so this does the same.
pub(crate) fn update_alone<Opt: TunableOptimizer>(
    optimizer: &mut Opt,
    model: &mut Opt::Model,
    gradients: &Gradients<Opt::Dtype, Opt::Device>,
) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    let mut own = gradients::complete(&*model, gradients);
    // The other ranks wait for this one, also if it lacks a gradient.
    let averaged = average_alone(optimizer, model, own.as_mut().map_err(|error| &*error));
    let mut own = own?;
    averaged?;
    let updated = optimizer.update_owned(model, &mut own);
    // The means are used up, also where they were only gathered.
    optimizer.end_averaging();
    updated
}

/// Averages the gradients of an update that no trainer asks for, unless that was done already.
pub(crate) fn average_alone<Opt: TunableOptimizer>(
    optimizer: &mut Opt,
    model: &Opt::Model,
    own: Result<&mut Gradients<Opt::Dtype, Opt::Device>, &OptimizerUpdateError<DeviceError<Opt>>>,
) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>> {
    if !optimizer.averages_over_ranks() {
        return Ok(());
    }
    let own = own.map_err(|error| explain(model, error).to_string());
    let averaged = optimizer.average_over_ranks(model, own, &mut StepFigures::unless_averaged());
    averaged.map_err(|error| {
        tracing::error!(%error, "no parameter was updated");
        // dfdx's error has no room for this one: see `Trainer`'s `Optimizer`.
        let trained = tensors::list(model).into_iter().filter(|tensor| tensor.trainable);
        let mut unused = UnusedTensors::default();
        unused.ids.extend(trained.map(|tensor| tensor.id));
        OptimizerUpdateError::UnusedParams(unused)
    })
}

fn explain<M, E, D>(model: &M, error: &OptimizerUpdateError<D::Err>) -> Error
where
    M: dfdx::nn::TensorCollection<E, D>,
    E: dfdx::shapes::Dtype,
    D: dfdx::tensor_ops::Device<E>,
{
    match error {
        OptimizerUpdateError::DeviceError(error) => Error::Device(error.to_string()),
        OptimizerUpdateError::UnusedParams(unused) => {
            let tensors = tensors::list(model).into_iter();
            let tensors = tensors.filter(|tensor| unused.ids.contains(&tensor.id));
            Error::UnusedParameters { tensors: tensors.map(|tensor| tensor.name).collect() }
        }
    }
}
