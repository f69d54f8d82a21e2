//! [`Trainer`]: an optimizer with a trainable learning rate. It carries out what an engine decides.

mod averaging;
mod driving;
mod drop_in;
mod fault;
mod gathering;
mod host;
mod line_search;
mod lookahead;
mod loss_scale;
mod mixed_precision;
mod parts;
mod persistence;
mod readings;
mod update;

pub use line_search::LineSearch;
pub use loss_scale::LossScale;
pub use mixed_precision::MixedPrecision;

use crate::{
    engine::{
        Config, Engine, HostFacts, HypergradientRule, NewtonRule, RateRule, Schedule, Step,
        TensorKind,
    },
    error::Error,
    optim::{checked_groups, gradients::StepGradients, Shards, TunableOptimizer},
    snapshots::{spacing, Snapshots},
};
use dfdx::tensor::Gradients;
use fault::StepFault;
use parts::parts;
use std::fmt;

/// Trains the learning rate of any dfdx optimizer by damped Newton steps.
///
/// Every K steps it adapts the rate, from the dot products between the average directions of the
/// last two windows. That takes no further forward or backward pass. See [`NewtonRule`] for the
/// rule, [`Window`](crate::Window) for K, [`Safeguard`](crate::Safeguard) for what happens when a
/// rate is too large, and [`Trainer`] for the methods.
///
/// # Example
/// ```
/// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
/// use tlr::{Newton, NewtonConfig, Window};
///
/// let dev = Cpu::default();
/// let mut model = dev.build_module::<(Linear<4, 16>, Tanh, Linear<16, 1>), f64>();
/// let x: Tensor<Rank2<32, 4>, f64, _> = dev.sample_normal();
/// let y = x.clone().square().sum::<Rank1<32>, _>().reshape::<Rank2<32, 1>>();
///
/// let sgd = Sgd::new(&model, SgdConfig { lr: 1e-6, ..Default::default() });
/// let mut opt = Newton::new(&model, sgd, NewtonConfig::default().window(Window::steps(5)?))?;
/// let mut losses = Vec::new();
/// for _ in 0..200 {
///     let prediction = model.forward(x.trace(model.alloc_grads()));
///     let loss = mse_loss(prediction, y.clone());
///     losses.push(loss.array());
///     opt.step(&mut model, &loss.backward(), losses[losses.len() - 1])?;
/// }
/// assert!(losses[199] < losses[0] / 3.0); // at 1e-6 alone nothing would have moved
/// # Ok::<(), tlr::Error>(())
/// ```
pub type Newton<Opt> = Trainer<Opt, NewtonRule>;

/// A trainer with a first-order rule, to compare with: see [`HypergradientRule`].
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{engine::HypergradientRule, optim::Sgd, Hypergradient, HypergradientConfig};
///
/// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
/// let config = HypergradientConfig::new(HypergradientRule::multiplicative(0.1));
/// let opt = Hypergradient::new(&model, sgd, config)?;
/// assert_eq!(opt.rates(), [("model", 1e-3)]);
/// # Ok::<(), tlr::Error>(())
/// ```
pub type Hypergradient<Opt> = Trainer<Opt, HypergradientRule>;

/// An optimizer with a trainable learning rate: a base optimizer and a rule that moves its rates.
///
/// Use it through [`Newton`] or [`Hypergradient`], or with a [`RateRule`] of your own.
///
/// # Cost
/// A trainer keeps two snapshots of the weights where the weights are, in the host's or the GPU's
/// memory: 8 bytes a parameter for f32. [`Config::bf16_directions`] takes 6, and [`Config::sketch`]
/// a fixed size on the host. Every K steps the trainer passes over weights and snapshots once. On a
/// GPU this is one launch for all tensors, and two numbers a group come back.
///
/// Each step first copies the gradients, so that nothing moves if one is missing. Around dfdx's own
/// optimizers, which report a missing gradient [too late](TunableOptimizer::complete_gradients), it
/// copies the weights instead. [`step_owned`](Self::step_owned) copies neither.
///
/// # Panics
/// A clone of a model shares its memory with the model. dfdx copies a tensor that is shared before
/// it is overwritten, and panics if a GPU has no memory left for the copy. So a method that changes
/// the model can panic on a GPU whose memory is full, while a clone of the model is alive. An exact
/// step makes one, and so does a [`step`](Self::step) around dfdx's own optimizers.
///
/// Example: [`Newton`].
pub struct Trainer<Opt: TunableOptimizer, R> {
    optimizer: Opt,
    engine: Engine<R>,
    snapshots: Snapshots<Opt::Dtype>,
    /// Whether the optimizer has made an update since it was new, and has all its buffers.
    has_updated: bool,
    /// What an exact step under way has proposed.
    trial: Option<Trial>,
}

