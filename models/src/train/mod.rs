//! Training a model: what the examples and the sweeps have in common.

mod learner;
mod network;
mod options;
mod source;

pub use learner::{learner, Learner};
pub use network::{Logits, Network, Pixels};
pub use options::{name, Base, Mode, Options, Rule};
pub use source::{Decoded, InMemory, Source, Visit};

use crate::{data::DataError, layers::LayerError, report::Epoch, Mlp};
use dfdx::{
    losses::cross_entropy_with_logits_loss,
    prelude::{AsArray, Backward, Cache, Cpu, CpuError},
};
use network::tensor;
use std::time::Instant;
use tlr::{Adaptation, Outcome};

/// The paper's perceptron: 784-1000-10.
pub type Net = Mlp<784, 1000, 10, f32, Cpu>;

/// What happens during a run, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// After a step.
    Step {
        /// Counted from 0.
        epoch: usize,
        /// Counted from 0, within the epoch.
        batch: usize,
        /// Batches in an epoch.
        batches: usize,
        /// Of this batch, before the step.
        loss: f64,
        /// Each group's name and rate after the step.
        rates: Vec<(&'a str, f64)>,
    },
    /// After an epoch and its test.
    Epoch(&'a Epoch),
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Run {
    /// Epoch by epoch.
    pub epochs: Vec<Epoch>,
    /// Every decision on a rate.
    pub history: Vec<Adaptation>,
    /// Optimizer steps in an epoch.
    pub batches_per_epoch: usize,
    /// Trainable parameters of the model.
    pub parameters: usize,
    /// Of the whole run, tests included.
    pub seconds: f64,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The data or the batch size.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The rate's configuration, or training itself.
    #[error(transparent)]
    Rate(#[from] tlr::Error),
    /// No epochs.
    #[error("a run has at least one epoch")]
    NoEpochs,
    /// Images of another kind than the model takes.
    #[error(
        "the model takes images of {takes} in at most {most} classes, not of {shape:?} (channels, rows, columns) \
         in {classes}"
    )]
    Images {
        /// What it takes.
        takes: &'static str,
        /// The classes it tells apart.
        most: usize,
        /// Channels, rows and columns of the images.
        shape: [usize; 3],
        /// Their classes.
        classes: usize,
    },
    /// An image that does not fit a layer, or no memory.
    #[error(transparent)]
    Layer(#[from] LayerError<CpuError>),
    /// Out of memory.
    #[error("device: {0}")]
    Device(#[from] CpuError),
}

/// Whether [`train`] could begin: what it would check first, and no more.
///
/// # Errors
/// Options or data that make no sense.
pub fn check<M: Network>(source: &dyn Source, options: &Options) -> Result<(), TrainError> {
    prepare::<M>(source, options).map(|_| ())
}

/// What a run starts with.
struct Start<M> {
    device: Cpu,
    model: M,
    optimizer: Box<dyn Learner<M>>,
}

fn prepare<M: Network>(source: &dyn Source, options: &Options) -> Result<Start<M>, TrainError> {
    let (shape, classes) = (source.shape(), source.classes());
    if !M::accepts(shape) || classes > M::CLASSES {
        return Err(TrainError::Images { takes: M::TAKES, most: M::CLASSES, shape, classes });
    }
    if options.epochs == 0 {
        return Err(TrainError::NoEpochs);
    }
    let device = Cpu::seed_from_u64(options.seed);
    device.try_enable_cache()?;
    let model = M::try_build(&device)?;
    let optimizer = learner(&model, options, source.batches_per_epoch())?;
    Ok(Start { device, model, optimizer })
}

/// Trains a new model on the images of `source` as `options` say, and tells `observer` of every step and epoch.
///
/// The result depends on `options` and `source` only.
///
/// # Errors
/// Options or data that make no sense; training that [`tlr::Error`] ends.
pub fn train<M: Network>(
    source: &dyn Source,
    options: &Options,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let Start { device, mut model, mut optimizer } = prepare::<M>(source, options)?;
    let batches = source.batches_per_epoch();
    let [channels, rows, columns] = source.shape();
    let start = Instant::now();
    let mut epochs = Vec::with_capacity(options.epochs);
    let mut history = Vec::new();
    let mut gradients = Some(model.try_alloc_grads()?);
    for epoch in 0..options.epochs {
        let epoch_start = Instant::now();
        let (mut train_loss, mut batch) = (0.0, 0);
        source.epoch(epoch, &mut |pixels, labels| {
            let images = (pixels, [labels.len(), channels, rows, columns]);
            let before = match gradients.take() {
                Some(gradients) => gradients,
                None => model.try_alloc_grads()?,
            };
            let logits = model.train_logits(&device, images, before)?;
            let y = one_hot::<M>(&device, labels)?;
            let loss = cross_entropy_with_logits_loss(logits, y);
            let value = f64::from(loss.array());
            let mut after = loss.try_backward()?;
            optimizer.step(&mut model, &after, value)?;
            model.try_zero_grads(&mut after)?;
            gradients = Some(after);
            train_loss += value * labels.len() as f64;
            observer(Event::Step { epoch, batch, batches, loss: value, rates: optimizer.rates() });
            batch += 1;
            Ok(())
        })?;
        let decided = optimizer.take_history();
        let (test_loss, test_accuracy) = test(&model, &device, source)?;
        let record = Epoch {
            epoch: epoch + 1,
            train_loss: train_loss / source.train_len() as f64,
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

/// The steps at which windows were undone; with a rate a layer, once for all layers.
pub fn rollback_steps(history: &[Adaptation]) -> Vec<u64> {
    let mut steps: Vec<_> = history
        .iter()
        .filter(|decision| matches!(decision.outcome, Outcome::RolledBack(_)))
        .map(|decision| decision.step)
        .collect();
    steps.dedup();
    steps
}

/// Mean loss and accuracy.
fn test<M: Network>(
    model: &M,
    device: &Cpu,
    source: &dyn Source,
) -> Result<(f64, f64), TrainError> {
    let [channels, rows, columns] = source.shape();
    let (mut loss, mut correct) = (0.0, 0);
    source.test(&mut |pixels, labels| {
        let logits = model.logits(device, (pixels, [labels.len(), channels, rows, columns]))?;
        correct += logits
            .as_vec()
            .chunks(M::CLASSES)
            .zip(labels)
            .filter(|(logits, label)| argmax(logits) == **label)
            .count();
        let y = one_hot::<M>(device, labels)?;
        loss += f64::from(cross_entropy_with_logits_loss(logits, y).array()) * labels.len() as f64;
        Ok(())
    })?;
    let count = source.test_len() as f64;
    Ok((loss / count, correct as f64 / count))
}

/// 1 at each label.
fn one_hot<M: Network>(
    device: &Cpu,
    labels: &[usize],
) -> Result<Logits<dfdx::prelude::NoneTape>, CpuError> {
    let mut one_hot = vec![0.0; labels.len() * M::CLASSES];
    for (row, &label) in one_hot.chunks_mut(M::CLASSES).zip(labels) {
        if let Some(probability) = row.get_mut(label) {
            *probability = 1.0;
        }
    }
    tensor(device, &one_hot, (labels.len(), M::CLASSES))
}

fn argmax(values: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &value) in values.iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}
