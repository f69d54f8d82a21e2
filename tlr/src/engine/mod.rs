//! The decisions, in f64: no tensor, no device, no dfdx.
//!
//! An [`Engine`] decides how learning rates move. It never sees a weight. It receives what has
//! happened (an [`Event`]: a batch with its loss, a window's dot products) and answers what to do
//! next (a [`Request`]: update at these rates, end the window, go back to a snapshot). The **host**
//! does it: see [`Host`] and [`drive`]. This is the *sans-I/O* style of network protocols, and has
//! the same advantage: every decision can be tested without a model.
//!
//! ```text
//!            loss, only gathers?                    rates            products
//! Batch ──► judge the loss ──good──► snapshot? ──► update ──► K-th? ──► decide each group's rate
//!               │        └─skip────► leave the batch out
//!               └─────────bad──────► go back, cut the rates
//! ```
//!
//! `tlr` with `default-features = false` is this module alone.
//!
//! # Example
//! A host whose model is one number w, trained on ½w² by plain gradient descent.
//! ```
//! use tlr::engine::*;
//!
//! /// The weight, and its snapshots at the ends of the last two windows.
//! struct OneWeight { w: f64, last: f64, before: f64 }
//!
//! impl Host for OneWeight {
//!     type Error = std::convert::Infallible;
//!     fn take_snapshot(&mut self, kind: TensorKind) -> Result<(), Self::Error> {
//!         if kind == TensorKind::Weights { self.last = self.w }
//!         Ok(())
//!     }
//!     fn update(&mut self, rates: &[f64]) -> Result<(), Self::Error> {
//!         self.w -= rates[0] * self.w; // the gradient of ½w² is w
//!         Ok(())
//!     }
//!     fn skip(&mut self, _drop_gathered: bool) -> Result<(), Self::Error> { Ok(()) }
//!     fn end_window(&mut self) -> Result<WindowEnd, Self::Error> {
//!         let (then, now) = (self.before - self.last, self.last - self.w);
//!         (self.before, self.last) = (self.last, self.w);
//!         Ok(WindowEnd::Products(vec![WindowProducts { across: then * now, own: now * now }]))
//!     }
//!     fn weights_are_finite(&mut self) -> Result<bool, Self::Error> { Ok(self.w.is_finite()) }
//!     fn go_back(&mut self, target: Target) -> Result<(), Self::Error> {
//!         if target == Target::BeforeLast { self.last = self.before }
//!         self.w = self.last;
//!         Ok(())
//!     }
//! }
//!
//! let group = Group { name: "w".into(), fixed_rate: false, rate: 1e-6 };
//! let config = NewtonConfig::default().window(Window::steps(1)?);
//! let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
//! let mut engine = Engine::new(config, vec![group], facts)?;
//! let mut host = OneWeight { w: 3.0, last: 0.0, before: 0.0 };
//! for _ in 0..20 {
//!     let loss = 0.5 * host.w * host.w;
//!     drive(&mut engine, &mut host, Some(loss), false)?;
//! }
//! assert!(host.w.abs() < 1e-3); // the best rate is 1; at 1e-6 nothing would have moved
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod decide;
mod event;
mod exact;
#[cfg(feature = "dfdx")]
mod exact_step;
mod gathered;
mod history;
mod horizon;
mod host;
mod host_facts;
mod mean;
mod phase;
mod possible;
mod presets;
mod products;
mod raising;
mod ramping;
mod readings;
mod rule;
mod safeguard;
mod schedule;
mod settle;
#[cfg(feature = "dfdx")]
mod standing;
mod start;
mod state;
mod step;
mod window;
mod witness;

pub use config::Config;
pub use event::{Event, Request, Step, Target, TensorKind};
pub use history::{Adaptation, KeptBecause, Outcome};
pub use host::{drive, Host, StepError, WindowEnd};
pub use host_facts::HostFacts;
pub use presets::{HypergradientConfig, NewtonConfig};
pub use products::{DirectionProducts, Slope, WindowProducts};
pub use rule::{HypergradientRule, NewtonForm, NewtonRule, Proposal, RateRule, RATES};
pub use safeguard::Safeguard;
pub use schedule::Schedule;
pub use state::State;
pub use window::Window;
#[cfg(feature = "dfdx")]
pub(crate) use {
    exact_step::{ExactDecision, LookaheadProducts},
    mean::running_mean,
    possible::MAX_COUNT,
    standing::Standing,
};

