//! Peers in the training loop: each is a [`Learner`].

use super::{Learner, LossOfModel, TrainError};
use crate::baselines::{PeerError, PeerOptimizer, PeerRule};
use dfdx::{
    nn::TensorCollection,
    prelude::{Cpu, Gradients},
};
use tlr::{Adaptation, Checkpoint, Step};

impl<M: TensorCollection<f32, Cpu> + Clone, R: PeerRule> Learner<M> for PeerOptimizer<M, R, f32> {
    fn step(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<f32, Cpu>,
        loss: f64,
    ) -> Result<Step, TrainError> {
        PeerOptimizer::step(self, model, gradients, Some(loss))?;
        Ok(Step::Made)
    }

    fn step_with(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<f32, Cpu>,
        loss: f64,
        trial: &mut LossOfModel<'_, M>,
    ) -> Result<Step, TrainError> {
        if !self.peer().rule().needs_trials() {
            return Learner::step(self, model, gradients, loss);
        }
        let mut failed = None;
        let mut at = |model: &mut M| {
            trial(model).map_err(|error| PeerError::Trial(failed.insert(error).to_string()))
        };
        let made = PeerOptimizer::step_with(self, model, gradients, loss, &mut at);
        // The error of a trial itself says more than the text that is left of it in a peer's error.
        failed.map_or(Ok(()), Err)?;
        made?;
        Ok(Step::Made)
    }

    fn averaged(&self, model: &M) -> Option<M> {
        PeerOptimizer::averaged(self, model)
    }

    fn rates(&self) -> Vec<(&str, f64)> {
        PeerOptimizer::rates(self)
    }

    fn factor(&self) -> f64 {
        PeerOptimizer::factor(self)
    }

    /// A peer decides at every step.
    fn window(&self) -> usize {
        1
    }

    /// A peer's decisions are not recorded.
    fn history(&self) -> &[Adaptation] {
        &[]
    }

    fn checkpoint(&self, model: &M) -> Result<Checkpoint, TrainError> {
        Ok(PeerOptimizer::checkpoint(self, model)?)
    }

    fn resume(&mut self, model: &mut M, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        Ok(PeerOptimizer::resume(self, model, checkpoint)?)
    }
}
