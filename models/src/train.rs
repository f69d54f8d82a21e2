//! Trains the paper's perceptron on images: what the examples and the sweeps have in common.

use crate::{
    data::{Batches, DataError, Dataset, Images, Scaling},
    report::Epoch,
    Mlp,
};
use clap::ValueEnum;
use dfdx::{
    losses::cross_entropy_with_logits_loss,
    nn::{BuildModule, Module, NumParams, ZeroGrads},
    optim::{Adam, AdamConfig, Momentum, Optimizer, RMSprop, RMSpropConfig, Sgd, SgdConfig},
    prelude::{
        AsArray, Backward, Cache, Const, Cpu, CpuError, Gradients, Tensor, Trace, ZerosTensor,
    },
};
use serde::{Deserialize, Serialize};
use std::time::Instant;
use tlr::{
    rule::{HypergradientRule, Moments, NewtonForm, NewtonRule, Proposal, RateRule},
    Adaptation, Config, Family, LearningRate, Outcome, PerLayer, Safeguard, Tlr, Window,
};

/// Pixels of an image.
const PIXELS: usize = 28 * 28;
/// Classes.
const CLASSES: usize = 10;
/// Images tested at a time; only a matter of memory.
const TEST_BATCH: usize = 1000;

/// The model: 784-1000-10.
pub type Net = Mlp<PIXELS, 1000, CLASSES, f32, Cpu>;

/// Which optimizer carries the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Plain stochastic gradient descent
    #[default]
    Sgd,
    /// With classic momentum 0.9
    Momentum,
    /// With Nesterov momentum 0.9
    Nesterov,
    /// Adam with dfdx's defaults
    Adam,
    /// RMSprop with dfdx's defaults
    Rmsprop,
}

/// One rate for the model, or one a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One rate
    #[default]
    Global,
    /// One rate a layer
    PerLayer,
}

/// How the rate moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The Newton step from the rate it belongs to
    #[default]
    Aligned,
    /// The Newton step as the paper has it (Eq. 8)
    Paper,
    /// First order: add η times the derivative
    Additive,
    /// First order: multiply by 1 + η times the cosine
    Multiplicative,
    /// The base optimizer alone
    Constant,
}

/// The name on the command line and in files.
pub fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A training run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Which optimizer carries the rate. Default plain SGD.
    pub optimizer: Base,
    /// Default one rate.
    pub mode: Mode,
    /// Default the aligned Newton rule.
    pub rule: Rule,
    /// The starting rate. Default 1e-6.
    pub rate: f64,
    /// Images in a batch. Default 128.
    pub batch_size: usize,
    /// p, the fraction of an epoch between two adaptations. Default 0.2.
    pub window_fraction: f64,
    /// γ of the Newton rules. Default 0.33.
    pub damping: f64,
    /// η of the first-order rules. Default 0.01.
    pub meta_rate: f64,
    /// Whether windows that go wrong are undone; never with a constant rate. Default true.
    pub safeguard: bool,
    /// Passes over the training images. Default 10.
    pub epochs: usize,
    /// Of the weights and the order of the images. Default 0.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            optimizer: Base::Sgd,
            mode: Mode::Global,
            rule: Rule::Aligned,
            rate: 1e-6,
            batch_size: 128,
            window_fraction: 0.2,
            damping: 0.33,
            meta_rate: 0.01,
            safeguard: true,
            epochs: 10,
            seed: 0,
        }
    }
}

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
    #[error("the model takes images of {PIXELS} pixels in at most {CLASSES} classes, not {pixels} in {classes}")]
    Images {
        /// Pixels of an image.
        pixels: usize,
        /// Classes.
        classes: usize,
    },
    /// Out of memory.
    #[error("device: {0}")]
    Device(#[from] CpuError),
}

/// Whether [`train`] could begin: what it would check first, and no more.
///
/// # Errors
/// Options or data that make no sense.
pub fn check(data: &Dataset, options: &Options) -> Result<(), TrainError> {
    prepare(data, options).map(|_| ())
}

/// What a run starts with.
struct Start {
    device: Cpu,
    model: Net,
    batches: Batches,
    optimizer: Box<dyn Learner>,
}

