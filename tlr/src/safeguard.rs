//! When a window is undone. Decides only; [`Tlr`](crate::Tlr) does the undoing.

use crate::{checkpoint::exact, history::RollbackCause, Error};
use serde::{Deserialize, Serialize};

/// The tests that undo a window, and how far they cut the rate.
///
/// With the loss fed to [`step`](crate::Tlr::step), each loss is judged before its gradients are used.
/// The weights go back to the last snapshot, at once, when
///
/// - the loss is not finite, or **explodes**, for the second time in a row (the first time the batch is skipped: it
///   may be the batch that is broken). It explodes above `explosion` times the largest of the losses at the starting
///   weights and those of the last accepted window;
/// - a single loss makes the window hopeless that is above `explosion` times all those of this window and the last, for the
///   second time in a row;
/// - the window is **doomed**: even if its remaining losses were 0 (for losses below zero: the lowest
///   seen), its mean would end above m₋·(1 + `tolerance`) + `sems`·√2·sem₋, where m₋ is the mean of the
///   last accepted window and sem₋ its standard error (√2: of the difference of two such means).
///   Before there is one, the loss at the starting weights stands in for m₋, and the window's own noise
///   for sem₋. (Standard errors are of the differences between successive losses, and 0 in a window of
///   fewer than four.) After a rollback m₋ is no less than the mean of the losses seen at the snapshot
///   itself: no rate, however small, gets below the loss it starts from at once. But no limit is above
///   the loss at the starting weights, give or take `sems` standard deviations of the first window's
///   losses: otherwise training could end above where it began, a little every window.
///
/// So a spike that the window has time to make up for is no reason, and a window that cannot be saved
/// is not finished. The losses of a window do not tell of its end: until one seen there is below the
/// limit for means, the way back is to the snapshot before.
///
/// Going back means: weights and buffers from the snapshot, the base optimizer's accumulated state
/// cleared, the previous direction dropped, every learned rate times `first_cut` while no window has
/// been accepted, `cut` later; the k-th time in a row, times the k-th power of that. Where no step was
/// made since the last time, the batch is to blame and not the rate, which stays. So it does where weights have become NaN or
/// infinite behind losses that are finite, the first time in a row: that is a broken gradient.
///
/// After `trust` windows accepted in a row a mean that rises may be bad luck: late in training it is noise that holds a rate where
/// it is, and a rate that was cut would stay there for good. So if the next window is accepted, each rate goes back to what it was,
/// but for those that had just risen by more than a quarter. A second rollback before there is trust again is final.
///
/// Without a loss only a weight that is not finite is a reason.
///
/// Not in the paper, whose rule can end anywhere once a rate is too large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Safeguard {
    /// τ ≥ 0: by how much of itself a window's mean loss may rise. Default 0.1.
    pub tolerance: f64,
    /// ≥ 0: how many standard errors on top. Default 3.
    pub sems: f64,
    /// > 1: times the largest loss at the starting weights or in the last accepted window. Default 1.5.
    pub explosion: f64,
    /// In (0, 1): the cut while no window has been accepted. Default 0.1.
    pub first_cut: f64,
    /// In (0, 1): the cut later. Default 0.5.
    pub cut: f64,
    /// ≥ 1: the windows accepted in a row after which a rate is trusted. Default 5.
    pub trust: usize,
    /// ≥ 1: this many rollbacks with no accepted window in between are an error. Default 20.
    pub max_rollbacks: usize,
}

impl Default for Safeguard {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            sems: 3.0,
            explosion: 1.5,
            first_cut: 0.1,
            cut: 0.5,
            trust: 5,
            max_rollbacks: 20,
        }
    }
}

impl Safeguard {
    /// What the mean of a window must not be above, after one with this mean and standard error.
    fn limit(&self, mean: f64, sem: f64) -> f64 {
        raised(mean, 1.0 + self.tolerance) + self.sems * std::f64::consts::SQRT_2 * sem
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let non_negative = |v: f64| v >= 0.0 && v.is_finite();
        let above_one = |v: f64| v > 1.0 && v.is_finite();
        let fraction = |v: f64| v > 0.0 && v < 1.0;
        for (field, range, value, ok) in [
            ("tolerance", "finite and at least 0", self.tolerance, non_negative(self.tolerance)),
            ("sems", "finite and at least 0", self.sems, non_negative(self.sems)),
            ("explosion", "finite and above 1", self.explosion, above_one(self.explosion)),
            ("first_cut", "in (0, 1)", self.first_cut, fraction(self.first_cut)),
            ("cut", "in (0, 1)", self.cut, fraction(self.cut)),
            ("trust", "at least 1", self.trust as f64, self.trust >= 1),
            ("max_rollbacks", "at least 1", self.max_rollbacks as f64, self.max_rollbacks >= 1),
        ] {
            if !ok {
                return Err(Error::Safeguard { field, range, value });
            }
        }
        Ok(())
    }
}

