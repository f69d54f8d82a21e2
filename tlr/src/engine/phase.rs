//! What an engine waits for within a step, and what it keeps meanwhile.

use super::{
    event::Target,
    exact,
    gathered::GatheredLosses,
    history::Adaptation,
    possible::{first_broken, MAX_COUNT},
    products::{Slope, WindowProducts},
    safeguard::Watch,
    start::ramp::Ramp,
};
use crate::error::Cause;
use serde::{Deserialize, Serialize};

/// Slopes, in the words of an error.
const SLOPES: &str = "slopes: one for each group, or none";

/// What an engine waits for.
///
/// What a step would change is kept here until the host has done its part. So a host that fails
/// leaves everything else as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Phase {
    /// It waits for a batch.
    Idle,
    /// It waits for a snapshot of the weights, at the beginning of a window.
    TakingWeights(PendingStep),
    /// It waits for a snapshot of the buffers, at the beginning of a window.
    TakingBuffers(PendingStep),
    /// It waits for the slopes, to find the starting rates by.
    Ramping(PendingStep),
    /// It waits for the slopes: are the rates to blame for this cause?
    Suspecting(PendingStep, Cause),
    /// It waits for the update of the weights.
    Updating(PendingStep),
    /// It waits for the base optimizer to be cleared: the ramp has ended, by these decisions.
    Clearing(Vec<Adaptation>),
    /// It waits for the host to leave a batch out, for this cause.
    Skipping(PendingStep, Cause),
    /// The engine waits for an answer whether the weights are finite. Their window will be undone
    /// for this cause, and these groups' rates are to blame. None: all of them.
    Checking(PendingStep, Cause, Option<Vec<bool>>),
    /// It waits for the slopes of the window so far.
    LookingBack(PendingStep),
    /// It waits for the products of a window whose last step has been made. These are the slopes
    /// that were measured before that step, if any were.
    EndingWindow(Option<Vec<Slope>>),
    /// It waits for more evidence on a window that has ended.
    Weighing(EndedWindow),
    /// It waits for the host to go back to a snapshot.
    GoingBack(Rollback),
    /// It waits for the host to go back from weights that are not finite. There is no safeguard.
    Retreating { tensor: String },
}

impl Phase {
    /// The event that the engine waits for, in words.
    pub(super) fn awaits(&self) -> &'static str {
        match self {
            Self::Idle => "a batch",
            Self::TakingWeights(_) | Self::TakingBuffers(_) => "a snapshot",
            Self::Ramping(_) | Self::LookingBack(_) | Self::Suspecting(..) => SLOPES,
            Self::Updating(_) => "an update",
            Self::Clearing(_) => "a cleared optimizer",
            Self::Skipping(..) => "a batch left out",
            Self::Checking(..) => "a check of the weights",
            Self::EndingWindow(_) => "the products of each group, or a broken window",
            Self::Weighing(window) if window.slopes.is_none() => SLOPES,
            Self::Weighing(window) if window.movable.is_none() => {
                "which groups would move: an answer for each, or none"
            }
            Self::Weighing(_) => "norms: one for each group, or none",
            Self::GoingBack(_) | Self::Retreating { .. } => "a way back",
        }
    }

    pub(super) fn impossible_figure(&self, groups: usize) -> Option<&'static str> {
        match self {
            Self::Idle | Self::Clearing(_) | Self::Retreating { .. } => None,
            Self::EndingWindow(slopes) => {
                first_broken([(is_one_each_or_none(slopes, groups), "phase")])
            }
            Self::TakingWeights(step)
            | Self::TakingBuffers(step)
            | Self::Ramping(step)
            | Self::Suspecting(step, _)
            | Self::LookingBack(step)
            | Self::Updating(step)
            | Self::Skipping(step, _) => step.impossible_figure(groups),
            Self::Checking(step, _, guilty) => step
                .impossible_figure(groups)
                .or_else(|| first_broken([(is_one_each(guilty, groups), "phase")])),
            Self::Weighing(window) => first_broken([
                (window.products.len() == groups, "phase.products"),
                (window.factor >= 0.0, "phase.factor"),
                (is_one_each_or_none(&window.slopes, groups), "phase.slopes"),
                (is_one_each_or_none(&window.movable, groups), "phase.movable"),
            ]),
            Self::GoingBack(rollback) => {
                let ramp = rollback.ramp.as_ref();
                let found = first_broken([
                    (is_one_each(&rollback.guilty, groups), "phase.guilty"),
                    (ramp.is_none_or(|ramp| ramp.is_possible(groups)), "phase.ramp"),
                ]);
                found.or_else(|| rollback.watch.impossible_figure(MAX_COUNT))
            }
        }
    }
}