fn prepare(data: &Dataset, options: &Options) -> Result<Start, TrainError> {
    let pixels = data.train.size();
    let classes = data.train.classes();
    if pixels != PIXELS || classes > CLASSES {
        return Err(TrainError::Images { pixels, classes });
    }
    if options.epochs == 0 {
        return Err(TrainError::NoEpochs);
    }
    let device = Cpu::seed_from_u64(options.seed);
    device.try_enable_cache()?;
    let model: Net = BuildModule::try_build(&device)?;
    let batches = Batches::new(data.train.len(), options.batch_size, options.seed)?;
    let optimizer = learner(&model, options, batches.batches_per_epoch())?;
    Ok(Start { device, model, batches, optimizer })
}

/// Trains a new model on `data` as `options` say, and tells `observer` of every step and epoch.
///
/// The result depends on `options` and `data` only.
///
/// # Errors
/// Options or data that make no sense; training that [`tlr::Error`] ends.
pub fn train(
    data: &Dataset,
    options: &Options,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Run, TrainError> {
    let Start { device, mut model, batches, mut optimizer } = prepare(data, options)?;
    let per_epoch = batches.batches_per_epoch();
    let scaling = data.train.scaling();
    let start = Instant::now();
    let mut epochs = Vec::with_capacity(options.epochs);
    let mut history = Vec::new();
    let mut gradients = model.try_alloc_grads()?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for epoch in 0..options.epochs {
        let epoch_start = Instant::now();
        let mut train_loss = 0.0;
        for (batch, indices) in batches.epoch(epoch).enumerate() {
            data.train.write_batch(&indices, &scaling, &mut pixels, &mut labels)?;
            let (x, y) = tensors(&device, &pixels, &labels)?;
            let logits = model.try_forward(x.traced(gradients))?;
            let loss = cross_entropy_with_logits_loss(logits, y);
            let value = f64::from(loss.array());
            gradients = loss.try_backward()?;
            optimizer.step(&mut model, &gradients, value)?;
            model.try_zero_grads(&mut gradients)?;
            train_loss += value * indices.len() as f64;
            let rates = optimizer.rates();
            observer(Event::Step { epoch, batch, batches: per_epoch, loss: value, rates });
        }
        let decided = optimizer.take_history();
        let (test_loss, test_accuracy) = test(&model, &device, &data.test, &scaling)?;
        let record = Epoch {
            epoch: epoch + 1,
            train_loss: train_loss / data.train.len() as f64,
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
        batches_per_epoch: per_epoch,
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
fn test(
    model: &Net,
    device: &Cpu,
    images: &Images,
    scaling: &Scaling,
) -> Result<(f64, f64), TrainError> {
    let indices: Vec<_> = (0..images.len()).collect();
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let (mut loss, mut correct) = (0.0, 0);
    for indices in indices.chunks(TEST_BATCH) {
        images.write_batch(indices, scaling, &mut pixels, &mut labels)?;
        let (x, y) = tensors(device, &pixels, &labels)?;
        let logits = model.try_forward(x)?;
        correct += logits
            .as_vec()
            .chunks(CLASSES)
            .zip(&labels)
            .filter(|(logits, label)| argmax(logits) == **label)
            .count();
        loss += f64::from(cross_entropy_with_logits_loss(logits, y).array()) * indices.len() as f64;
    }
    let count = images.len() as f64;
    Ok((loss / count, correct as f64 / count))
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

type Matrix<const N: usize> = Tensor<(usize, Const<N>), f32, Cpu>;

/// In memory that the device has, and takes back: a `Vec` moved into a tensor would end in the
/// device's cache, one more every step.
fn tensors(
    device: &Cpu,
    pixels: &[f32],
    labels: &[usize],
) -> Result<(Matrix<PIXELS>, Matrix<CLASSES>), CpuError> {
    let mut x = device.try_zeros_like(&(labels.len(), Const))?;
    x.copy_from(pixels);
    let mut one_hot = vec![0.0; labels.len() * CLASSES];
    for (row, &label) in one_hot.chunks_mut(CLASSES).zip(labels) {
        if let Some(probability) = row.get_mut(label) {
            *probability = 1.0;
        }
    }
    let mut y = device.try_zeros_like(&(labels.len(), Const))?;
    y.copy_from(&one_hot);
    Ok((x, y))
}

/// Any optimizer with any rule.
trait Learner {
    fn step(
        &mut self,
        model: &mut Net,
        gradients: &Gradients<f32, Cpu>,
        loss: f64,
    ) -> Result<(), tlr::Error>;
    fn rates(&self) -> Vec<(&str, f64)>;
    fn take_history(&mut self) -> Vec<Adaptation>;
}

impl<Opt, R> Learner for Tlr<Opt, R>
where
    Opt: LearningRate<Model = Net, Dtype = f32, Device = Cpu> + Optimizer<Net, Cpu, f32>,
    R: RateRule,
{
    fn step(
        &mut self,
        model: &mut Net,
        gradients: &Gradients<f32, Cpu>,
        loss: f64,
    ) -> Result<(), tlr::Error> {
        Tlr::step(self, model, gradients, loss)
    }

    fn rates(&self) -> Vec<(&str, f64)> {
        Tlr::rates(self)
    }

    fn take_history(&mut self) -> Vec<Adaptation> {
        Tlr::take_history(self)
    }
}

fn learner(model: &Net, options: &Options, batches: usize) -> Result<Box<dyn Learner>, tlr::Error> {
    let lr = options.rate;
    let sgd = |momentum| Sgd::new(model, SgdConfig { lr, momentum, weight_decay: None });
    match options.optimizer {
        Base::Sgd => with_mode(model, sgd(None), options, batches),
        Base::Momentum => with_mode(model, sgd(Some(Momentum::Classic(0.9))), options, batches),
        Base::Nesterov => with_mode(model, sgd(Some(Momentum::Nesterov(0.9))), options, batches),
        Base::Adam => {
            let config = AdamConfig { lr, ..AdamConfig::default() };
            with_mode(model, Adam::new(model, config), options, batches)
        }
        Base::Rmsprop => {
            let config = RMSpropConfig { lr, ..RMSpropConfig::default() };
            with_mode(model, RMSprop::new(model, config), options, batches)
        }
    }
}

fn with_mode<Opt>(
    model: &Net,
    optimizer: Opt,
    options: &Options,
    batches: usize,
) -> Result<Box<dyn Learner>, tlr::Error>
where
    Opt: Family<Model = Net, Dtype = f32, Device = Cpu> + Optimizer<Net, Cpu, f32> + 'static,
{
    match options.mode {
        Mode::Global => with_rule(model, optimizer, options, batches),
        Mode::PerLayer => with_rule(model, PerLayer::new(model, optimizer), options, batches),
    }
}

fn with_rule<Opt>(
    model: &Net,
    optimizer: Opt,
    options: &Options,
    batches: usize,
) -> Result<Box<dyn Learner>, tlr::Error>
where
    Opt: LearningRate<Model = Net, Dtype = f32, Device = Cpu> + Optimizer<Net, Cpu, f32> + 'static,
{
    let window = Window::fraction_of_epoch(options.window_fraction, batches)?;
    let safeguard = options.safeguard.then(Safeguard::default);
    let newton = |form| {
        let rule = NewtonRule { form, damping: options.damping, ..NewtonRule::default() };
        Config::new(rule).window(window).safeguard(safeguard)
    };
    let first_order = |rule| Config::new(rule).window(window).safeguard(safeguard);
    Ok(match options.rule {
        Rule::Aligned => Box::new(Tlr::new(model, optimizer, newton(NewtonForm::Aligned))?),
        Rule::Paper => Box::new(Tlr::new(model, optimizer, newton(NewtonForm::Paper))?),
        Rule::Additive => {
            let rule = HypergradientRule::additive(options.meta_rate);
            Box::new(Tlr::new(model, optimizer, first_order(rule))?)
        }
        Rule::Multiplicative => {
            let rule = HypergradientRule::multiplicative(options.meta_rate);
            Box::new(Tlr::new(model, optimizer, first_order(rule))?)
        }
        Rule::Constant => {
            let config = Config::new(Constant).window(window).safeguard(None);
            Box::new(Tlr::new(model, optimizer, config)?)
        }
    })
}

/// The rate stays: a baseline that runs through the same code.
struct Constant;

impl RateRule for Constant {
    fn propose(&self, rate: f64, _previous: f64, _moments: &Moments) -> Proposal {
        Proposal { rate, outcome: Outcome::Scaled }
    }
}