/// What a loss says of the window it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// Not finite or far above all others, and alone in that.
    Skip,
    /// Above what the mean may be; the window may still make up for it.
    Doubtful,
    Bad(RollbackCause),
}

impl Verdict {
    /// The batch may be to blame, once.
    fn skip_unless(again: bool, cause: RollbackCause) -> Self {
        if again {
            Self::Bad(cause)
        } else {
            Self::Skip
        }
    }
}

/// The losses seen so far, as far as the tests need them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Watch {
    /// The largest loss seen at the starting weights.
    #[serde(with = "exact::option")]
    start: Option<f64>,
    /// What no limit is above, once a window has been accepted.
    #[serde(with = "exact::option")]
    ceiling: Option<f64>,
    /// The last loss, of a step or of a part of one, was not finite.
    skipped: bool,
    /// The last step's loss exploded, or made its window hopeless alone.
    exploded: bool,
    /// Losses seen at the snapshot, one for each time training set out from it.
    origin: Losses,
    window: Losses,
    /// The last accepted window in which a loss was fed.
    accepted: Option<Losses>,
    any_accepted: bool,
    /// In a row.
    #[serde(default)]
    good: u64,
    /// Since the last accepted window.
    rollbacks: usize,
    /// Those of them that the rates were to blame for.
    cuts: i32,
}

impl Watch {
    /// The tests on a loss, before its gradients are used, in a window of `length` steps.
    pub(crate) fn inspect(&mut self, loss: f64, length: usize, safeguard: &Safeguard) -> Verdict {
        let skipped = self.skipped;
        let whole = self.inspect_part(loss);
        if whole != Verdict::Good {
            return whole;
        }
        let start = self.start.unwrap_or(loss);
        let largest = self.accepted.as_ref().map_or(start, |window| window.max.max(start));
        let explodes = loss > raised(largest, safeguard.explosion);
        if self.window.count == 0 {
            if !self.any_accepted {
                self.start = Some(start.max(loss));
            }
            // Later, a loss beyond all others is no measure of the snapshot.
            if !explodes || !self.any_accepted {
                self.origin.push(loss);
            }
        }
        let limit = self.limit(safeguard);
        let hopeless = self.least_mean(loss, length) > limit;
        let recent = self.accepted.as_ref().map(|window| window.max.max(self.window.max));
        let by_this_alone =
            hopeless && recent.is_some_and(|recent| loss > raised(recent, safeguard.explosion));
        if explodes || by_this_alone {
            let again = std::mem::replace(&mut self.exploded, true) || skipped;
            let explosion = RollbackCause::LossExploded;
            let cause = if explodes { explosion } else { RollbackCause::LossIncreased };
            return Verdict::skip_unless(again, cause);
        }
        self.exploded = false;
        if hopeless {
            Verdict::Bad(RollbackCause::LossIncreased)
        } else if loss > limit {
            Verdict::Doubtful
        } else {
            Verdict::Good
        }
    }

    /// The only test on a loss that is a part of a step's.
    pub(crate) fn inspect_part(&mut self, loss: f64) -> Verdict {
        if !loss.is_finite() {
            let again = std::mem::replace(&mut self.skipped, true) || self.exploded;
            return Verdict::skip_unless(again, RollbackCause::NonFiniteLoss);
        }
        self.skipped = false;
        Verdict::Good
    }

    /// What the mean of a window must not be above.
    fn limit(&self, safeguard: &Safeguard) -> f64 {
        let limit = match &self.accepted {
            Some(window) if self.rollbacks == 0 || self.origin.count == 0 => {
                safeguard.limit(window.mean, window.sem())
            }
            Some(window) => safeguard.limit(window.mean.max(self.origin.mean), window.sem()),
            // What `explosion` lets pass cannot widen it by much.
            None => safeguard.limit(self.origin.mean, self.window.sem()),
        };
        self.ceiling.map_or(limit, |ceiling| limit.min(ceiling))
    }