/// An update that is made only to see where it leads, and is then undone.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Whether the optimizer can put back what it had accumulated before.
    kept: bool,
    /// [`Trainer::has_updated`] before.
    had_updated: bool,
}

impl<Opt, R> Trainer<Opt, R>
where
    Opt: TunableOptimizer,
    R: RateRule,
{
    /// Wraps `optimizer`. Training starts at its rates.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::SketchWithSafeguard`] and [`Error::Rate`], for `config`,
    /// `optimizer` or a starting rate. [`Error::AttributeWithoutEffect`],
    /// [`Error::NothingToTrain`], [`Error::NotContiguous`] and [`Error::TensorOutsideLayers`], for
    /// `model`. [`Error::Device`].
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
    /// use tlr::{Newton, NewtonConfig};
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// let sgd = Sgd::new(&model, SgdConfig { lr: 1e-6, ..Default::default() });
    /// let opt = Newton::new(&model, sgd, NewtonConfig::default().batches_per_epoch(469))?;
    /// assert_eq!((opt.window(), opt.rates()), (93, vec![("model", 1e-6)]));
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn new(model: &Opt::Model, optimizer: Opt, config: Config<R>) -> Result<Self, Error> {
        let groups = checked_groups(&optimizer, model)?;
        let facts = HostFacts { momentum: optimizer.momentum(), epsilon: spacing::<Opt::Dtype>() };
        let place = optimizer.shards().map(Shards::place);
        let rate = |group| optimizer.rate(group);
        let (engine, snapshots) = parts(model, &groups, &rate, config, facts, place)?;
        Ok(Self { optimizer, engine, snapshots, has_updated: false, trial: None })
    }

    /// Multiplies every learned rate by a schedule. `None` takes the schedule away.
    ///
    /// The rates that are learned and reported are those without the schedule. A window's average
    /// direction is its displacement over the rate and over s̄, the schedule's mean over that
    /// window. The rule's change of a rate is multiplied by s̄ of the window before, if that is
    /// below 1. Without this, the rule would raise the rate early in a warm-up to cancel the small
    /// factor, and the rate would be too large once the factor is 1. If the schedule restarts, a
    /// new window begins and the direction before it is dropped.
    ///
    /// Exact steps ([`step_lookahead`](Self::step_lookahead),
    /// [`step_line_search`](Self::step_line_search)) look for the best rate there is and take no
    /// notice of the schedule.
    ///
    /// Example: [`effective_rates`](Self::effective_rates).
    pub fn schedule(mut self, schedule: impl Into<Option<Schedule>>) -> Self {
        self.engine.set_schedule(schedule.into());
        self
    }

    /// Makes one step. `gradients` are those of `loss`, by which the safeguard judges the step.
    ///
    /// The answer says how the step ended. A step that is rolled back leaves the model at the
    /// last good snapshot, and is no error. A batch that is skipped, or refused for its loss or for
    /// the schedule's factor, leaves no trace in the buffers: they are those of the last snapshot.
    ///
    /// # Errors
    /// [`Error::UnusedParameters`], [`Error::ModelChanged`], [`Error::Device`],
    /// [`Error::WindowEnd`], [`Error::ScheduleFactor`]; [`Error::TooManyRollbacks`] with the
    /// safeguard on, or in the ramp; [`Error::NonFiniteLoss`], [`Error::NonFiniteWeights`] and
    /// [`Error::LostWeights`] with it off; [`Error::Parallel`] on several ranks.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
    /// use tlr::{Cause, Newton, NewtonConfig, Step};
    ///
    /// let mut w: Tensor<Rank1<1>, f32, _> = Cpu::default().tensor([3.0]);
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 1e-3, ..Default::default() });
    /// let mut opt = Newton::new(&w, sgd, NewtonConfig::default().ramp(false))?;
    /// let gradients = w.leaky_trace().square().sum().backward();
    /// assert_eq!(opt.step(&mut w, &gradients, 9.0)?, Step::Made);
    /// assert_eq!(opt.step(&mut w, &gradients, f32::NAN)?, Step::Skipped(Cause::NonFiniteLoss));
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn step(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        loss: impl Into<f64>,
    ) -> Result<Step, Error> {
        let result = self.drive(model, StepGradients::Borrowed(gradients), Some(loss.into()));
        result.map_err(|fault| self.to_error(&fault))
    }

    /// Makes the same step, by gradients that it may change. A trainable tensor without a gradient
    /// is given one of 0, as by dfdx's `alloc_grads`.
    ///
    /// It spares each step a copy of the gradients or, around dfdx's own optimizers, of the
    /// weights.
    ///
    /// # Errors
    /// As [`step`](Self::step), but for [`Error::UnusedParameters`].
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
    /// use tlr::{Newton, NewtonConfig};
    ///
    /// let dev = Cpu::default();
    /// let mut model = dev.build_module::<Linear<4, 1>, f32>();
    /// let sgd = Sgd::new(&model, SgdConfig { lr: 1e-6, ..Default::default() });
    /// let mut opt = Newton::new(&model, sgd, NewtonConfig::default())?;
    /// let x: Tensor<Rank2<32, 4>, f32, _> = dev.sample_normal();
    /// let mut gradients = model.alloc_grads();
    /// for _ in 0..10 {
    ///     let loss = model.forward(x.trace(gradients)).square().mean();
    ///     let value = loss.array();
    ///     gradients = loss.backward();
    ///     opt.step_owned(&mut model, &mut gradients, value)?;
    ///     model.zero_grads(&mut gradients);
    /// }
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn step_owned(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
        loss: impl Into<f64>,
    ) -> Result<Step, Error> {
        let result = self.drive(model, StepGradients::Owned(gradients), Some(loss.into()));
        result.map_err(|fault| self.to_error(&fault))
    }

    /// One step without a loss: what [`update`](dfdx::optim::Optimizer::update) of dfdx's trait
    /// does, with this crate's answer and errors.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, Newton, NewtonConfig, Step};
    ///
    /// let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([3.0]);
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 0.5, ..Default::default() });
    /// let mut opt = Newton::new(&w, sgd, NewtonConfig::default().ramp(false))?;
    /// let gradients = w.leaky_trace().square().sum().backward();
    /// assert_eq!(opt.update(&mut w, &gradients)?, Step::Made);
    /// assert_eq!(w.array(), [0.0]); // from 3, by half of the gradient 6
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn update(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<Step, Error> {
        let result = self.drive(model, StepGradients::Borrowed(gradients), None);
        result.map_err(|fault| self.to_error(&fault))
    }

    /// Starts over at the weights as they are, from the rates that this trainer was made with: the
    /// way on after an error such as [`Error::TooManyRollbacks`]. What the safeguard knows of the
    /// losses and what the base optimizer has accumulated is cleared. Steps are counted on, and the
    /// history is kept.
    ///
    /// From now on a skipped batch puts the buffers back to what they are now.
    ///
    /// # Errors
    /// [`Error::ModelChanged`], and nothing has changed then. [`Error::Device`]: a skipped batch
    /// may then put some buffers back to what they are now.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, Newton, NewtonConfig};
    ///
    /// let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([3.0]);
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 0.5, ..Default::default() });
    /// let mut opt = Newton::new(&w, sgd, NewtonConfig::default().ramp(false))?;
    /// let gradients = w.leaky_trace().square().sum().backward();
    /// opt.step(&mut w, &gradients, 9.0)?;
    /// opt.reset(&w)?;
    /// assert_eq!((opt.rates(), opt.steps()), (vec![("model", 0.5)], 1));
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn reset(&mut self, model: &Opt::Model) -> Result<(), Error> {
        self.snapshots.check(model)?;
        self.snapshots.take(model, TensorKind::Buffers)?;
        self.optimizer.reset(model);
        self.has_updated = false;
        self.engine.reset();
        self.apply_rates();
        Ok(())
    }

    /// Sets the optimizer's rates to the learned ones, as they are between steps: schedule and
    /// horizon act only during a step.
    fn apply_rates(&mut self) {
        for (group, (_, rate)) in self.engine.rates().enumerate() {
            self.optimizer.set_rate(group, rate);
        }
    }

    /// A fault as this crate's error.
    fn to_error(&self, fault: &StepFault<impl fmt::Display + 'static>) -> Error {
        fault.to_error(&|ids| self.snapshots.names(ids))
    }
}

impl<Opt: TunableOptimizer, R: fmt::Debug> fmt::Debug for Trainer<Opt, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer").field("engine", &self.engine).finish_non_exhaustive()
    }
}
