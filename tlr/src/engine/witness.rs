//! The steps at which slopes are asked for outside of the ramp: before the last step of a window,
//! if a loss has risen, and every few steps without a loss.

use super::{
    event::{Request, Target},
    phase::{PendingStep, Rollback, SnapshotTrust},
    products::Slope,
    rule::RateRule,
    safeguard::{blame, Blame},
    Engine,
};
use crate::error::Cause;

/// Without losses, slopes are asked for every this many steps.
const LOOKS_APART: u64 = 4;

/// Where a step is in its window. Before the first step the weights are at the snapshot, so there
/// is no path yet along which to measure a slope.
enum Place {
    First,
    Between,
    Last,
    /// A window of one step.
    Only,
}

impl<R: RateRule> Engine<R> {
    /// Whether to ask for slopes before rates are blamed: the way since the snapshot may not
    /// explain the rise.
    pub(super) fn may_be_innocent(&self, cause: Cause) -> bool {
        let rose = matches!(cause, Cause::LossIncreased | Cause::LossExploded);
        rose && self.blames()
    }

    /// Whether the safeguard looks for blame.
    pub(super) fn blames(&self) -> bool {
        self.config.safeguard.is_some_and(|safeguard| safeguard.blame.is_some())
    }

    /// The snapshot that a rollback would go to.
    pub(super) fn way_back(&self) -> Target {
        match self.state.snapshot {
            SnapshotTrust::Unconfirmed => Target::BeforeLast,
            SnapshotTrust::Good | SnapshotTrust::Missing => Target::Last,
        }
    }

    /// Decides by the slopes which rates are to blame for a rise.
    pub(super) fn suspected(
        &mut self,
        mut step: PendingStep,
        cause: Cause,
        slopes: &[Slope],
    ) -> Request {
        let share = self.config.safeguard.and_then(|safeguard| safeguard.blame);
        let (Some(share), Some(loss)) = (share, step.gathered.mean()) else {
            return self.check(step, cause, None);
        };
        match blame(share, step.watch.rise(loss), slopes) {
            Blame::All => self.check(step, cause, None),
            Blame::Some(guilty) => {
                let guilty = self.can_be_cut(&guilty).then_some(guilty);
                self.check(step, cause, guilty)
            }
            Blame::None => {
                step.watch.forgive(loss);
                self.ask_for_update(step)
            }
        }
    }

    /// Whether the rate of any `guilty` group may be cut. If every guilty group's rate is fixed, a
    /// loss that has risen cuts the other groups' rates; a slope alone undoes nothing.
    pub(super) fn can_be_cut(&self, guilty: &[bool]) -> bool {
        self.groups.iter().zip(guilty).any(|(group, guilty)| *guilty && !group.fixed_rate)
    }

    /// Whether the host is asked for slopes along the window's way before this step. It is asked
    /// before the last step of a window. (After that step would be too late: the step follows the
    /// gradient that measures the slope, and would bias it.) Without losses, slopes are the only
    /// witness, and the host is asked more often.
    pub(super) fn looks_back(&self, step: &PendingStep) -> bool {
        let without_loss = step.gathered.mean().is_none() && self.blames();
        let now_and_then = without_loss && self.state.steps.is_multiple_of(LOOKS_APART);
        let of_interest = match self.place() {
            Place::Last => self.config.settle || without_loss || self.has_silent_groups(),
            Place::Only | Place::Between => now_and_then,
            Place::First => false,
        };
        of_interest && !step.only_gathers
    }

    /// The place of the next step in its window.
    fn place(&self) -> Place {
        match (self.state.position == 0, self.state.position + 1 == self.window) {
            (true, true) => Place::Only,
            (true, false) => Place::First,
            (false, true) => Place::Last,
            (false, false) => Place::Between,
        }
    }

    /// The snapshot from which slopes are measured: the last one, where the window began. In a
    /// window of one step that would be no way yet, so it is the snapshot that a rollback would go
    /// to.
    pub(super) fn way_to_look_at(&self) -> Target {
        match self.place() {
            Place::Only => self.way_back(),
            Place::First | Place::Between | Place::Last => Target::Last,
        }
    }

    /// Takes the slopes along the way so far. At a window's end they are weighed with its products.
    pub(super) fn looked_back(&mut self, mut step: PendingStep, slopes: Vec<Slope>) -> Request {
        if let Place::Last = self.place() {
            step.slopes = Some(slopes);
            return self.ask_for_update(step);
        }
        let all: Slope = slopes.iter().copied().sum();
        // The end of a window checks the weights, and a window of one step ends with this step.
        let is_broken = !all.is_finite() && matches!(self.place(), Place::Between);
        let too_far = !is_broken && self.state.watch.has_gone_too_far(&all);
        let guilty = too_far.then(|| self.guilty(&slopes)).flatten();
        let (cause, rates_are_to_blame, target) = if is_broken {
            let cause = match all.moved.is_finite() {
                true => Cause::NonFiniteGradient,
                false => Cause::NonFiniteWeights,
            };
            (cause, !step.watch.forgives_broken_weights(), Target::Last)
        } else if guilty.is_some() {
            (Cause::WentTooFar, true, self.way_back())
        } else {
            return self.ask_for_update(step);
        };
        self.go_back(Rollback {
            cause,
            rates_are_to_blame,
            guilty,
            ramp: None,
            counts_step: true,
            target,
            watch: step.watch,
        })
    }

    /// The groups that are to blame for a way that has gone too far, without a loss to judge by.
    pub(super) fn guilty(&self, slopes: &[Slope]) -> Option<Vec<bool>> {
        let share = self.config.safeguard?.blame?;
        match blame(share, f64::MIN_POSITIVE, slopes) {
            Blame::Some(guilty) => self.can_be_cut(&guilty).then_some(guilty),
            Blame::All | Blame::None => None,
        }
    }

    /// Whether any group that can be trained has had no gradient yet.
    pub(super) fn has_silent_groups(&self) -> bool {
        let mut groups = self.state.groups.iter().zip(&self.groups);
        groups.any(|(group, settings)| group.silent && !settings.fixed_rate)
    }
}