/// Whether there is a snapshot that may be rolled back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SnapshotTrust {
    /// There is no snapshot: the next step begins with one.
    Missing,
    /// No loss speaks against it, or there is no other snapshot.
    Good,
    /// The snapshot is the end of an accepted window. The window was accepted for the losses before
    /// its end, and no good loss has been seen at the end yet. Until one is, a rollback goes one
    /// snapshot further.
    Unconfirmed,
}

/// Whether a list, if there is one, has an entry for each group.
fn is_one_each<T>(list: &Option<Vec<T>>, groups: usize) -> bool {
    list.as_ref().is_none_or(|list| list.len() == groups)
}

/// Whether an answer has an entry for each group, or none at all because the host cannot tell.
fn is_one_each_or_none<T>(answer: &Option<Vec<T>>, groups: usize) -> bool {
    answer.as_ref().is_some_and(Vec::is_empty) || is_one_each(answer, groups)
}

/// A step that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingStep {
    /// The step's batches so far, this batch included.
    pub(super) gathered: GatheredLosses,
    pub(super) only_gathers: bool,
    /// The factor of schedule and horizon.
    #[serde(with = "exact")]
    pub(super) factor: f64,
    /// What will be remembered of the losses and of the snapshot once the step is made.
    pub(super) watch: Watch,
    pub(super) snapshot: SnapshotTrust,
    /// The ramp that this step is part of, with what it learns from the step.
    pub(super) ramp: Option<Ramp>,
    /// Each group's slope, where it was asked for.
    pub(super) slopes: Option<Vec<Slope>>,
    /// The ramp ends with this step.
    pub(super) ends_ramp: bool,
}

impl PendingStep {
    fn impossible_figure(&self, groups: usize) -> Option<&'static str> {
        let found = first_broken([
            ((0.0..=f64::MAX).contains(&self.factor), "phase.factor"),
            (self.gathered.is_possible(), "phase.gathered"),
            (self.ramp.as_ref().is_none_or(|ramp| ramp.is_possible(groups)), "phase.ramp"),
            (is_one_each_or_none(&self.slopes, groups), "phase.slopes"),
        ]);
        found.or_else(|| self.watch.impossible_figure(MAX_COUNT))
    }
}

/// A window that has ended well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndedWindow {
    pub(super) products: Vec<WindowProducts>,
    /// The mean of the factors of schedule and horizon.
    #[serde(with = "exact")]
    pub(super) factor: f64,
    /// Each group's slope along the window's way. None until the host has answered; empty if the
    /// host cannot measure slopes or was not asked.
    pub(super) slopes: Option<Vec<Slope>>,
    /// Whether a step at a rate of 1 would move each group. None until the host has answered.
    pub(super) movable: Option<Vec<bool>>,
}

/// A window that is being undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    pub(super) cause: Cause,
    /// Whether the rates are to blame, and are cut.
    pub(super) rates_are_to_blame: bool,
    /// The groups whose rates are to blame; none if all are.
    pub(super) guilty: Option<Vec<bool>>,
    /// The ramp that is broken off. Its rates are lowered already: training goes on at them.
    pub(super) ramp: Option<Ramp>,
    /// Whether the step that led to the rollback has yet to be counted.
    pub(super) counts_step: bool,
    pub(super) target: Target,
    pub(super) watch: Watch,
}