use crate::error::Error;
#[cfg(feature = "dfdx")]
use crate::settings::Settings;
use horizon::HorizonShape;
use phase::{PendingStep, Phase};
pub(crate) use rule::bounded;
use state::GroupState;
use std::sync::Arc;

/// Some tensors that share a learning rate.
///
/// Example: [the module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// A layer's path, or `model`.
    pub name: Arc<str>,
    /// Whether the rate stays where it starts.
    pub fixed_rate: bool,
    /// The rate to start from, within [`RATES`].
    pub rate: f64,
}

/// Decides how learning rates move, for a host that has the weights. See [the module](self).
///
/// # Example
/// What can be asked of an engine, and how it is saved. A step is at [`Event`].
/// ```
/// use tlr::{engine::*, Schedule, Window};
///
/// let new = || {
///     let group = Group { name: "model".into(), fixed_rate: false, rate: 0.1 };
///     let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
///     let config = NewtonConfig::default().window(Window::steps(50)?).ramp(false);
///     Engine::new(config, vec![group], facts)
/// };
/// let mut engine = new()?;
/// engine.set_schedule(Some(Schedule::warm_up(10)?));
/// assert_eq!(engine.rates().next(), Some(("model", 0.1)));
/// assert_eq!((engine.steps(), engine.window(), engine.factor()), (0, 50, 0.1));
/// assert!(engine.lacks_snapshot() && engine.history().is_empty());
///
/// let saved = serde_json::to_string(engine.state())?;
/// let mut other = new()?;
/// other.resume(serde_json::from_str(&saved)?)?;
/// assert_eq!(other.state(), engine.state());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Engine<R> {
    config: Config<R>,
    /// K, by the configuration and the base optimizer's momentum.
    window: usize,
    schedule: Option<Schedule>,
    facts: HostFacts,
    groups: Vec<GroupSettings>,
    /// The learned rates times [`factor`](Self::factor), for the update that was asked for.
    effective: Vec<f64>,
    state: State,
}

/// What is fixed about a group.
#[derive(Clone, Debug)]
struct GroupSettings {
    name: Arc<str>,
    fixed_rate: bool,
}

impl<R: RateRule> Engine<R> {
    /// Makes an engine that trains one rate for each group.
    ///
    /// # Errors
    /// - [`Error::OutOfRange`] for a number of `config` or of `facts`.
    /// - [`Error::SketchWithSafeguard`] for a `config` that has both.
    /// - [`Error::NothingToTrain`] without groups.
    /// - [`Error::Rate`] for a starting rate outside [`RATES`].
    ///
    /// Example: [`Engine`].
    pub fn new(config: Config<R>, groups: Vec<Group>, facts: HostFacts) -> Result<Self, Error> {
        let HostFacts { momentum, epsilon } = facts;
        let holds = (0.0..1.0).contains(&momentum);
        Error::unless(holds, "the optimizer's momentum", "at least 0 and below 1", momentum)?;
        let holds = epsilon > 0.0 && epsilon <= 1.0;
        Error::unless(holds, "the weights' epsilon", "in (0, 1]", epsilon)?;
        let window = config.validated_window(momentum)?;
        if groups.is_empty() {
            return Err(Error::NothingToTrain);
        }
        if let Some(Group { name, rate, .. }) =
            groups.iter().find(|group| !RATES.contains(&group.rate))
        {
            return Err(Error::Rate { group: name.to_string(), rate: *rate });
        }
        let fresh = groups.iter().map(|group| fresh_group(group.rate, config.climb)).collect();
        let state = State::new(0, fresh, Vec::new());
        let effective = groups.iter().map(|group| group.rate).collect();
        let settings = |Group { name, fixed_rate, .. }| GroupSettings { name, fixed_rate };
        let mut engine = Self {
            config,
            window,
            schedule: None,
            facts,
            groups: groups.into_iter().map(settings).collect(),
            effective,
            state,
        };
        engine.state.ramp = engine.new_ramp();
        Ok(engine)
    }

    /// Multiplies every learned rate by a schedule. `None` takes the schedule away.
    ///
    /// Example: [`Engine`].
    pub fn set_schedule(&mut self, schedule: Option<Schedule>) {
        self.schedule = schedule;
    }
}

/// The state of a group whose rate has not been decided on yet.
fn fresh_group(rate: f64, climb: Option<f64>) -> GroupState {
    GroupState {
        start_rate: rate,
        rate,
        silent: false,
        climbs: climb.is_some(),
        previous: None,
        before_cut: None,
        bound: None,
        highest: 0.0,
    }
}

