//! The training loop, for any model and any task.

use super::{
    device::Opened, error::failed, persistence::Progress, replay::Reported, rollback_steps,
    AnyRanks, Event, Facts, Learner, Number, Options, Persistence, Run, TrainDevice, TrainError,
    TrainLoss, TrainsIn,
};
use crate::{
    baselines::{has_buffers, parameters, recalibrated},
    layers::sequence::dropout,
    report::Epoch,
};
use dfdx::{
    nn::{NumParams, TensorCollection, ZeroGrads},
    prelude::{AsArray, Backward, Gradients, WithEmptyTape},
};
use std::time::Instant;

/// Computes a batch's loss by the model, and adds its gradients to the set that it is given.
pub(super) type Loss<'a, M, D, E> =
    dyn FnMut(&mut M, Gradients<E, D>) -> Result<TrainLoss<D, E>, TrainError> + 'a;

/// Makes a step on a batch, given its weight in the mean over the epoch and what computes its loss.
pub(super) type StepFn<'a, M, D, E> =
    dyn FnMut(usize, &mut Loss<'_, M, D, E>) -> Result<(), TrainError> + 'a;

/// What a model is to learn.
pub(super) trait Task<M, D: TrainsIn<E>, E: Number> {
    fn batches_per_epoch(&self) -> usize;

    /// The settings of the task, by their flags.
    fn settings(&self) -> Facts;

    /// What it is trained on.
    fn data(&self) -> Result<Facts, TrainError>;

    /// Calls `step` for each batch, leaving out the first `skip`, in an order that depends on
    /// nothing but the epoch and a seed.
    fn epoch(
        &self,
        epoch: usize,
        skip: usize,
        step: &mut StepFn<'_, M, D, E>,
    ) -> Result<(), TrainError>;

    /// Notes for users of the model, by name.
    fn notes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The mean loss and the accuracy on examples that the model was not trained on.
    fn test(&self, model: &M) -> Result<(f64, f64), TrainError>;
}

/// What a run starts with.
pub(super) struct Start<M, D: TrainDevice, E> {
    pub(super) model: M,
    optimizer: Box<dyn Learner<M, D, E>>,
    // Dropped last, when the memory of the others is free.
    pub(super) device: Opened<D>,
}

impl<M: 'static, D: TrainsIn<E>, E: Number> Start<M, D, E> {
    pub(super) fn new(
        options: &Options,
        build: impl FnOnce(&D) -> Result<M, TrainError>,
        learner: impl FnOnce(&M) -> Result<Box<dyn Learner<M, D, E>>, TrainError>,
    ) -> Result<Self, TrainError> {
        if options.epochs == 0 {
            return Err(TrainError::NoEpochs);
        }
        let device = Opened::<D>::new(options.seed)?;
        let model = build(&device)?;
        let optimizer = learner(&model)?;
        Ok(Self { model, optimizer, device })
    }
}

