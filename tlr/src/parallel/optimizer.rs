//! [`DataParallel`] as an optimizer: it hands on everything but the gradients.

use super::{Communicator, DataParallel};
use crate::{
    error::Error,
    optim::{
        average_alone, forward, gradients, update_alone, CompleteGradients, ErrOf, GatherBatches,
        OptimizerState, OverRanks, RestoreError, Resumable, Shards, StepFigures, TunableOptimizer,
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
    ) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>> {
        if !self.averages_over_ranks() || self.last.unused().is_some() {
            self.last.use_up();
            return self.optimizer.update(model, gradients);
        }
        update_alone(self, model, gradients)
    }
}

#[warn(clippy::missing_trait_methods)]
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

    forward! {
        Self { optimizer, .. } => optimizer;
        but complete_gradients, averages_over_ranks, shards, average_over_ranks,
            end_averaging, update_owned;
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

    fn averages_over_ranks(&self) -> bool {
        self.ranks.size() > 1
    }

    fn shards(&self) -> Option<&dyn Shards> {
        (self.settings.sharded && self.averages_over_ranks()).then_some(&self.ranks)
    }

    fn average_over_ranks(
        &mut self,
        model: &Opt::Model,
        gradients: Result<&mut Gradients<Opt::Dtype, Opt::Device>, Error>,
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
    ) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>> {
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
    fn state(&self, model: &Opt::Model) -> Result<OptimizerState, ErrOf<Opt>> {
        self.optimizer.state(model)
    }

    fn restore(
        &mut self,
        model: &mut Opt::Model,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<ErrOf<Opt>>> {
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

impl<Opt, C> GatherBatches for DataParallel<Opt, C>
where
    Opt: TunableOptimizer + GatherBatches,
{
    fn complete_with_next(&mut self) {
        self.optimizer.complete_with_next();
    }
}

impl<Opt, C> OverRanks for DataParallel<Opt, C>
where
    Opt: TunableOptimizer,
    Opt::Dtype: Element,
    Opt::Device: Backend<Opt::Dtype>,
    C: Communicator,
{
    fn set_flag(&mut self, raised: bool) {
        self.set_flag(raised);
    }

    fn flag_was_set(&self) -> bool {
        self.flag_was_set()
    }

    fn average_buffers(&self, model: &mut Opt::Model) -> Result<(), Error> {
        self.average_buffers(model)
    }
}
