//! [`Watch`]: judges each loss, and through it the window.

use super::{losses::Losses, raised, Safeguard};
use crate::{
    engine::{exact, mean::running_mean, possible::first_broken, products::Slope},
    error::Cause,
};
use serde::{Deserialize, Serialize};

/// What a loss says of the window it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LossVerdict {
    Good,
    /// The loss is above the limit for the window's mean, but later losses may still bring the
    /// mean down.
    Doubtful,
    /// The batch is left out: its loss is not finite or far above all others, and the loss of the
    /// batch before was neither.
    Skip(Cause),
    /// The window is undone.
    Bad(Cause),
}

impl LossVerdict {
    /// Skips the batch, which may be to blame, but not twice in a row.
    fn skip_unless(again: bool, cause: Cause) -> Self {
        if again {
            Self::Bad(cause)
        } else {
            Self::Skip(cause)
        }
    }
}

/// A way counts as uphill if its slope is above this fraction of the gradients' norm. Noise stays
/// below it.
const UPHILL_COSINE: f64 = 0.3;
/// Gradients have exploded if their norm is above this many times all norms before.
const GRADIENT_EXPLOSION: f64 = 3.0;
/// After this many windows in a row that end uphill with larger gradients, the window is undone.
const RISES: u64 = 3;

/// This many losses at a snapshot show its level.
const SAME_SNAPSHOT: usize = 3;

/// The losses seen so far, as far as the safeguard's tests need them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Watch {
    /// The largest loss seen at the starting weights.
    #[serde(with = "exact::option")]
    start_loss: Option<f64>,
    /// The highest that a limit can be, once a window has been accepted.
    #[serde(with = "exact::option")]
    ceiling: Option<f64>,
    /// The last loss was not finite. (Losses of batches that are only gathered count, too.)
    was_not_finite: bool,
    /// The last loss was above the limit for single losses, or so high that its window could no
    /// longer pass.
    exploded: bool,
    /// A loss of this window rose, and no rate was to blame. So the window is no longer tested for
    /// being doomed.
    forgiven: bool,
    /// The largest norm of the gradients at the starting weights, if it is known.
    #[serde(with = "exact::option")]
    gradient: Option<f64>,
    /// The norm of the last gradients of the last window without losses.
    #[serde(with = "exact")]
    last_gradient: f64,
    /// Windows in a row that went uphill, with gradients that grew.
    uphill_windows: u64,
    /// The losses seen at the snapshot, one for each time that a window began there. Until a window
    /// is accepted, it also has the later losses that no rate was to blame for: there is no
    /// accepted window yet whose mean they could raise.
    origin: Losses,
    /// The last three losses at the snapshot. Unlike `origin` it has those that exploded.
    #[serde(with = "exact::list")]
    at_snapshot: Vec<f64>,
    window: Losses,
    /// The last accepted window that had a loss.
    accepted: Option<Losses>,
    any_accepted: bool,
    /// Windows accepted in a row.
    accepted_in_a_row: u64,
    /// Rollbacks since the last accepted window.
    rollbacks: usize,
    /// The rollbacks among them that the rates were to blame for.
    cuts: i32,
}

impl Watch {
    /// Judges a loss before its gradients are used, in a window of `length` steps.
    pub(crate) fn inspect(
        &mut self,
        loss: f64,
        length: usize,
        safeguard: &Safeguard,
    ) -> LossVerdict {
        let after_not_finite = self.was_not_finite;
        let whole = self.inspect_gathered(loss);
        if whole != LossVerdict::Good {
            return whole;
        }
        let start = self.start_loss.unwrap_or(loss).max(self.level_at_snapshot());
        let largest = self.accepted.as_ref().map_or(start, |window| window.max.max(start));
        let explodes = loss > raised(largest, safeguard.explosion);
        if self.window.count == 0 {
            if !self.any_accepted {
                self.start_loss = Some(start.max(loss));
            }
            // Once a window has been accepted, a loss that explodes is put down to its batch, and
            // does not count among the losses at the snapshot.
            if !explodes || !self.any_accepted {
                self.origin.push(loss);
            }
            if self.at_snapshot.len() == SAME_SNAPSHOT {
                self.at_snapshot.remove(0);
            }
            self.at_snapshot.push(loss);
        }
        let limit = self.limit(safeguard);
        let doomed = !self.forgiven && self.least_mean(loss, length) > limit;
        let recent = self.accepted.as_ref().map(|window| window.max.max(self.window.max));
        let by_this_alone =
            doomed && recent.is_some_and(|recent| loss > raised(recent, safeguard.explosion));
        if explodes || by_this_alone {
            let again = std::mem::replace(&mut self.exploded, true) || after_not_finite;
            let explosion = Cause::LossExploded;
            let cause = if explodes { explosion } else { Cause::LossIncreased };
            return LossVerdict::skip_unless(again, cause);
        }
        self.exploded = false;
        if doomed {
            LossVerdict::Bad(Cause::LossIncreased)
        } else if loss > limit {
            LossVerdict::Doubtful
        } else {
            LossVerdict::Good
        }
    }

