//! Training a model: what the examples and the sweeps have in common.

mod cause;
mod chosen;
mod device;
mod error;
mod facts;
mod fit;
#[cfg(feature = "f16")]
mod half;
mod learner;
mod network;
mod number;
mod options;
mod peers;
mod persistence;
mod ranks;
mod replay;
mod run;
mod source;
mod together;
#[cfg(feature = "text")]
mod translation;
#[cfg(feature = "text")]
mod translator;
mod verdict;

pub use crate::device::DeviceError;
pub use cause::explained;
pub use chosen::learner;
#[cfg(any(test, feature = "lab"))]
pub(crate) use device::Opened;
pub use device::{TrainDevice, TrainsIn};
#[cfg(feature = "lab")]
pub(crate) use error::failed;
pub use error::TrainError;
pub use facts::{Change, Changes, Facts};
#[cfg(any(test, feature = "lab"))]
pub(crate) use fit::train_step;
pub use learner::{Learner, LossOfModel, TrainLoss};
pub use network::{Logits, Network, Pixels, TrainLogits};
pub use number::{Model, Number, Trainable};
pub use options::{name, Base, Mode, Options, Rule, ScheduleKind};
pub use persistence::Persistence;
pub(crate) use ranks::or_leave;
pub use ranks::{alone, AnyRanks, Share};
pub use run::{rollback_steps, Event, Run};
#[cfg(feature = "pictures")]
pub use source::Decoded;
pub use source::{InMemory, Source, Visit};
#[cfg(feature = "text")]
pub use translation::{score, train_translator, Corpus, BLEU_SIGNATURE};
#[cfg(feature = "text")]
pub use translator::{Tally, Translator};
pub use verdict::{judge, Fault, Verdict};

use crate::Mlp;
use dfdx::{
    losses::cross_entropy_with_logits_loss,
    prelude::{AsArray, Cpu, NoneTape},
};
use fit::{fit, Start, StepFn, Task};
pub(crate) use network::tensor;

/// The paper's perceptron: 784-1000-10.
pub type Net<D = Cpu, E = f32> = Mlp<784, 1000, 10, E, D>;

/// An optimizer of a model, whatever it is made of.
pub type AnyLearner<M> = Box<dyn Learner<M, <M as Model>::Device, <M as Model>::Number>>;

/// Checks whether [`train`] could begin, and does no more.
///
/// # Errors
/// Options or data that make no sense.
///
/// # Example
/// ```
/// use tlr_models::{
///     data::digits,
///     train::{check, InMemory, Net, Options},
/// };
///
/// let data = digits::draw(0, 64, 16)?;
/// let source = InMemory::new(&data, 16, 0, None)?;
/// assert!(check::<Net>(&source, &Options::default()).is_ok());
/// let options = Options { epochs: 0, ..Options::default() };
/// assert!(check::<Net>(&source, &options).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
) -> Result<AnyLearner<M>, TrainError> {
    let ranks = ranks.cloned().unwrap_or_else(alone);
    Ok(M::Number::learner(model, options, source.batches_per_epoch(), ranks)?)
}

fn prepare<M: Network>(
    source: &dyn Source,
    options: &Options,
    learner: impl FnOnce(&M) -> Result<AnyLearner<M>, TrainError>,
) -> Result<Start<M, M::Device, M::Number>, TrainError> {
    let (shape, classes) = (source.shape(), source.classes());
    if !M::accepts(shape) || classes > M::CLASSES {
        return Err(TrainError::Images { takes: M::TAKES, most: M::CLASSES, shape, classes });
    }
    Start::new(options, |device| M::try_build(device).map_err(error::failed), learner)
}

/// Trains a new model on the images of `source` as `options` say, and calls `observer` for every
/// step and epoch.
///
/// The result depends on `options` and `source` only, however often the run is stopped and resumed.
///
/// # Errors
/// Options or data that make no sense; [`TrainError::OtherShare`], if the source does not show this
/// rank's share of each batch; [`TrainError::Label`], if it shows a label that is no class;
/// training that [`tlr::Error`] ends.
///
/// # Example
/// ```
/// use tlr_models::{
///     data::digits,
///     train::{train, InMemory, Net, Options, Persistence},
/// };
///
/// let data = digits::draw(0, 64, 16)?;
/// let options = Options { epochs: 1, batch_size: 16, ..Options::default() };
/// let source = InMemory::new(&data, options.batch_size, options.seed, None)?;
/// let run = train::<Net>(&source, &options, &Persistence::default(), &mut |_| ())?;
/// assert_eq!((run.epochs.len(), run.losses.len()), (1, 4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train<M: Network>(
    source: &dyn Source,
    options: &Options,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let learner = |model: &M| learner_for(model, source, options, persistence.ranks);
    train_with(source, options, learner, persistence, observer)
}

/// [`train`] for a [`Net`], compiled with this crate. At `opt-level` 0 or 1 rustc shares generic
/// code between crates. So a program that is not optimised calls the optimised code of this crate,
/// and does not compile it again.
#[cfg(debug_assertions)]
#[doc(hidden)]
pub fn train_net(
    source: &dyn Source,
    options: &Options,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    train::<Net>(source, options, persistence, observer)
}