/// Trains. The caller tells the other ranks of an error, by [`or_leave`](super::ranks::or_leave).
pub(super) fn fit<M: NumParams<E, D> + ZeroGrads<E, D>, D: TrainsIn<E>, E: Number>(
    start: &mut Start<M, D, E>,
    task: &dyn Task<M, D, E>,
    options: &Options,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let Start { device, model, optimizer } = start;
    let (ranks, together) = (persistence.ranks.map_or(1, AnyRanks::size), optimizer.ranks());
    if ranks != together {
        return Err(TrainError::Apart { ranks, together });
    }
    let batches = task.batches_per_epoch();
    let settings = task.settings().and(persistence.settings.unwrap_or(&Facts::default()));
    let settings = settings.with("--precision", E::NAME);
    let new = Progress::new(options, &settings, task.data()?, batches);
    if let Some(ranks) = persistence.ranks {
        new.agree(ranks, options.epochs, persistence.checkpoint.is_some())?;
    }
    let begun = persistence.begin(model, &mut **optimizer, new, options.epochs)?;
    let (mut progress, _held) = begun;
    let (parameters, window) = (parameters(model), optimizer.window());
    observer(Event::Begun { parameters, batches, window });
    let mut told = Reported::default();
    if persistence.resume {
        told.replay(&progress, batches, &**optimizer, observer);
    }
    let before = progress.drawn(persistence.ranks.map_or(0, AnyRanks::rank));
    for _ in 0..before {
        device.random_u64();
    }
    let before = before.wrapping_sub(dropout::drawn());
    let drawn = || before.wrapping_add(dropout::drawn());
    let mut gradients = Some(model.try_alloc_grads().map_err(failed)?);
    for epoch in progress.epochs.len()..options.epochs {
        let begun = Instant::now();
        let seconds = progress.seconds;
        let skip = progress.batch();
        task.epoch(epoch, skip, &mut |weight, loss| {
            let schedule = optimizer.factor();
            optimizer.weigh_next(weight)?;
            optimizer.tell_stop(persistence.is_stopped());
            let stepped = match weight {
                0 => idle_step(&mut **optimizer, model, &mut gradients),
                _ => train_step(&mut **optimizer, model, &mut gradients, loss),
            };
            // Decisions that led to an error are reported before it.
            told.decisions(optimizer.history(), observer);
            let (loss, step) = stepped?;
            let (value, weight) = optimizer.last_batch().unwrap_or((loss, weight as f64));
            let batch = progress.batch();
            progress.losses.push(value);
            progress.schedule.push(schedule);
            progress.decided.push(optimizer.history().len());
            // A batch that was skipped or undone does not make the epoch's mean NaN.
            let undone = matches!(step, tlr::Step::Skipped(_) | tlr::Step::RolledBack { .. });
            if value.is_finite() || !undone {
                progress.sum += value * weight;
                progress.weights += weight as usize;
            }
            let rates = optimizer.rates();
            observer(Event::Step { epoch, batch, batches, loss: value, rates, schedule });
            if optimizer.tell_stop(persistence.is_stopped()) {
                progress.seconds = seconds + begun.elapsed().as_secs_f64();
                persistence.save(model, &mut **optimizer, &mut progress, drawn())?;
                return Err(TrainError::Stopped { step: progress.losses.len() });
            }
            Ok(())
        })?;
        if has_buffers(model) {
            optimizer.average_buffers(model)?;
        }
        progress.seconds = seconds + begun.elapsed().as_secs_f64();
        // Saved before the test: if that fails, the epoch is not lost. And before the passes for an
        // averaged model, which draw for dropout: a run that goes on from here makes them again.
        let saved = persistence.save(model, &mut **optimizer, &mut progress, drawn());
        if let Err(error) = saved {
            observer(Event::NotSaved(&error));
        }
        let averaged = averaged(&**optimizer, model, task, epoch)?;
        let tested = averaged.as_ref().unwrap_or(model);
        let (test_loss, test_accuracy) = task.test(tested)?;
        let record = Epoch {
            epoch: epoch + 1,
            train_loss: progress.sum / progress.weights as f64,
            test_loss,
            test_accuracy,
            seconds: seconds + begun.elapsed().as_secs_f64(),
            rates: optimizer
                .rates()
                .iter()
                .map(|(name, rate)| ((*name).to_owned(), *rate))
                .collect(),
            schedule: progress.schedule.last().copied().unwrap_or(1.0),
            rollbacks: optimizer
                .history()
                .get(progress.decided_before()..)
                .map_or(0, |decisions| rollback_steps(decisions).len()),
        };
        let kept = persistence.keep_best(tested, &record, &progress.epochs, &task.notes());
        if let Err(error) = kept {
            observer(Event::NotSaved(&error));
        }
        observer(Event::Epoch(&record));
        progress.epochs.push(record);
        (progress.sum, progress.weights, progress.seconds) = (0.0, 0, 0.0);
    }
    Ok(Run {
        seconds: progress.epochs.iter().map(|epoch| epoch.seconds).sum(),
        epochs: progress.epochs,
        losses: progress.losses,
        history: optimizer.history().to_vec(),
        batches_per_epoch: batches,
        parameters,
    })
}

/// Makes a step, and returns the loss before it and what the optimizer did. `loss` computes the
/// batch's loss, also at trial weights. The buffers of the gradients are kept for the next step.
pub(crate) fn train_step<M: ZeroGrads<E, D>, D: TrainsIn<E>, E: Number>(
    optimizer: &mut dyn Learner<M, D, E>,
    model: &mut M,
    gradients: &mut Option<Gradients<E, D>>,
    loss: &mut Loss<'_, M, D, E>,
) -> Result<(f64, tlr::Step), TrainError> {
    let before = match gradients.take() {
        Some(gradients) => gradients,
        None => model.try_alloc_grads().map_err(failed)?,
    };
    let traced = loss(model, before)?;
    let untraced = traced.with_empty_tape();
    let mut after = optimizer.scaled(traced)?.try_backward().map_err(failed)?;
    // Read only now: on a GPU the host waits here until all before it is computed.
    let value = f64::from(untraced.array().widened());
    let step = optimizer.step_with(model, &mut after, value, &mut |model| {
        Ok(f64::from(loss(model, Gradients::leaky())?.array().widened()))
    })?;
    model.try_zero_grads(&mut after).map_err(failed)?;
    *gradients = Some(after);
    Ok((value, step))
}

/// Makes the step of a rank that has no example of this batch, with gradients of 0. Returns a loss
/// of 0: the caller uses the mean over the ranks instead.
fn idle_step<M: ZeroGrads<E, D>, D: TrainsIn<E>, E: Number>(
    optimizer: &mut dyn Learner<M, D, E>,
    model: &mut M,
    gradients: &mut Option<Gradients<E, D>>,
) -> Result<(f64, tlr::Step), TrainError> {
    let mut zeros = match gradients.take() {
        Some(zeros) => zeros,
        None => model.try_alloc_grads().map_err(failed)?,
    };
    let step = optimizer.step(model, &mut zeros, 0.0)?;
    model.try_zero_grads(&mut zeros).map_err(failed)?;
    *gradients = Some(zeros);
    Ok((0.0, step))
}

/// The model to test, if it is not the one that is trained.
fn averaged<M: TensorCollection<E, D>, D: TrainsIn<E>, E: Number>(
    optimizer: &dyn Learner<M, D, E>,
    model: &M,
    task: &dyn Task<M, D, E>,
    epoch: usize,
) -> Result<Option<M>, TrainError> {
    let averaged = optimizer.averaged(model).map(|averaged| {
        recalibrated(averaged, task.batches_per_epoch(), |averaged, skip| {
            task.epoch(epoch, skip, &mut |_, loss| loss(averaged, Gradients::leaky()).map(drop))
        })
    });
    averaged.transpose()
}