    /// Judges the loss of a batch whose gradients are only gathered: it has to be a number.
    pub(crate) fn inspect_gathered(&mut self, loss: f64) -> LossVerdict {
        if !loss.is_finite() {
            let again = std::mem::replace(&mut self.was_not_finite, true) || self.exploded;
            return LossVerdict::skip_unless(again, Cause::NonFiniteLoss);
        }
        self.was_not_finite = false;
        LossVerdict::Good
    }

    /// The highest mean that the window may have.
    fn limit(&self, safeguard: &Safeguard) -> f64 {
        // Before a window is accepted, its own noise widens its limit. That is safe: `explosion`
        // lets only little noise pass.
        let noise = self.accepted.as_ref().unwrap_or(&self.window).standard_error();
        let limit = safeguard.limit_after(self.reference(), noise);
        let level = safeguard.limit_after(self.level_at_snapshot(), self.origin.standard_error());
        // Without a level the second limit is NaN, which `f64::max` ignores.
        self.ceiling.map_or(limit, |ceiling| limit.min(ceiling)).max(level)
    }

    /// The level of the snapshot: the least of the last losses seen there. −∞ if there are fewer
    /// than [`SAME_SNAPSHOT`].
    fn level_at_snapshot(&self) -> f64 {
        if self.at_snapshot.len() == SAME_SNAPSHOT {
            self.at_snapshot.iter().copied().fold(f64::INFINITY, f64::min)
        } else {
            f64::NEG_INFINITY
        }
    }

    /// The mean of the window if all losses after `loss` are as low as possible.
    fn least_mean(&self, loss: f64, length: usize) -> f64 {
        let lowest = self.accepted.as_ref().map_or(loss, |window| window.min.min(loss));
        let floor = lowest.min(self.window.min).min(0.0);
        let seen = self.window.count as f64;
        let left = (length as f64 - seen - 1.0).max(0.0);
        let mean = running_mean(self.window.mean, loss, seen + 1.0);
        running_mean(mean, floor, (seen + 1.0 + left) / left)
    }

    /// The mean loss that the window is compared with.
    fn reference(&self) -> f64 {
        match &self.accepted {
            Some(window) if self.rollbacks == 0 || self.origin.count == 0 => window.mean,
            Some(window) => window.mean.max(self.origin.mean),
            None => self.origin.mean,
        }
    }

    /// By how much this loss is above the mean that the window is compared with.
    pub(crate) fn rise(&self, loss: f64) -> f64 {
        loss - self.reference()
    }

    /// Moves the limits up to this loss, for which no rate is to blame.
    pub(crate) fn forgive(&mut self, loss: f64) {
        // `inspect` has counted it already, if it is the first loss of a window.
        if self.window.count > 0 && !self.any_accepted {
            self.origin.push(loss);
        }
        (self.exploded, self.forgiven) = (false, true);
        self.start_loss = self.start_loss.map(|start| start.max(loss));
        self.ceiling = self.ceiling.map(|ceiling| ceiling.max(loss));
    }

    /// Starts after a ramp. `loss` and `gradient` are the ramp's maxima before rates began to grow.
    /// A gradient of 0 is no measure: there was none.
    pub(crate) fn start_from(&mut self, loss: Option<f64>, gradient: f64) {
        self.start_loss = loss;
        self.gradient = (gradient > 0.0).then_some(gradient);
    }

    /// Whether this window has had a loss.
    pub(crate) fn has_losses(&self) -> bool {
        self.window.count > 0
    }

    /// Counts a window without losses. Returns whether it has gone too far: uphill, and to
    /// gradients that have exploded, or that have grown in [`RISES`] such windows in a row.
    pub(crate) fn record_uphill(&mut self, slopes: &[Slope]) -> bool {
        let all: Slope = slopes.iter().copied().sum();
        if !all.is_finite() {
            return false;
        }
        let grown = all.gradient > self.last_gradient;
        self.uphill_windows = if leads_uphill(&all) && grown { self.uphill_windows + 1 } else { 0 };
        self.gradient.get_or_insert(all.gradient);
        let too_far = self.has_gone_too_far(&all) || self.uphill_windows >= RISES;
        if too_far {
            self.uphill_windows = 0;
        } else {
            self.last_gradient = all.gradient;
        }
        too_far
    }

    /// Whether a way has gone too far, whatever windows came before: uphill to gradients that have
    /// exploded, or far beyond the weights' own size, where gradients may say nothing at all.
    pub(crate) fn has_gone_too_far(&self, all: &Slope) -> bool {
        let before = self.gradient.map(|start| start.max(self.last_gradient));
        before.is_some_and(|before| gradient_has_exploded(all, before)) || all.is_far_out()
    }