/// As [`train`], with an optimizer of the caller's, such as a
/// [peer](crate::baselines::PeerOptimizer). What `options` say of the optimizer and its rate has no
/// effect then.
///
/// On several ranks the optimizer has to average gradients over them, which a peer does not do.
/// [`Learner::ranks`] says whether it does.
///
/// # Errors
/// As [`train`], and [`TrainError::Apart`] if the optimizer and `persistence` are of different
/// numbers of ranks. Nothing is trained then.
///
/// # Example
/// ```
/// use tlr_models::{
///     baselines::{PeerOptimizer, Prodigy},
///     data::digits,
///     train::{train_with, AnyLearner, InMemory, Net, Options, Persistence},
/// };
///
/// let data = digits::draw(0, 64, 16)?;
/// let options = Options { epochs: 1, batch_size: 16, ..Options::default() };
/// let source = InMemory::new(&data, options.batch_size, options.seed, None)?;
/// let prodigy = |model: &Net| {
///     Ok(Box::new(PeerOptimizer::new(model, Prodigy::default())?) as AnyLearner<Net>)
/// };
/// let run = train_with(&source, &options, prodigy, &Persistence::default(), &mut |_| ())?;
/// assert_eq!(run.losses.len(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train_with<M: Network>(
    source: &dyn Source,
    options: &Options,
    learner: impl FnOnce(&M) -> Result<AnyLearner<M>, TrainError>,
    persistence: &Persistence<'_>,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let (own, shown) = (persistence.share(), source.own_share());
    let shared = if own == shown { Ok(()) } else { Err(TrainError::OtherShare { own, shown }) };
    let prepared = shared.and_then(|()| prepare::<M>(source, options, learner));
    let trained = prepared.and_then(|mut start| {
        let task = Images { source, device: start.device.clone() };
        fit(&mut start, &task, options, persistence, observer)
    });
    or_leave(persistence.ranks, trained, TrainError::all_know)
}

/// Images to classify.
struct Images<'a, D> {
    source: &'a dyn Source,
    device: D,
}

impl<M: Network> Task<M, M::Device, M::Number> for Images<'_, M::Device> {
    fn batches_per_epoch(&self) -> usize {
        self.source.batches_per_epoch()
    }

    fn settings(&self) -> Facts {
        self.source.settings()
    }

    fn data(&self) -> Result<Facts, TrainError> {
        self.source.data()
    }

    fn epoch(
        &self,
        epoch: usize,
        skip: usize,
        step: &mut StepFn<'_, M, M::Device, M::Number>,
    ) -> Result<(), TrainError> {
        let [channels, rows, columns] = self.source.shape();
        self.source.epoch(epoch, skip, &mut |pixels, labels| {
            check_labels(labels, self.source.classes())?;
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

/// The mean loss and the accuracy on the images to test on.
fn test<M: Network>(
    model: &M,
    device: &M::Device,
    source: &dyn Source,
) -> Result<(f64, f64), TrainError> {
    let [channels, rows, columns] = source.shape();
    let (mut loss, mut correct, mut shown) = (0.0, 0, 0);
    source.test(&mut |pixels, labels| {
        check_labels(labels, source.classes())?;
        let logits = model.logits(device, (pixels, [labels.len(), channels, rows, columns]))?;
        let values: Vec<f32> = logits.as_vec().into_iter().map(M::Number::widened).collect();
        correct += values
            .chunks(M::CLASSES)
            .zip(labels)
            .filter(|(logits, label)| argmax(logits) == Some(**label))
            .count();
        let y = one_hot::<M>(device, labels)?;
        let mean = cross_entropy_with_logits_loss(logits, y).array().widened();
        loss += f64::from(mean) * labels.len() as f64;
        shown += labels.len();
        Ok(())
    })?;
    let count = shown as f64;
    Ok((loss / count, correct as f64 / count))
}

fn check_labels(labels: &[usize], classes: usize) -> Result<(), TrainError> {
    match labels.iter().find(|label| **label >= classes) {
        Some(&label) => Err(TrainError::Label { label, classes }),
        None => Ok(()),
    }
}

/// A row for each label, which is 1 at the label and 0 elsewhere.
///
/// # Errors
/// A label that is no class of the model: a row of zeros would have a loss of 0 and teach nothing.
pub(crate) fn one_hot<M: Network>(
    device: &M::Device,
    labels: &[usize],
) -> Result<Logits<NoneTape, M::Device, M::Number>, TrainError> {
    check_labels(labels, M::CLASSES)?;
    let mut one_hot = vec![0.0; labels.len() * M::CLASSES];
    for (row, &label) in one_hot.chunks_mut(M::CLASSES).zip(labels) {
        if let Some(probability) = row.get_mut(label) {
            *probability = 1.0;
        }
    }
    tensor(device, &one_hot, (labels.len(), M::CLASSES)).map_err(error::failed)
}

/// The index of the largest value, the first of several. `None` if there is no value, or if one is
/// NaN: such logits decide for no class, not even for the right one.
pub(crate) fn argmax(values: &[f32]) -> Option<usize> {
    let mut best = None;
    for (index, &value) in values.iter().enumerate() {
        if value.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests;
