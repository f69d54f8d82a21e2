use crate::{
    checkpoint::exact,
    config::Config,
    dots::Dots,
    history::{Adaptation, KeptBecause, Outcome, RollbackCause},
    moments::{Part, Snapshots, Unmoved},
    optim::{
        gradients::{self, Given},
        LearningRate,
    },
    rule::{self, HypergradientRule, Moments, NewtonRule, Proposal, RateRule, RATES},
    safeguard::{Safeguard, Verdict, Watch},
    tensors, Error, Schedule,
};
use dfdx::{
    optim::{Optimizer, OptimizerUpdateError, Sgd, SgdConfig, UnusedTensors},
    tensor::{Gradients, HasErr},
};
use serde::{Deserialize, Serialize};
use std::{fmt::Display, sync::Arc};

/// Trains the learning rate of any dfdx optimizer by damped Newton steps.
///
/// Every K steps, from the dot products between the average directions of the last two windows, with
/// no further forward or backward pass. See [`NewtonRule`] for the rule, [`Window`](crate::Window)
/// for K, [`Safeguard`] for what happens when a rate is too large, and [`Tlr`] for the methods.
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
pub type Newton<Opt> = Tlr<Opt, NewtonRule>;

/// The same around a first-order rule, to compare with: see [`HypergradientRule`].
pub type Hypergradient<Opt> = Tlr<Opt, HypergradientRule>;

/// An optimizer with a trainable learning rate: a base optimizer and a rule that moves its rates.
///
/// Use it through [`Newton`] or [`Hypergradient`], or with a [`RateRule`] of your own.
///
/// # Cost
/// Two snapshots of the weights where they are, in the host's or the GPU's memory, that is 8 bytes a parameter for f32
/// ([6](Config::bf16_directions), [or sketches](Config::sketch), which are on the host), and one pass over them every K steps; of a GPU's, in one launch for all
/// tensors, after which two numbers a group come back. A step in between copies the gradients, so that nothing moves where one is missing; around
/// dfdx's own optimizers, which [cannot tell beforehand](LearningRate::own_gradients), the weights. [`step_owned`](Self::step_owned) copies
/// neither.
pub struct Tlr<Opt: LearningRate, R> {
    pub(crate) optimizer: Opt,
    pub(crate) rule: R,
    window: usize,
    /// As configured; each group knows whether it still does.
    pub(crate) climb: Option<f64>,
    pub(crate) safeguard: Option<Safeguard>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) groups: Vec<Group>,
    pub(crate) snapshots: Snapshots<Opt::Dtype>,
    pub(crate) watch: Watch,
    /// Steps taken in this window.
    pub(crate) position: usize,
    /// The sum of the schedule's factors over them.
    pub(crate) factors: f64,
    pub(crate) gathered: Gathered,
    pub(crate) snapshot: Snapshot,
    pub(crate) steps: u64,
    pub(crate) history: Vec<Adaptation>,
}

/// What is known of the snapshot that a rollback goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Snapshot {
    /// There is none: the next step begins with one.
    Missing,
    /// Nothing speaks against it, or there is no other.
    Good,
    /// The end of a window that was accepted for the losses before that end. Until a good loss has been
    /// seen there, a rollback goes one snapshot further.
    Unseen,
}

/// The losses of the batches whose gradients the base optimizer has gathered for the step to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gathered {
    pub(crate) count: u64,
    #[serde(with = "exact")]
    mean: f64,
}

impl Gathered {
    fn with(self, loss: f64) -> Self {
        if self.count == 0 {
            return Self { count: 1, mean: loss };
        }
        let count = self.count + 1;
        Self { count, mean: self.mean + (loss - self.mean) / count as f64 }
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }
}

/// What is known of the window before, of one group.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) frozen: bool,
    /// Whether all windows so far agreed well enough for the rate to climb.
    pub(crate) climbs: bool,
    pub(crate) previous: Option<Previous>,
    /// The rate before a cut that is on probation.
    pub(crate) regain: Option<f64>,
}

impl Group {
    /// Whether a window at this rate is much like the last one.
    fn is_steady(&self, rate: f64) -> bool {
        self.previous.is_some_and(|previous| rate <= STEADY * previous.rate)
    }
}

/// What a rate rises by from one window to the next is no surprise.
const STEADY: f64 = 1.25;

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Previous {
    /// The rate then in force, without the schedule.
    #[serde(with = "exact")]
    pub(crate) rate: f64,
    /// The schedule's mean over the window.
    #[serde(with = "exact")]
    pub(crate) factor: f64,
    /// ⟨s,s⟩ of its displacement s = rate · factor · u.
    #[serde(with = "exact")]
    squared: f64,
}

