//! [`DataParallel`] as an optimizer: it hands on everything but the gradients.

use super::{Communicator, DataParallel};
use crate::{
    error::Error,
    optim::{
        average_alone, gradients, update_alone, CompleteGradients, DeviceError, FailedUpdate,
        Groups, OptimizerState, OverRanks, Resumable, Shards, StepFigures, TunableOptimizer,
        WeighBatches,
    },
    tensors::{Backend, Element},
};
use dfdx::{
    optim::{Optimizer, OptimizerUpdateError},
    tensor::Gradients,
};

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
        if !self.averages_over_ranks() || self.last.unused().is_some() {
            self.last.use_up();
            return self.optimizer.update(model, gradients);
        }
        update_alone(self, model, gradients)
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
        if let (true, Some(means)) = (figures.unless_averaged, self.last.unused()) {
            (figures.loss, figures.weight) = (means.loss, means.weight);
            return Ok(());
        }
        match self.averages_over_ranks() {
            true => self.take_means(model, gradients, figures),
            false => Ok(()),
        }
    }

    fn end_averaging(&mut self) {
        self.last.use_up();
    }

    fn update_owned(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>> {
        average_alone(self, model, Ok(gradients))?;
        self.last.use_up();
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

impl<Opt, C> WeighBatches for DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    fn weigh_next(&mut self, weight: f64) -> Result<(), Error> {
        self.weigh_next(weight)
    }
}

impl<Opt, C> OverRanks for DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    fn tell_all(&mut self, told: bool) {
        self.tell_all(told);
    }

    fn was_told(&self) -> bool {
        self.was_told()
    }

    fn average_buffers(&self, model: &mut Opt::Model) -> Result<(), Error> {
        self.average_buffers(model)
    }
}