impl<R> Engine<R> {
    /// Whether the host has snapshots to go back to, and not a sketch of them.
    fn keeps_snapshots(&self) -> bool {
        self.config.sketch.is_none()
    }

    /// What [`factor`](Self::factor) is without a ramp.
    fn planned_factor(&self) -> f64 {
        let State { steps, level_from, quiet, follows, .. } = self.state;
        let scheduled = self.schedule.as_ref().map_or(1.0, |schedule| schedule.factor(steps));
        let shape = HorizonShape::of(quiet, follows);
        let ends = |horizon| shape.factor(horizon, level_from, steps);
        scheduled * self.config.horizon.map_or(1.0, ends)
    }

    /// Starts over at the weights as they are, from the rates that the engine was made with. All
    /// that was learned of losses and directions is forgotten, and so is a step that has begun.
    /// Steps are counted on, and the history is kept.
    ///
    /// # Example
    /// ```
    /// use tlr::engine::*;
    ///
    /// let group = Group { name: "model".into(), fixed_rate: false, rate: 0.1 };
    /// let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
    /// let mut engine = Engine::new(NewtonConfig::default(), vec![group], facts)?;
    /// engine.tell(Event::Batch { loss: Some(1.0), only_gathers: false })?;
    /// engine.reset(); // no answer to the request is waited for
    /// assert!(!engine.state().is_within_step() && engine.lacks_snapshot());
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn reset(&mut self) {
        let groups = self
            .state
            .groups
            .iter()
            .map(|group| fresh_group(group.start_rate, self.config.climb))
            .collect();
        let history = std::mem::take(&mut self.state.history);
        self.state = State::new(self.state.steps, groups, history);
        self.state.ramp = self.new_ramp();
    }

    /// Takes over what another engine remembered. It goes on as that one would have, to the bit, if
    /// it has the same groups and the same configuration. The caller has to see to that: a state
    /// does not hold them. A state saved within a step waits for the answer to its last request.
    ///
    /// # Errors
    /// [`Error::ImpossibleState`] if no such engine can have been in it. Nothing has changed then.
    ///
    /// Example: [`Engine`].
    pub fn resume(&mut self, state: State) -> Result<(), Error> {
        if let Some(figure) = self.impossible_figure(&state) {
            return Err(Error::ImpossibleState { figure });
        }
        self.replace_state(state);
        Ok(())
    }

    /// The figure of a state that no engine with the same groups can have left there, if there is
    /// one.
    pub(crate) fn impossible_figure(&self, state: &State) -> Option<&'static str> {
        state.impossible_figure(self.groups.len(), self.window)
    }

    /// Goes on from a state that has no [impossible figure](Self::impossible_figure).
    pub(crate) fn replace_state(&mut self, state: State) {
        self.state = state;
        if let Phase::Updating(step) = &self.state.phase {
            let step = step.clone();
            self.set_effective_rates(&step);
        }
    }

    /// The schedule has no effect during the ramp: it will multiply the rates that the ramp finds.
    fn set_effective_rates(&mut self, step: &PendingStep) {
        match &step.ramp {
            Some(ramp) => {
                self.effective.iter_mut().zip(ramp.rates()).for_each(|(to, rate)| *to = rate);
            }
            None => {
                for (effective, group) in self.effective.iter_mut().zip(&self.state.groups) {
                    *effective = bounded(group.rate * step.factor);
                }
            }
        }
    }

    /// What was configured.
    #[cfg(feature = "dfdx")]
    pub(crate) fn settings(&self) -> Settings
    where
        R: serde::Serialize,
    {
        let name = |group: &GroupSettings| match group.fixed_rate {
            true => format!("{} (rate fixed)", group.name),
            false => group.name.to_string(),
        };
        self.settings_but_rule()
            .with("layers", self.groups.iter().map(name).collect::<Vec<_>>().join(", "))
            .with("rule", &self.config.rule)
    }

    /// What was configured, but for the rule and the groups.
    #[cfg(feature = "dfdx")]
    fn settings_but_rule(&self) -> Settings {
        Settings::default()
            .with("window", self.window)
            .with("climb", self.config.climb)
            .with("ramp", self.config.ramp)
            .with("settle", self.config.settle)
            .with("horizon", self.config.horizon)
            .with("safeguard", self.config.safeguard)
            .with("schedule", self.schedule.as_ref().and_then(|s| serde_json::to_string(s).ok()))
    }
}