    /// The mean of the window if the losses after `loss` are as low as can be.
    fn least_mean(&self, loss: f64, length: usize) -> f64 {
        let lowest = self.accepted.as_ref().map_or(loss, |window| window.min.min(loss));
        let floor = lowest.min(self.window.min).min(0.0);
        let seen = self.window.count as f64;
        let left = (length as f64 - seen - 1.0).max(0.0);
        (self.window.mean * seen + loss + left * floor) / (seen + 1.0 + left)
    }

    /// Takes note of a loss whose step was made.
    pub(crate) fn record(&mut self, loss: f64) {
        self.window.push(loss);
    }

    /// The window is good, and its end the new snapshot.
    pub(crate) fn accept(&mut self, safeguard: Option<&Safeguard>) {
        let window = std::mem::take(&mut self.window);
        if let (Some(start), Some(safeguard), None) = (self.start, safeguard, &self.accepted) {
            self.ceiling = Some(start + safeguard.sems * window.deviation());
        }
        if window.count > 0 {
            self.accepted = Some(window);
        }
        self.any_accepted = true;
        self.good += 1;
        self.rollbacks = 0;
        self.cuts = 0;
        self.origin = Losses::default();
    }

    /// The window is undone: what to multiply the rates by.
    pub(crate) fn roll_back(&mut self, safeguard: &Safeguard, are_to_blame: bool) -> f64 {
        self.window = Losses::default();
        self.good = 0;
        self.rollbacks += 1;
        self.cuts += i32::from(are_to_blame);
        let cut = if self.any_accepted { safeguard.cut } else { safeguard.first_cut };
        if are_to_blame {
            cut.powi(self.cuts)
        } else {
            1.0
        }
    }

    /// Whether what made the last windows may not be what made this one bad.
    pub(crate) fn trusts(&self, safeguard: &Safeguard) -> bool {
        self.good >= safeguard.trust as u64
    }

    /// The window ends before its time, undecided.
    pub(crate) fn leave(&mut self) {
        self.window = Losses::default();
    }

    /// The snapshot that was gone back to is not the one whose losses were seen.
    pub(crate) fn step_back(&mut self) {
        self.origin = Losses::default();
    }

    /// Whether these counts can be, none of them above `most`.
    pub(crate) fn is_sane(&self, most: u64) -> bool {
        let losses = [Some(&self.origin), Some(&self.window), self.accepted.as_ref()];
        losses.into_iter().flatten().all(|losses| losses.count <= most)
            && self.good <= most
            && self.rollbacks as u64 <= most
            && (0..i32::MAX).contains(&self.cuts)
    }

    /// Whether a window has been accepted, ever.
    pub(crate) fn any_accepted(&self) -> bool {
        self.any_accepted
    }

    pub(crate) fn rollbacks(&self) -> usize {
        self.rollbacks
    }
}

/// `value · factor` for a positive value; a negative one moves up by as much.
fn raised(value: f64, factor: f64) -> f64 {
    value + (factor - 1.0) * value.abs()
}

/// Mean, noise and range of some losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Losses {
    count: u64,
    #[serde(with = "exact")]
    mean: f64,
    /// Σ(lᵢ − lᵢ₋₁)².
    #[serde(with = "exact")]
    squares: f64,
    #[serde(with = "exact")]
    last: f64,
    #[serde(with = "exact")]
    min: f64,
    #[serde(with = "exact")]
    max: f64,
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            count: 0,
            mean: 0.0,
            squares: 0.0,
            last: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Losses {
    fn push(&mut self, loss: f64) {
        if self.count > 0 {
            self.squares += (loss - self.last).powi(2);
        }
        self.last = loss;
        self.count += 1;
        self.mean += (loss - self.mean) / self.count as f64;
        self.min = self.min.min(loss);
        self.max = self.max.max(loss);
    }

    /// Standard deviation, from the differences of successive losses (von Neumann, 1941), so that a fall
    /// is not taken for noise. 0 for fewer than four losses, which say too little.
    fn deviation(&self) -> f64 {
        if self.count < 4 {
            return 0.0;
        }
        (self.squares / (2.0 * (self.count as f64 - 1.0))).sqrt()
    }

    /// Standard error of the mean.
    fn sem(&self) -> f64 {
        self.deviation() / (self.count.max(1) as f64).sqrt()
    }
}
