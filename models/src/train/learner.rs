//! What the training loop needs of an optimizer.

use super::{TrainError, TrainsIn};
use dfdx::prelude::{Cpu, Dtype, Gradients, OwnedTape, Rank0, Tensor};
use tlr::{Adaptation, Checkpoint, Error, Step};

/// A function that gives a batch's loss by a model at trial weights.
pub type LossOfModel<'a, M> = dyn FnMut(&mut M) -> Result<f64, TrainError> + 'a;

/// A batch's mean loss, with its tape.
pub type TrainLoss<D = Cpu, E = f32> = Tensor<Rank0, E, D, OwnedTape<E, D>>;

/// An optimizer with its rule, as the training loop on device `D`, in numbers of type `E`, needs
/// it.
pub trait Learner<M, D: TrainsIn<E> = Cpu, E: Dtype = f32> {
    /// The number to differentiate: by default the loss, in half precision the loss times the loss
    /// scale.
    ///
    /// # Errors
    /// The device's.
    fn scaled(&self, loss: TrainLoss<D, E>) -> Result<TrainLoss<D, E>, TrainError> {
        Ok(loss)
    }

    /// One step, as [`Trainer::step_owned`](tlr::Trainer::step_owned). `loss` is not
    /// [scaled](Self::scaled).
    ///
    /// # Errors
    /// As [`Trainer::step_owned`](tlr::Trainer::step_owned), or those of a peer.
    fn step(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<E, D>,
        loss: f64,
    ) -> Result<Step, TrainError>;

    /// As [`step`](Self::step), with `trial`, which computes the same batch's loss by a model at
    /// other weights. By default it is a plain [`step`](Self::step), which needs no trial.
    ///
    /// # Errors
    /// As [`step`](Self::step), and what `trial` fails with.
    fn step_with(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<E, D>,
        loss: f64,
        trial: &mut LossOfModel<'_, M>,
    ) -> Result<Step, TrainError> {
        let _ = trial;
        self.step(model, gradients, loss)
    }

    /// The model to test, if it is not the one that is trained; none by default.
    fn averaged(&self, model: &M) -> Option<M> {
        let _ = model;
        None
    }

    /// How many ranks make each step of this optimizer together: 1 by default, which exchanges
    /// nothing. A run on another number of ranks is refused: [`TrainError::Apart`].
    fn ranks(&self) -> usize {
        1
    }

    /// Sets the number of examples in this rank's next batch. By default it is ignored.
    ///
    /// # Errors
    /// A number that is not finite.
    fn weigh_next(&mut self, examples: usize) -> Result<(), Error> {
        let _ = examples;
        Ok(())
    }

    /// Tells all ranks, with the next step, whether this one was asked to stop. The answer is
    /// whether any rank was, by the last step. By default there is one rank, and the answer is its
    /// own.
    fn tell_stop(&mut self, asked: bool) -> bool {
        asked
    }

    /// The mean loss over all ranks of the last batch, and its examples. None with one rank.
    fn last_batch(&self) -> Option<(f64, f64)> {
        None
    }

    /// As [`Trainer::average_buffers`](tlr::Trainer::average_buffers). By default there is nothing
    /// to average.
    ///
    /// # Errors
    /// As [`Trainer::average_buffers`](tlr::Trainer::average_buffers).
    fn average_buffers(&mut self, model: &mut M) -> Result<(), Error> {
        let _ = model;
        Ok(())
    }

    /// Each group's name and rate.
    fn rates(&self) -> Vec<(&str, f64)>;

    /// What the schedule multiplies the learned rates of the next step by.
    fn factor(&self) -> f64;

    /// As [`Trainer::window`](tlr::Trainer::window).
    fn window(&self) -> usize;

    /// Every decision on a rate so far.
    fn history(&self) -> &[Adaptation];

    /// As [`Trainer::checkpoint`](tlr::Trainer::checkpoint).
    ///
    /// # Errors
    /// As [`Trainer::checkpoint`](tlr::Trainer::checkpoint).
    fn checkpoint(&self, model: &M) -> Result<Checkpoint, TrainError>;

    /// As [`Trainer::resume`](tlr::Trainer::resume).
    ///
    /// # Errors
    /// As [`Trainer::resume`](tlr::Trainer::resume).
    fn resume(&mut self, model: &mut M, checkpoint: &Checkpoint) -> Result<(), TrainError>;
}
