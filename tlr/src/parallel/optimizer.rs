//! [`DataParallel`] as an optimizer: it hands on everything but the gradients.

use super::{Communicator, DataParallel};
use crate::{
    error::Error,
    optim::{
        gradients, CompleteGradients, DeviceError, FailedUpdate, Groups, OptimizerState, Resumable,
        Shards, StepFigures, TunableOptimizer,
    },
    tensors::{self, Backend, Element},
};
use dfdx::{
    optim::{Optimizer, OptimizerUpdateError, UnusedTensors},
    tensor::Gradients,
};

impl<Opt, C> DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    /// For an update outside of a trainer, which has averaged nothing.
    fn average_now(
        &mut self,
        model: &Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>> {
        if !self.averages_over_ranks() || std::mem::take(&mut self.averaged) {
            return Ok(());
        }
        let mut figures = StepFigures::new(None);
        let averaged = self.take_means(model, Ok(gradients), &mut figures);
        self.averaged = false;
        averaged.map_err(|error| {
            tracing::error!(%error, "no parameter was updated");
            // dfdx's error has no room for this one: see `Trainer`'s `Optimizer`.
            let trained = tensors::list(model).into_iter().filter(|tensor| tensor.trainable);
            let mut unused = UnusedTensors::default();
            unused.ids.extend(trained.map(|tensor| tensor.id));
            OptimizerUpdateError::UnusedParams(unused)
        })
    }
}

impl<Opt, C> Optimizer<Opt::Model, Opt::Device, Opt::Dtype> for DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    fn update(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>> {
        if !self.averages_over_ranks() || self.averaged {
            self.averaged = false;
            return self.optimizer.update(model, gradients);
        }
        let mut own = gradients::complete(&*model, gradients)?;
        self.update_owned(model, &mut own)
    }
}

impl<Opt, C> TunableOptimizer for DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    type Model = Opt::Model;
    type Dtype = Opt::Dtype;
    type Device = Opt::Device;

    fn rate(&self, group: usize) -> f64 {
        self.optimizer.rate(group)
    }

    fn set_rate(&mut self, group: usize, rate: f64) {
        self.optimizer.set_rate(group, rate);
    }

    fn reset(&mut self, model: &Opt::Model) {
        self.optimizer.reset(model);
    }

    fn momentum(&self) -> f64 {
        self.optimizer.momentum()
    }

    fn validate(&self) -> Result<(), Error> {
        self.optimizer.validate()
    }

    fn follows_attributes(&self) -> bool {
        self.optimizer.follows_attributes()
    }

    fn only_gathers(&self) -> bool {
        self.optimizer.only_gathers()
    }

    fn drop_gathered(&mut self, model: &mut Opt::Model) {
        self.optimizer.drop_gathered(model);
    }

    fn groups(&self, model: &Opt::Model) -> Groups {
        self.optimizer.groups(model)
    }

    fn complete_gradients(
        &self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> CompleteGradients<Self> {
        match self.averages_over_ranks() {
            true => gradients::complete(model, gradients).map(Some),
            false => self.optimizer.complete_gradients(model, gradients),
        }
    }

    fn failed_update(&self) -> FailedUpdate {
        self.optimizer.failed_update()
    }

    fn averages_over_ranks(&self) -> bool {
        self.ranks.size() > 1
    }

    fn shards(&self) -> Option<&dyn Shards> {
        (self.sharded && self.averages_over_ranks()).then_some(&self.ranks)
    }

    fn average_over_ranks(
        &mut self,
        model: &Opt::Model,
        gradients: Result<&mut Gradients<Opt::Dtype, Opt::Device>, String>,
        figures: &mut StepFigures,
    ) -> Result<(), Error> {
        match self.averages_over_ranks() {
            true => self.take_means(model, gradients, figures),
            false => Ok(()),
        }
    }

    fn end_averaging(&mut self) {
        self.averaged = false;
    }

    fn update_owned(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>> {
        self.average_now(model, gradients)?;
        self.optimizer.update_owned(model, gradients)
    }
}

impl<Opt, C> Resumable for DataParallel<Opt, C>
where
    Opt: Resumable,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    fn state(&self, model: &Opt::Model) -> Result<OptimizerState, DeviceError<Opt>> {
        self.optimizer.state(model)
    }

    fn restore(
        &mut self,
        model: &mut Opt::Model,
        state: &OptimizerState,
    ) -> Result<(), DeviceError<Opt>> {
        self.optimizer.restore(model, state)
    }
}
