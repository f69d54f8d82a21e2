//! The optimizer of a model in half precision: that of its master in f32, and a scale of the loss.

use super::{
    chosen::{a_rate_a_layer, one_rate, AnyRule},
    together::forward_learner,
    AnyRanks, Learner, Mode, Options, TrainDevice, TrainError, TrainLoss, TrainsIn,
};
use dfdx::{
    nn::TensorCollection,
    prelude::{Dtype, Gradients},
};
use tlr::{
    optim::{Resumable, TunableOptimizer},
    parallel::Communicator,
    Checkpoint, DataParallel, Error, LossScale, MixedPrecision, Step, TrainableLr,
};

/// As [`learner`](super::learner).
pub(super) fn learner<M, E, D>(
    model: &M,
    options: &Options,
    batches_per_epoch: usize,
    ranks: AnyRanks,
) -> Result<Box<dyn Learner<M, D, E>>, Error>
where
    M: TrainableLr<E, D> + 'static,
    M::To<f32, D>: TrainableLr<f32, D> + 'static,
    E: Dtype,
    D: TrainsIn<E>,
{
    let scale = LossScale::default();
    Ok(match options.mode {
        Mode::Global => Box::new(Half(MixedPrecision::new(model, scale, |master| {
            one_rate(master, options, batches_per_epoch, ranks)
        })?)),
        Mode::PerLayer => Box::new(Half(MixedPrecision::new(model, scale, |master| {
            a_rate_a_layer(master, options, batches_per_epoch, ranks)
        })?)),
    })
}

struct Half<M, E, Opt>(MixedPrecision<M, E, DataParallel<Opt, Box<dyn Communicator>>, AnyRule>)
where
    Opt: TunableOptimizer<Dtype = f32, Device: TrainDevice>;

impl<M, E, D, Opt> Learner<M, D, E> for Half<M, E, Opt>
where
    M: TensorCollection<E, D, To<f32, D> = Opt::Model> + Clone,
    E: Dtype,
    D: TrainsIn<E>,
    Opt: TunableOptimizer<Dtype = f32, Device = D> + Resumable,
{
    fn scaled(&self, loss: TrainLoss<D, E>) -> Result<TrainLoss<D, E>, TrainError> {
        Ok(self.0.scaled(loss)?)
    }

    fn step(
        &mut self,
        model: &mut M,
        gradients: &mut Gradients<E, D>,
        loss: f64,
    ) -> Result<Step, TrainError> {
        Ok(self.0.step(model, gradients, loss)?)
    }

    forward_learner!(self => self.0.trainer(), self.0.trainer_mut());

    fn average_buffers(&mut self, model: &mut M) -> Result<(), Error> {
        self.0.average_buffers(model)
    }

    fn checkpoint(&self, _model: &M) -> Result<Checkpoint, TrainError> {
        Ok(self.0.checkpoint()?)
    }

    fn resume(&mut self, model: &mut M, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        Ok(self.0.resume(model, checkpoint)?)
    }
}