/// A failure that still has dfdx's own parts, for dfdx's own error type.
pub(crate) enum Fault<Err> {
    Tlr(Error),
    Unused(UnusedTensors),
    Device(Err),
}

impl<Err> From<Error> for Fault<Err> {
    fn from(error: Error) -> Self {
        Self::Tlr(error)
    }
}

impl<Err> From<OptimizerUpdateError<Err>> for Fault<Err> {
    fn from(error: OptimizerUpdateError<Err>) -> Self {
        match error {
            OptimizerUpdateError::UnusedParams(unused) => Self::Unused(unused),
            OptimizerUpdateError::DeviceError(error) => Self::Device(error),
        }
    }
}

pub(crate) type DeviceError<Opt> = <<Opt as LearningRate>::Device as HasErr>::Err;

impl<Opt, R> Tlr<Opt, R>
where
    Opt: LearningRate,
    R: RateRule,
{
    /// Wraps `optimizer`, whose rates are where training starts.
    ///
    /// # Errors
    /// A figure of `config` or a starting rate out of range; a model without trainable tensors, with
    /// one that is not contiguous, or with one that no layer holds.
    pub fn new(model: &Opt::Model, optimizer: Opt, config: Config<R>) -> Result<Self, Error> {
        let window = config.validated_window(optimizer.momentum())?;
        let groups = optimizer.groups(model);
        let mut snapshots = Snapshots::new(model, &groups, config.sketch, config.bf16_directions)?;
        // Weights may still be loaded; buffers are for a first batch that is broken.
        snapshots.take(model, Part::Buffers)?;
        for (index, group) in groups.groups.iter().enumerate() {
            let rate = optimizer.rate(index);
            if !RATES.contains(&rate) {
                return Err(Error::Rate { group: group.name.to_string(), rate });
            }
        }
        let groups = groups
            .groups
            .into_iter()
            .map(|group| Group {
                name: group.name,
                frozen: group.frozen,
                climbs: config.climb.is_some(),
                regain: None,
                previous: None,
            })
            .collect();
        Ok(Self {
            optimizer,
            rule: config.rule,
            window,
            climb: config.climb,
            safeguard: config.safeguard,
            groups,
            snapshots,
            watch: Watch::default(),
            schedule: None,
            position: 0,
            factors: 0.0,
            gathered: Gathered::default(),
            snapshot: Snapshot::Missing,
            steps: 0,
            history: Vec::new(),
        })
    }

    /// Multiplies every learned rate by a schedule, or by `None`.
    ///
    /// The rates that are learned and reported are those without it; a window's average direction is its displacement
    /// over the rate and the schedule's mean s̄ over the window. What the rule would have the rate move by is taken
    /// times s̄, or whole where s̄ is above 1: at the foot of a warm-up the rate would otherwise grow until it had made
    /// up for the schedule, and be as much too large at the top. Where the schedule restarts, a new window begins
    /// and the direction before it is dropped.
    ///
    /// Exact steps ([`step_lookahead`](Self::step_lookahead), [`step_line_search`](Self::step_line_search)) look for
    /// the best rate there is and take no notice of it.
    pub fn schedule(mut self, schedule: impl Into<Option<Schedule>>) -> Self {
        self.schedule = schedule.into();
        self
    }

    /// One step, with the loss whose gradients these are: it arms the safeguard.
    ///
    /// A step that is rolled back leaves the model at the last good snapshot, and is no error.
    ///
    /// # Errors
    /// [`Error::UnusedParameters`], [`Error::ModelChanged`], [`Error::Device`];
    /// [`Error::TooManyRollbacks`] with the safeguard on, [`Error::NonFiniteLoss`] and
    /// [`Error::NonFiniteWeights`] with it off.
    pub fn step(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        loss: impl Into<f64>,
    ) -> Result<(), Error> {
        let result = self.advance(model, Given::Lent(gradients), Some(loss.into()));
        result.map_err(|fault| self.explain(fault))
    }

    /// The same step, by gradients that it may change. A trainable tensor that has none counts as one whose gradient is 0, as where
    /// dfdx's `alloc_grads` has made them, and is given that.
    ///
    /// It spares each step a copy of the gradients or, around dfdx's own optimizers, of the weights.
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
    ///
    /// # Errors
    /// As [`step`](Self::step), but for [`Error::UnusedParameters`]. A device that fails in the update may leave it half done.
    pub fn step_owned(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
        loss: impl Into<f64>,
    ) -> Result<(), Error> {
        let result = self.advance(model, Given::Own(gradients), Some(loss.into()));
        result.map_err(|fault| self.explain(fault))
    }

    /// One step without a loss: dfdx's [`Optimizer::update`], with this crate's errors.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn update(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), Error> {
        let result = self.advance(model, Given::Lent(gradients), None);
        result.map_err(|fault| self.explain(fault))
    }

    /// Each group's name and current rate: one, called `model`, or one a layer.
    pub fn rates(&self) -> Vec<(&str, f64)> {
        self.groups
            .iter()
            .enumerate()
            .map(|(index, group)| (&*group.name, self.optimizer.rate(index)))
            .collect()
    }

    /// The same, as the next step will use them: times the [`schedule`](Self::schedule).
    pub fn effective_rates(&self) -> Vec<(&str, f64)> {
        let factor = self.factor();
        self.rates().into_iter().map(|(name, rate)| (name, rule::bounded(rate * factor))).collect()
    }

    /// Every decision on a rate, in order: at the end of a window one for each group.
    pub fn history(&self) -> &[Adaptation] {
        &self.history
    }

    /// Hands the history over and starts a new one, so that a long run need not keep it all.
    pub fn take_history(&mut self) -> Vec<Adaptation> {
        std::mem::take(&mut self.history)
    }

    /// Optimizer steps so far, those that were rolled back included. Batches that are only gathered are no steps.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// K: optimizer steps in a window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// The base optimizer.
    pub fn optimizer(&self) -> &Opt {
        &self.optimizer
    }

    fn advance(
        &mut self,
        model: &mut Opt::Model,
        gradients: Given<'_, Opt::Dtype, Opt::Device>,
        loss: Option<f64>,
    ) -> Result<(), Fault<DeviceError<Opt>>> {
        let before = self.steps;
        let result = self.make_step(model, gradients, loss);
        let restarts = |schedule: &Schedule| schedule.restarts_at(self.steps);
        if self.steps != before && self.schedule.as_ref().is_some_and(restarts) {
            self.begin_anew();
        }
        result
    }

    fn make_step(
        &mut self,
        model: &mut Opt::Model,
        mut gradients: Given<'_, Opt::Dtype, Opt::Device>,
        loss: Option<f64>,
    ) -> Result<(), Fault<DeviceError<Opt>>> {
        self.snapshots.check(model)?;
        let factor = self.checked_factor()?;
        let first = self.snapshot == Snapshot::Missing;
        if first {
            self.snapshots.take(model, Part::Weights)?;
            self.snapshot = Snapshot::Good;
        }
        let part = self.optimizer.only_gathers();
        let gathered = loss.map_or(self.gathered, |loss| self.gathered.with(loss));
        let loss = gathered.mean();
        if let Some(loss) = loss {
            match self.inspect(loss, part)? {
                Verdict::Bad(cause) => {
                    self.steps += 1;
                    // At the snapshot itself, no step of this window is to blame.
                    let mut moved = self.position > 0;
                    if self.snapshot == Snapshot::Unseen {
                        self.snapshots.step_back();
                        self.watch.step_back();
                        moved = true;
                    }
                    let undone = if tensors::are_finite(model) {
                        self.roll_back(model, cause, moved)
                    } else {
                        self.undo_broken(model)
                    };
                    return undone.map_err(Fault::from);
                }
                Verdict::Skip => {
                    if loss.is_finite() {
                        self.optimizer.drop_gathered(model);
                        self.gathered = Gathered::default();
                    }
                    // Of the step that a part is left out of, others are to come.
                    if !part && self.gathered.count == 0 {
                        self.steps += 1;
                    }
                    // It has been through the forward pass.
                    self.snapshots.restore(model, Part::Buffers)?;
                    tracing::debug!(step = self.steps, loss, "batch skipped");
                    return Ok(());
                }
                Verdict::Good if self.position == 0 && !part => self.snapshot = Snapshot::Good,
                Verdict::Good | Verdict::Doubtful => (),
            }
        }
        if first {
            self.snapshots.take(model, Part::Buffers)?;
        }
        self.update_scheduled(model, &mut gradients, factor)?;
        if part {
            self.gathered = gathered;
            return Ok(());
        }
        self.gathered = Gathered::default();
        self.steps += 1;
        self.position += 1;
        self.factors += factor;
        if let Some(loss) = loss {
            self.watch.record(loss);
        }
        if self.position == self.window {
            self.end_window(model, gradients.all())?;
        }
        Ok(())
    }

    /// What the schedule says of the next step.
    fn factor(&self) -> f64 {
        self.schedule.as_ref().map_or(1.0, |schedule| schedule.factor(self.steps))
    }

    /// The same, if a rate can be multiplied by it.
    fn checked_factor(&self) -> Result<f64, Error> {
        let factor = self.factor();
        if factor >= 0.0 && factor.is_finite() {
            Ok(factor)
        } else {
            Err(Error::ScheduleFactor { step: self.steps + 1, factor })
        }
    }

    /// The update at the rates times `factor`.
    fn update_scheduled(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Given<'_, Opt::Dtype, Opt::Device>,
        factor: f64,
    ) -> Result<(), Fault<DeviceError<Opt>>> {
        if factor == 1.0 {
            return self.update_or_leave(model, gradients);
        }
        let learned: Vec<_> =
            (0..self.groups.len()).map(|group| self.optimizer.rate(group)).collect();
        for (group, rate) in learned.iter().enumerate() {
            self.optimizer.set_rate(group, rule::bounded(rate * factor));
        }
        let updated = self.update_or_leave(model, gradients);
        for (group, rate) in learned.into_iter().enumerate() {
            self.optimizer.set_rate(group, rate);
        }
        updated
    }

    /// What this loss, of a step or of a `part` of one, says of the window.
    fn inspect(&mut self, loss: f64, part: bool) -> Result<Verdict, Error> {
        match &self.safeguard {
            Some(_) if part => Ok(self.watch.inspect_part(loss)),
            Some(safeguard) => Ok(self.watch.inspect(loss, self.window, safeguard)),
            None if loss.is_finite() => Ok(Verdict::Good),
            None => Err(Error::NonFiniteLoss { step: self.steps + 1, loss }),
        }
    }

    /// The base optimizer's update, all of it or nothing.
    ///
    /// dfdx's tell of unused parameters after they have moved the others, and dfdx offers no way to ask
    /// before; a clone of the model shares its tensors until they are written to. The accumulated
    /// state has seen half a step by then, so it goes.
    pub(crate) fn update_or_leave(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Given<'_, Opt::Dtype, Opt::Device>,
    ) -> Result<(), Fault<DeviceError<Opt>>> {
        let mut copy;
        let gradients = match gradients {
            Given::Own(own) => {
                gradients::fill(&*model, own).map_err(Fault::Device)?;
                Given::Own(own)
            }
            Given::Lent(lent) => match self.optimizer.own_gradients(model, lent)? {
                Some(own) => {
                    copy = own;
                    Given::Own(&mut copy)
                }
                None => Given::Lent(lent),
            },
        };
        match gradients {
            Given::Own(own) if self.optimizer.fails_with_device_only() => {
                Ok(self.optimizer.update_owned(model, own)?)
            }
            gradients => {
                let before = model.clone();
                let updated = match gradients {
                    Given::Own(own) => self.optimizer.update_owned(model, own),
                    Given::Lent(lent) => self.optimizer.update(model, lent),
                };
                updated.map_err(|error| {
                    *model = before;
                    self.forget(model);
                    error.into()
                })
            }
        }
    }

    fn end_window(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), Error> {
        let dots = match self.snapshots.advance(model) {
            Ok(dots) => dots,
            Err(Unmoved::Failed(error)) => return Err(error),
            Err(_) if self.safeguard.is_some() => return self.undo_broken(model),
            Err(Unmoved::NotFinite(tensor)) => {
                self.restart(model)?;
                let step = self.steps;
                return Err(match self.snapshots.sketches() {
                    Some(_) => Error::LostWeights { step, tensor },
                    None => Error::NonFiniteWeights { step, tensor },
                });
            }
        };
        let factor = self.factors / self.position as f64;
        self.begin_window();
        self.snapshot = Snapshot::Unseen;
        self.watch.accept(self.safeguard.as_ref());
        let raises = self.raises(model, gradients, &dots, factor)?;
        for (index, dots) in dots.into_iter().enumerate() {
            match raises.get(index) {
                Some(Some(by)) => self.raise(index, *by),
                _ => self.adapt(index, dots, factor),
            }
        }
        Ok(())
    }

    /// What to multiply each rate by whose window was lost in rounding, if any was.
    fn raises(
        &self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        dots: &[Dots],
        factor: f64,
    ) -> Result<Vec<Option<f64>>, Error> {
        // A schedule may keep the weights where they are, and means to.
        if self.climb.is_none() || factor < 1.0 {
            return Ok(Vec::new());
        }
        let would_move = match dots.iter().any(|dots| dots.own == 0.0) {
            true => self.would_move(model, gradients),
            false => Vec::new(),
        };
        let rounding = match self.groups.iter().any(|group| group.climbs) {
            true => self.snapshots.rounding(self.window)?,
            false => Vec::new(),
        };
        let raise = |(index, dots): (usize, &Dots)| {
            let group = self.groups.get(index)?;
            if group.frozen || self.optimizer.rate(index) >= 1.0 {
                None
            } else if dots.own == 0.0 {
                would_move.get(index).filter(|moves| **moves).map(|_| rule::LARGEST_CLIMB)
            } else if group.climbs {
                rounding.get(index)?.raise(dots.own.sqrt())
            } else {
                None
            }
        };
        Ok(dots.iter().enumerate().map(raise).collect())
    }

    /// Whether a step of plain gradient descent at a rate of 1 would move any weight of each group.
    fn would_move(
        &self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Vec<bool> {
        let mut spare = model.clone();
        let sgd = SgdConfig { lr: 1.0, ..Default::default() };
        // An optimizer may do without gradients; then there is nothing to tell.
        match Sgd::new(model, sgd).update(&mut spare, gradients) {
            Ok(()) => self.snapshots.differing(model, &spare),
            Err(_) => Vec::new(),
        }
    }

    /// At this group's rate all steps, or most of them, were lost in rounding.
    fn raise(&mut self, index: usize, by: f64) {
        let rate = self.optimizer.rate(index);
        if let Some(group) = self.groups.get_mut(index) {
            (group.previous, group.regain) = (None, None);
        }
        let raised = rule::bounded((by * rate).min(1.0));
        self.decide(index, rate, Proposal { rate: raised, outcome: Outcome::Raised }, None);
    }

    /// One group's decision at the end of a good window, over which the schedule's mean was `factor`.
    fn adapt(&mut self, index: usize, dots: Dots, factor: f64) {
        let rate = self.optimizer.rate(index);
        let Some(group) = self.groups.get_mut(index) else { return };
        let previous = group.previous.replace(Previous { rate, factor, squared: dots.own });
        // Displacements s to directions u = s / (rate · factor).
        let moments = previous.map(|previous| {
            let (then, now) = (previous.rate * previous.factor, rate * factor);
            Moments {
                uu: previous.squared / then / then,
                un: dots.across / then / now,
                nn: dots.own / now / now,
            }
        });
        let decision = match (previous, moments) {
            _ if group.frozen => Proposal { rate, outcome: Outcome::Kept(KeptBecause::Frozen) },
            (Some(previous), Some(moments)) => {
                let proposal = rule::decide(&self.rule, rate, previous.rate, &moments);
                group.climbs &= self.climb.is_some_and(|cosine| moments.cosine() > cosine);
                let proposal = if group.climbs {
                    rule::climb(rate, previous.rate, &moments, proposal)
                } else {
                    proposal
                };
                // 1 without a schedule, and then to the bit.
                if previous.factor < 1.0 {
                    let moved = rate + previous.factor * (proposal.rate - rate);
                    Proposal { rate: rule::bounded(moved), ..proposal }
                } else {
                    proposal
                }
            }
            _ => match group.regain.take() {
                Some(rate) => Proposal { rate, outcome: Outcome::Regained },
                None => Proposal { rate, outcome: Outcome::WarmingUp },
            },
        };
        self.decide(index, rate, decision, moments);
    }

    /// Sets a rate and keeps note of it.
    pub(crate) fn decide(
        &mut self,
        index: usize,
        from: f64,
        Proposal { rate: to, outcome }: Proposal,
        moments: Option<Moments>,
    ) {
        let Some(group) = self.groups.get(index) else { return };
        self.optimizer.set_rate(index, to);
        tracing::debug!(
            step = self.steps,
            layer = &*group.name,
            from,
            to,
            uu = moments.map(|m| m.uu),
            un = moments.map(|m| m.un),
            nn = moments.map(|m| m.nn),
            %outcome,
            "learning rate"
        );
        self.history.push(Adaptation {
            step: self.steps,
            layer: group.name.clone(),
            from,
            to,
            moments,
            outcome,
        });
    }

    /// Undoes a window that has left weights that are not finite. The losses were, so it was a gradient, and the batch is to
    /// blame: once, after others were good.
    fn undo_broken(&mut self, model: &mut Opt::Model) -> Result<(), Error> {
        let again = self.watch.rollbacks() > 0 || !self.watch.any_accepted();
        self.roll_back(model, RollbackCause::NonFiniteWeights, again)
    }

    /// Undoes the window and, if the rates `are_to_blame`, cuts them.
    fn roll_back(
        &mut self,
        model: &mut Opt::Model,
        cause: RollbackCause,
        are_to_blame: bool,
    ) -> Result<(), Error> {
        let trusted = are_to_blame
            && cause == RollbackCause::LossIncreased
            && self.safeguard.as_ref().is_some_and(|safeguard| self.watch.trusts(safeguard));
        for (index, group) in self.groups.iter_mut().enumerate() {
            let rate = self.optimizer.rate(index);
            group.regain = (trusted && group.is_steady(rate)).then_some(rate);
        }
        self.restart(model)?;
        if are_to_blame && self.watch.any_accepted() {
            self.groups.iter_mut().for_each(|group| group.climbs = false);
        }
        let Some(safeguard) = self.safeguard else { return Ok(()) };
        let cut = self.watch.roll_back(&safeguard, are_to_blame);
        for index in 0..self.groups.len() {
            let from = self.optimizer.rate(index);
            let frozen = self.groups.get(index).is_some_and(|group| group.frozen);
            let to = if frozen { from } else { rule::bounded(from * cut) };
            let outcome = Outcome::RolledBack(cause);
            self.decide(index, from, Proposal { rate: to, outcome }, None);
        }
        let count = self.watch.rollbacks();
        if count >= safeguard.max_rollbacks {
            return Err(Error::TooManyRollbacks { count, step: self.steps, cause });
        }
        Ok(())
    }

    /// Back to the last snapshot, with nothing accumulated and no direction.
    fn restart(&mut self, model: &mut Opt::Model) -> Result<(), Error> {
        self.snapshots.restore(model, Part::All)?;
        self.snapshot = Snapshot::Good;
        self.forget(model);
        self.begin_window();
        self.forget_directions();
        Ok(())
    }

    fn begin_window(&mut self) {
        self.position = 0;
        self.factors = 0.0;
    }

    /// The base optimizer starts over, with nothing accumulated and nothing gathered.
    pub(crate) fn forget(&mut self, model: &Opt::Model) {
        self.optimizer.reset(model);
        self.gathered = Gathered::default();
    }

    pub(crate) fn forget_directions(&mut self) {
        for group in &mut self.groups {
            group.previous = None;
        }
    }

    /// The next step begins a new window at whatever the weights then are.
    pub(crate) fn begin_anew(&mut self) {
        self.begin_window();
        self.watch.leave();
        self.gathered = Gathered::default();
        self.snapshot = Snapshot::Missing;
        self.forget_directions();
    }

    pub(crate) fn explain(&self, fault: Fault<impl Display>) -> Error {
        match fault {
            Fault::Tlr(error) => error,
            Fault::Unused(unused) => {
                Error::UnusedParameters { tensors: self.snapshots.names(&unused.ids) }
            }
            Fault::Device(error) => Error::Device(error.to_string()),
        }
    }
}

/// The drop-in: the same as the inherent [`Tlr::update`], with dfdx's error.
///
/// dfdx's error has no room for this crate's own. Where one of those stops a step (the model changed,
/// weights that are not finite with the safeguard off, too many rollbacks), all parameters are
/// reported as unused, which they were, and the error itself is a `tracing` event. Call the inherent
/// methods, which shadow this one, to have it as a value.
impl<Opt, R> Optimizer<Opt::Model, Opt::Device, Opt::Dtype> for Tlr<Opt, R>
where
    Opt: LearningRate,
    R: RateRule,
{
    fn update(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>> {
        self.advance(model, Given::Lent(gradients), None).map_err(|fault| match fault {
            Fault::Unused(unused) => OptimizerUpdateError::UnusedParams(unused),
            Fault::Device(error) => OptimizerUpdateError::DeviceError(error),
            Fault::Tlr(error) => {
                tracing::error!(%error, "no parameter was updated");
                OptimizerUpdateError::UnusedParams(UnusedTensors {
                    ids: self.snapshots.trainable_ids(),
                })
            }
        })
    }
}
