//! Training a model: what the examples and the sweeps have in common.

mod facts;
mod fit;
mod learner;
mod network;
mod options;
mod persistence;
mod ranks;
mod source;
#[cfg(feature = "text")]
mod translation;
mod verdict;

pub use facts::Facts;
#[cfg(feature = "lab")]
pub(crate) use fit::train_step;
pub use fit::TrainLoss;
pub use learner::{learner, Learner, Trial};
pub use network::{Logits, Network, Pixels};
pub use options::{name, Base, Mode, Options, Rule, Shape};
pub use persistence::Persistence;
pub use ranks::{alone, AnyRanks, Share};
#[cfg(feature = "pictures")]
pub use source::Decoded;
pub use source::{InMemory, Source, Visit};
#[cfg(feature = "text")]
pub use translation::{score, train_translator, Corpus, Tally, Translator, BLEU_SIGNATURE};
pub use verdict::{judge, Fault, Verdict};

use crate::{data::DataError, layers::LayerError, report::Epoch, Mlp};
use dfdx::{
    losses::cross_entropy_with_logits_loss,
    prelude::{AsArray, Cpu, CpuError},
};
use fit::{fit, Start, Step, Task};
pub(crate) use network::tensor;
use std::path::PathBuf;
use tlr::{Adaptation, Outcome};

/// The paper's perceptron: 784-1000-10.
pub type Net = Mlp<784, 1000, 10, f32, Cpu>;

/// What happens during a run, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The first: model and data fit, and training is about to begin, or to go on.
    Begun {
        /// Trainable parameters of the model.
        parameters: usize,
        /// Batches in an epoch.
        batches: usize,
        /// Steps in a window, after which a rate is decided on.
        window: usize,
    },
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
        /// Each group's name and learned rate after the step.
        rates: Vec<(&'a str, f64)>,
        /// What the schedule has multiplied the learned rates by in this step: 1 without one, and while
        /// the starting rate is looked for.
        schedule: f64,
    },
    /// A decision on a rate, before the step that it was made in is told.
    Decision(&'a Adaptation),
    /// After an epoch and its test.
    Epoch(&'a Epoch),
    /// The run goes on from a checkpoint, or begins where there is none yet. The events that led there are told again
    /// after this one.
    Resumed {
        /// Steps that the checkpoint is after; none where there is none.
        step: Option<usize>,
    },
    /// A checkpoint or the best weights could not be written. The run goes on; the file before is still
    /// there.
    NotSaved(&'a dyn std::error::Error),
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Run {
    /// Epoch by epoch.
    pub epochs: Vec<Epoch>,
    /// Of every step, before it was made.
    pub losses: Vec<f64>,
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
    /// It was told to stop, and was saved where it was to be.
    #[error("stopped after step {step}")]
    Stopped {
        /// Steps made.
        step: usize,
    },
    /// A checkpoint that is to be written is there already.
    #[error("there is a checkpoint at {} already: resume from it, or remove it first", .0.display())]
    CheckpointExists(PathBuf),
    /// No checkpoint can be written where it is to be.
    #[error("cannot write the checkpoint {}: {source}; nothing was trained", path.display())]
    CheckpointPath {
        /// Where it was to be.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A checkpoint of another run.
    #[error("the checkpoint {} is of another run: {what}", path.display())]
    AnotherRun {
        /// The checkpoint.
        path: PathBuf,
        /// In what it differs.
        what: String,
    },
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
    /// Sentences that cannot be encoded, or batches of none.
    #[cfg(feature = "text")]
    #[error(transparent)]
    Text(#[from] crate::data::text::TextError),
    /// More tokens than the model has room for.
    #[cfg(feature = "text")]
    #[error(
        "the model has room for {takes:?} tokens in source and target, and the vocabularies hold {found:?}; \
         learn smaller ones"
    )]
    Vocabulary {
        /// What it has room for.
        takes: [usize; 2],
        /// What the vocabularies hold.
        found: [usize; 2],
    },
    /// A translation that could not be found.
    #[cfg(feature = "text")]
    #[error(transparent)]
    Search(#[from] crate::search::SearchError<LayerError<CpuError>>),
    /// An input that does not fit a layer, or no memory.
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
    let learner = |model: &M| learner_for(model, source, options, None);
    prepare::<M>(source, options, learner).map(|_| ())
}

/// The optimizer that `options` ask for.
fn learner_for<M: Network>(
    model: &M,
    source: &dyn Source,
    options: &Options,
    ranks: Option<&AnyRanks>,
) -> Result<Box<dyn Learner<M>>, tlr::Error> {
    let ranks = ranks.cloned().unwrap_or_else(alone);
    learner(model, options, source.batches_per_epoch(), ranks)
}

fn prepare<M: Network>(
    source: &dyn Source,
    options: &Options,
    learner: impl FnOnce(&M) -> Result<Box<dyn Learner<M>>, tlr::Error>,
) -> Result<Start<M>, TrainError> {
    let (shape, classes) = (source.shape(), source.classes());
    if !M::accepts(shape) || classes > M::CLASSES {
        return Err(TrainError::Images { takes: M::TAKES, most: M::CLASSES, shape, classes });
    }
    Start::new(options, |device| Ok(M::try_build(device)?), learner)
}

/// Trains a new model on the images of `source` as `options` say, and tells `observer` of every step and epoch.
///
/// The result depends on `options` and `source` only, however often the run is stopped and resumed.
///
/// # Errors
/// Options or data that make no sense; training that [`tlr::Error`] ends.
pub fn train<M: Network>(
    source: &dyn Source,
    options: &Options,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let learner = |model: &M| learner_for(model, source, options, persistence.ranks);
    train_with(source, options, learner, persistence, observer)
}

/// The same with an optimizer of the caller's, such as a [peer](crate::baselines::PeerOptimizer). What
/// `options` say of the optimizer and its rate has no effect then.
///
/// # Errors
/// As [`train`].
pub fn train_with<M: Network>(
    source: &dyn Source,
    options: &Options,
    learner: impl FnOnce(&M) -> Result<Box<dyn Learner<M>>, tlr::Error>,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let mut start = prepare::<M>(source, options, learner)?;
    let task = Images { source, device: start.device.clone() };
    fit(&mut start, &task, options, persistence, observer)
}

/// Images to classify.
struct Images<'a> {
    source: &'a dyn Source,
    device: Cpu,
}

impl<M: Network> Task<M> for Images<'_> {
    fn batches_per_epoch(&self) -> usize {
        self.source.batches_per_epoch()
    }

    fn settings(&self) -> Facts {
        self.source.settings()
    }

    fn data(&self) -> Result<Facts, TrainError> {
        self.source.data()
    }

    fn epoch(&self, epoch: usize, skip: usize, step: &mut Step<'_, M>) -> Result<(), TrainError> {
        let [channels, rows, columns] = self.source.shape();
        self.source.epoch(epoch, skip, &mut |pixels, labels| {
            step(labels.len(), &mut |model, gradients| {
                let images = (pixels, [labels.len(), channels, rows, columns]);
                let logits = model.train_logits(&self.device, images, gradients)?;
                let y = one_hot::<M>(&self.device, labels)?;
                Ok(cross_entropy_with_logits_loss(logits, y))
            })
        })
    }

    fn notes(&self) -> Vec<(&'static str, String)> {
        self.source.notes()
    }

    fn test(&self, model: &M) -> Result<(f64, f64), TrainError> {
        test(model, &self.device, self.source)
    }
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
pub(crate) fn one_hot<M: Network>(
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

/// Where the largest value is.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &value) in values.iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}
