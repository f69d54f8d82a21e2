//! A trainer whose steps all ranks make together, as a [`Learner`].

use super::{Learner, TrainDevice, TrainError};
use dfdx::prelude::Gradients;
use serde::Serialize;
use tlr::{
    engine::RateRule,
    optim::{Resumable, TunableOptimizer},
    parallel::Communicator,
    Checkpoint, DataParallel, Error, Step, Trainer,
};

/// What a [`Learner`] on several ranks answers by its trainer: `$trainer`, and `$changed` to change
/// it.
macro_rules! forward_learner {
    ($self:ident => $trainer:expr, $changed:expr) => {
        fn ranks(&$self) -> usize {
            $trainer.optimizer().ranks().size()
        }

        fn weigh_next(&mut $self, examples: usize) -> Result<(), tlr::Error> {
            $changed.weigh_next(examples as f64)
        }

        fn tell_stop(&mut $self, asked: bool) -> bool {
            let told = $trainer.optimizer().flag_was_set();
            $changed.set_flag(asked);
            told || (asked && $trainer.optimizer().ranks().size() == 1)
        }

        fn last_batch(&$self) -> Option<(f64, f64)> {
            $trainer.optimizer().last_batch()
        }

        fn rates(&$self) -> Vec<(&str, f64)> {
            $trainer.rates()
        }

        fn factor(&$self) -> f64 {
            $trainer.factor()
        }

        fn window(&$self) -> usize {
            $trainer.window()
        }

        fn history(&$self) -> &[tlr::Adaptation] {
            $trainer.history()
        }
    };
}
#[cfg(feature = "f16")]
pub(super) use forward_learner;

/// A trainer on several ranks, as a [`Learner`].
pub(super) struct Together<Opt, R>(pub(super) Trainer<DataParallel<Opt, Box<dyn Communicator>>, R>)
where
    Opt: TunableOptimizer<Dtype = f32, Device: TrainDevice>;

impl<Opt, R> Learner<Opt::Model, Opt::Device> for Together<Opt, R>
where
    Opt: TunableOptimizer<Dtype = f32, Device: TrainDevice> + Resumable,
    R: RateRule + Serialize,
{
    fn step(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<f32, Opt::Device>,
        loss: f64,
    ) -> Result<Step, TrainError> {
        Ok(self.0.step_owned(model, gradients, loss)?)
    }

    forward_learner!(self => self.0, self.0);

    fn average_buffers(&mut self, model: &mut Opt::Model) -> Result<(), Error> {
        self.0.average_buffers(model)
    }

    fn checkpoint(&self, model: &Opt::Model) -> Result<Checkpoint, TrainError> {
        Ok(self.0.checkpoint(model)?)
    }

    fn resume(
        &mut self,
        model: &mut Opt::Model,
        checkpoint: &Checkpoint,
    ) -> Result<(), TrainError> {
        Ok(self.0.resume(model, checkpoint)?)
    }
}