    /// Notes that a step with this loss was made.
    pub(crate) fn record(&mut self, loss: f64) {
        self.window.push(loss);
    }

    /// Accepts the window. Its end is the new snapshot.
    pub(crate) fn accept(&mut self, safeguard: Option<&Safeguard>) {
        let window = std::mem::take(&mut self.window);
        self.forgiven = false;
        if let (Some(start), Some(safeguard), None) = (self.start_loss, safeguard, &self.accepted) {
            self.ceiling = Some(start + safeguard.standard_errors * window.deviation());
        }
        // No ceiling is below the level of the snapshot, where the weights have been.
        let level = self.level_at_snapshot();
        self.ceiling = self.ceiling.map(|ceiling| {
            let standard_errors = safeguard.map_or(0.0, |safeguard| safeguard.standard_errors);
            if level > ceiling {
                level + standard_errors * window.deviation()
            } else {
                ceiling
            }
        });
        if window.count > 0 {
            self.accepted = Some(window);
        }
        self.any_accepted = true;
        self.accepted_in_a_row += 1;
        self.rollbacks = 0;
        self.cuts = 0;
        self.new_snapshot();
    }

    /// Undoes the window. Returns what to multiply the rates by.
    pub(crate) fn roll_back(&mut self, safeguard: &Safeguard, are_to_blame: bool) -> f64 {
        self.leave();
        self.accepted_in_a_row = 0;
        self.rollbacks += 1;
        self.cuts = self.cuts.saturating_add(i32::from(are_to_blame));
        let cut = if self.any_accepted { safeguard.cut } else { safeguard.first_cut };
        if are_to_blame {
            cut.powi(self.cuts)
        } else {
            1.0
        }
    }

    /// Whether enough windows were accepted in a row for the rates to be trusted.
    pub(crate) fn trusts(&self, safeguard: &Safeguard) -> bool {
        self.accepted_in_a_row >= safeguard.trust as u64
    }

    /// Ends the window before its time, without a decision.
    pub(crate) fn leave(&mut self) {
        self.window = Losses::default();
        self.forgiven = false;
    }

    /// Forgets the losses at the snapshot: windows begin at another one from now on.
    pub(crate) fn new_snapshot(&mut self) {
        self.origin = Losses::default();
        self.at_snapshot.clear();
    }

    /// The first figure that no training can have come to, if no count can be above `most`. (A
    /// ceiling may be infinite, where the noise of huge losses is.)
    pub(crate) fn impossible_figure(&self, most: u64) -> Option<&'static str> {
        let can_be = |losses: &Losses| losses.count <= most && losses.is_possible();
        let is_norm = |norm: f64| (0.0..=f64::MAX).contains(&norm);
        let levels = &self.at_snapshot;
        let is_level = levels.len() <= SAME_SNAPSHOT && levels.iter().all(|loss| loss.is_finite());
        let cuts = usize::try_from(self.cuts);
        first_broken([
            (can_be(&self.origin), "watch.origin"),
            (can_be(&self.window), "watch.window"),
            (self.accepted.as_ref().is_none_or(can_be), "watch.accepted"),
            (self.start_loss.is_none_or(f64::is_finite), "watch.start_loss"),
            (!self.ceiling.is_some_and(f64::is_nan), "watch.ceiling"),
            (self.gradient.is_none_or(is_norm), "watch.gradient"),
            (is_norm(self.last_gradient), "watch.last_gradient"),
            (is_level, "watch.at_snapshot"),
            (self.accepted_in_a_row <= most, "watch.accepted_in_a_row"),
            (self.uphill_windows <= RISES, "watch.uphill_windows"),
            (self.rollbacks as u64 <= most, "watch.rollbacks"),
            (cuts.is_ok_and(|cuts| cuts <= self.rollbacks), "watch.cuts"),
        ])
    }

    /// Whether weights that are not finite are the batch's fault rather than the rates': once in a
    /// row of rollbacks, after windows that were accepted.
    pub(crate) fn forgives_broken_weights(&self) -> bool {
        self.any_accepted && usize::try_from(self.cuts) == Ok(self.rollbacks)
    }

    /// Whether any window has ever been accepted.
    pub(crate) fn any_accepted(&self) -> bool {
        self.any_accepted
    }

    pub(crate) fn rollbacks(&self) -> usize {
        self.rollbacks
    }
}

/// Whether a way leads uphill, to a gradient that has exploded beside those `before`.
pub(crate) fn gradient_has_exploded(all: &Slope, before: f64) -> bool {
    leads_uphill(all) && all.gradient > GRADIENT_EXPLOSION * before
}

/// Whether the loss rises along the way by more than noise.
fn leads_uphill(all: &Slope) -> bool {
    all.along > UPHILL_COSINE * all.moved * all.gradient
}

#[cfg(test)]
mod tests;
