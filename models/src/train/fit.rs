//! The training loop, whatever is trained on whatever.

use super::{learner, rollback_steps, Event, Learner, Options, Run, TrainError};
use crate::report::Epoch;
use dfdx::{
    nn::{NumParams, ZeroGrads},
    prelude::{AsArray, Backward, Cache, Cpu, Gradients, OwnedTape, Rank0, Tensor},
};
use std::time::Instant;
use tlr::TrainableLr;

/// A batch's mean loss, with the tape of how it came about.
pub type TrainLoss = Tensor<Rank0, f32, Cpu, OwnedTape<f32, Cpu>>;

/// A batch's loss by the model; its gradients go where they are told.
pub(super) type Loss<'a, M> =
    dyn FnMut(&mut M, Gradients<f32, Cpu>) -> Result<TrainLoss, TrainError> + 'a;

/// What is done with a batch: how much it weighs in the mean over the epoch, and its loss.
pub(super) type Step<'a, M> = dyn FnMut(usize, &mut Loss<'_, M>) -> Result<(), TrainError> + 'a;

/// What a model is to learn.
pub(super) trait Task<M> {
    fn batches_per_epoch(&self) -> usize;

    /// Calls `step` for each batch, in an order that depends on nothing but the epoch and a seed.
    fn epoch(&self, epoch: usize, step: &mut Step<'_, M>) -> Result<(), TrainError>;

    /// Mean loss and accuracy on what it was not trained on.
    fn test(&self, model: &M) -> Result<(f64, f64), TrainError>;
}

/// What a run starts with.
pub(super) struct Start<M> {
    pub(super) device: Cpu,
    pub(super) model: M,
    optimizer: Box<dyn Learner<M>>,
}

impl<M: TrainableLr<f32, Cpu> + 'static> Start<M> {
    pub(super) fn new(
        options: &Options,
        batches_per_epoch: usize,
        build: impl FnOnce(&Cpu) -> Result<M, TrainError>,
    ) -> Result<Self, TrainError> {
        if options.epochs == 0 {
            return Err(TrainError::NoEpochs);
        }
        let device = Cpu::seed_from_u64(options.seed);
        device.try_enable_cache()?;
        let model = build(&device)?;
        let optimizer = learner(&model, options, batches_per_epoch)?;
        Ok(Self { device, model, optimizer })
    }
}

pub(super) fn fit<M: NumParams<f32, Cpu> + ZeroGrads<f32, Cpu>>(
    start: &mut Start<M>,
    task: &dyn Task<M>,
    options: &Options,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let Start { model, optimizer, .. } = start;
    let batches = task.batches_per_epoch();
    let start = Instant::now();
    let mut epochs = Vec::with_capacity(options.epochs);
    let mut history = Vec::new();
    let mut gradients = Some(model.try_alloc_grads()?);
    for epoch in 0..options.epochs {
        let epoch_start = Instant::now();
        let (mut train_loss, mut weights, mut batch) = (0.0, 0, 0);
        task.epoch(epoch, &mut |weight, loss| {
            let before = match gradients.take() {
                Some(gradients) => gradients,
                None => model.try_alloc_grads()?,
            };
            let loss = loss(model, before)?;
            let value = f64::from(loss.array());
            let mut after = loss.try_backward()?;
            optimizer.step(model, &after, value)?;
            model.try_zero_grads(&mut after)?;
            gradients = Some(after);
            train_loss += value * weight as f64;
            weights += weight;
            observer(Event::Step { epoch, batch, batches, loss: value, rates: optimizer.rates() });
            batch += 1;
            Ok(())
        })?;
        let decided = optimizer.take_history();
        let (test_loss, test_accuracy) = task.test(model)?;
        let record = Epoch {
            epoch: epoch + 1,
            train_loss: train_loss / weights as f64,
            test_loss,
            test_accuracy,
            seconds: epoch_start.elapsed().as_secs_f64(),
            rates: optimizer
                .rates()
                .iter()
                .map(|(name, rate)| ((*name).to_owned(), *rate))
                .collect(),
            rollbacks: rollback_steps(&decided).len(),
        };
        observer(Event::Epoch(&record));
        epochs.push(record);
        history.extend(decided);
    }
    Ok(Run {
        epochs,
        history,
        batches_per_epoch: batches,
        parameters: model.num_trainable_params(),
        seconds: start.elapsed().as_secs_f64(),
    })
}
