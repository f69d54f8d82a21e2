//! All that an engine remembers.

use super::{
    exact,
    gathered::GatheredLosses,
    history::Adaptation,
    phase::{Phase, SnapshotTrust},
    possible::{first_broken, MAX_COUNT},
    products::{DirectionProducts, WindowProducts},
    rule::RATES,
    safeguard::Watch,
    start::ramp::Ramp,
};
use serde::{Deserialize, Serialize};

/// All that an engine remembers, in one value that serde can write and read to the bit. (As JSON it
/// takes a reader that reads every number to the bit: `serde_json` with its feature
/// `float_roundtrip`.)
///
/// Example: [`Engine`](super::Engine).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The steps so far. Steps that were rolled back count; batches that were only gathered do not.
    pub(super) steps: u64,
    /// The steps made in this window.
    pub(super) position: usize,
    /// The sum of the factors of schedule and horizon over these steps.
    #[serde(with = "exact")]
    pub(super) factors: f64,
    pub(super) gathered: GatheredLosses,
    pub(super) snapshot: SnapshotTrust,
    pub(super) watch: Watch,
    pub(super) groups: Vec<GroupState>,
    /// Whether a step is as long as the gradient (as in SGD), and not normalized (as in Adam). The
    /// ramp has measured it.
    pub(super) follows: bool,
    /// The steps before the horizon's decay began: those of the ramp.
    pub(super) level_from: u64,
    /// Whether noise is little: one batch is enough to tell the slope from noise, or around Adam as
    /// many as one of its steps averages. The ramp has measured it.
    pub(super) quiet: bool,
    /// The search for the starting rates, while it goes on.
    pub(super) ramp: Option<Ramp>,
    pub(super) phase: Phase,
    pub(super) history: Vec<Adaptation>,
}

/// A rate is steady unless it has just risen to more than this many times what it was.
const STEADY: f64 = 1.25;

/// What is remembered of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupState {
    /// The rate that training started from.
    #[serde(with = "exact")]
    pub(super) start_rate: f64,
    /// The learned rate, without schedule and horizon.
    #[serde(with = "exact")]
    pub(super) rate: f64,
    /// Whether the group has had no gradient yet.
    pub(super) silent: bool,
    /// Whether all windows so far agreed well enough for the rate to climb.
    pub(super) climbs: bool,
    pub(super) previous: Option<PreviousWindow>,
    /// The rate before a cut that is on probation.
    #[serde(with = "exact::option")]
    pub(super) before_cut: Option<f64>,
    /// The bound of the rate since a higher one was undone: see
    /// [`Safeguard::retry`](super::Safeguard::retry).
    #[serde(with = "exact::option")]
    pub(super) bound: Option<f64>,
    /// The highest rate, times the factor of schedule and horizon, that has moved the weights in a
    /// good window; 0 if there was none.
    #[serde(with = "exact")]
    pub(super) highest: f64,
}

impl GroupState {
    /// The products of the directions u = s / (rate · factor), from those of the displacements s of
    /// the window before and of this one. `factor` is the mean of this window's factors.
    pub(super) fn directions(
        &self,
        window: &WindowProducts,
        factor: f64,
    ) -> Option<DirectionProducts> {
        let previous = self.previous?;
        let (then, now) = (previous.rate * previous.factor, self.rate * factor);
        Some(DirectionProducts {
            uu: previous.squared / then / then,
            un: window.across / then / now,
            nn: window.own / now / now,
        })
    }

    /// Whether the rate is about that of the window before.
    pub(super) fn is_steady(&self) -> bool {
        self.previous.is_some_and(|previous| self.rate <= STEADY * previous.rate)
    }
}

/// The window before this one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviousWindow {
    /// The learned rate in that window, without schedule and horizon.
    #[serde(with = "exact")]
    pub(super) rate: f64,
    /// The mean of the factors of schedule and horizon over that window.
    #[serde(with = "exact")]
    pub(super) factor: f64,
    /// ⟨s,s⟩ of its displacement s = rate · factor · u.
    #[serde(with = "exact")]
    pub(super) squared: f64,
}

impl State {
    /// The state after `steps` steps, with nothing learned of losses and windows. The caller sets
    /// the ramp.
    pub(super) fn new(steps: u64, groups: Vec<GroupState>, history: Vec<Adaptation>) -> Self {
        Self {
            steps,
            position: 0,
            factors: 0.0,
            gathered: GatheredLosses::default(),
            snapshot: SnapshotTrust::Missing,
            watch: Watch::default(),
            groups,
            follows: false,
            level_from: steps,
            quiet: false,
            ramp: None,
            phase: Phase::Idle,
            history,
        }
    }

    /// Whether a step has begun and is not over.
    ///
    /// # Example
    /// A host that fails in the middle of a step says so, and can begin the next one.
    /// ```
    /// use tlr::engine::*;
    ///
    /// let group = Group { name: "model".into(), fixed_rate: false, rate: 0.1 };
    /// let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
    /// let mut engine = Engine::new(NewtonConfig::default(), vec![group], facts)?;
    /// engine.tell(Event::Batch { loss: Some(1.0), only_gathers: false })?;
    /// assert!(engine.state().is_within_step());
    /// let weights_have_moved = engine.host_failed();
    /// assert!(!weights_have_moved && !engine.state().is_within_step());
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn is_within_step(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// The first figure that no engine with this number of groups and windows of this length can
    /// have left there, if there is one.
    pub(super) fn impossible_figure(&self, groups: usize, window: usize) -> Option<&'static str> {
        let all = |holds: &dyn Fn(&GroupState) -> bool| self.groups.iter().all(holds);
        let is_rate = |rate: &f64| RATES.contains(rate);
        let followed = |previous: PreviousWindow| is_rate(&previous.rate) && previous.factor >= 0.0;
        let found = first_broken([
            (self.groups.len() == groups, "groups"),
            (all(&|group| RATES.contains(&group.start_rate)), "groups.start_rate"),
            (all(&|group| RATES.contains(&group.rate)), "groups.rate"),
            (all(&|group| group.before_cut.iter().all(is_rate)), "groups.before_cut"),
            (all(&|group| group.bound.iter().all(is_rate)), "groups.bound"),
            (all(&|group| (0.0..=*RATES.end()).contains(&group.highest)), "groups.highest"),
            (all(&|group| group.previous.is_none_or(followed)), "groups.previous"),
            (self.factors >= 0.0, "factors"),
            (self.ramp.as_ref().is_none_or(|ramp| ramp.is_possible(groups)), "ramp"),
            (self.steps < MAX_COUNT, "steps"),
            (self.gathered.is_possible(), "gathered"),
            (self.is_placed(window), "position"),
            (self.level_from <= self.steps, "level_from"),
        ]);
        let found = found.or_else(|| self.watch.impossible_figure(MAX_COUNT));
        found.or_else(|| self.phase.impossible_figure(groups))
    }

    /// Whether the position fits a window of this length. It can be larger only if the host has
    /// failed to end the window: then the snapshot before the last and all directions are lost.
    fn is_placed(&self, window: usize) -> bool {
        let ends = matches!(self.phase, Phase::EndingWindow(_));
        let could_not_end = || {
            self.snapshot == SnapshotTrust::Good
                && self.groups.iter().all(|group| group.previous.is_none())
        };
        self.position as u64 <= self.steps
            && (self.position < window || ends && self.position == window || could_not_end())
            && (!ends || self.position >= window)
            && (!matches!(self.phase, Phase::Weighing(_)) || self.position == 0)
    }
}
