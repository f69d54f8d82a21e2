//! When a window is undone. Decides only; [`Tlr`](crate::Tlr) does the undoing.

use crate::{history::RollbackCause, Error};

/// The tests that undo a window, and how far they cut the rate.
///
/// With the loss fed to [`step`](crate::Tlr::step), the weights go back to the last snapshot
///
/// - at once, when a loss is not finite, or when it **explodes**: it is above `first_explosion` times
///   the very first loss while no window has been accepted, and later above `explosion` times the
///   largest loss of the last accepted window;
/// - at the end of a window whose mean loss m is above m₋·(1 + `tolerance`) + `sems`·(sem + sem₋),
///   where m₋ is that of the last accepted window (before there is one, the first loss; after a
///   rollback, the first loss since if that is more) and sem the standard error of the mean.
///
/// Where the very first loss after a window explodes, the window's last steps ruined its end: the way
/// back is then to the snapshot before.
///
/// Going back means: weights and buffers from the snapshot, the base optimizer's accumulated state
/// cleared, the previous direction dropped, every learned rate times `first_cut` while no window has
/// been accepted, `cut` later. Without a loss only a weight that is not finite is a reason.
///
/// Not in the paper, whose rule can end anywhere once a rate is too large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Safeguard {
    /// τ ≥ 0: by how much of itself a window's mean loss may rise. Default 0.1.
    pub tolerance: f64,
    /// ≥ 0: how many standard errors on top. Default 3.
    pub sems: f64,
    /// > 1: times the first loss, while no window has been accepted. Default 1.5.
    pub first_explosion: f64,
    /// > 1: times the largest loss of the last accepted window. Default 2.
    pub explosion: f64,
    /// In (0, 1): the cut while no window has been accepted. Default 0.1.
    pub first_cut: f64,
    /// In (0, 1): the cut later. Default 0.5.
    pub cut: f64,
    /// ≥ 1: this many rollbacks with no accepted window in between are an error. Default 20.
    pub max_rollbacks: usize,
}

impl Default for Safeguard {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            sems: 3.0,
            first_explosion: 1.5,
            explosion: 2.0,
            first_cut: 0.1,
            cut: 0.5,
            max_rollbacks: 20,
        }
    }
}

impl Safeguard {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let non_negative = |v: f64| v >= 0.0 && v.is_finite();
        let above_one = |v: f64| v > 1.0 && v.is_finite();
        let fraction = |v: f64| v > 0.0 && v < 1.0;
        for (field, range, value, ok) in [
            ("tolerance", "finite and at least 0", self.tolerance, non_negative(self.tolerance)),
            ("sems", "finite and at least 0", self.sems, non_negative(self.sems)),
            (
                "first_explosion",
                "finite and above 1",
                self.first_explosion,
                above_one(self.first_explosion),
            ),
            ("explosion", "finite and above 1", self.explosion, above_one(self.explosion)),
            ("first_cut", "in (0, 1)", self.first_cut, fraction(self.first_cut)),
            ("cut", "in (0, 1)", self.cut, fraction(self.cut)),
            ("max_rollbacks", "at least 1", self.max_rollbacks as f64, self.max_rollbacks >= 1),
        ] {
            if !ok {
                return Err(Error::Safeguard { field, range, value });
            }
        }
        Ok(())
    }
}

/// The losses seen so far, as far as the tests need them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Watch {
    first: Option<f64>,
    window: Losses,
    /// The last accepted window in which a loss was fed.
    accepted: Option<Losses>,
    any_accepted: bool,
    /// Since the last accepted window.
    rollbacks: usize,
    /// The first loss after the last of them: that of the snapshot itself.
    restart: Option<f64>,
}

impl Watch {
    /// The tests on a single loss, before its gradients are used.
    pub(crate) fn inspect(&mut self, loss: f64, safeguard: &Safeguard) -> Option<RollbackCause> {
        if !loss.is_finite() {
            return Some(RollbackCause::NonFiniteLoss);
        }
        let first = *self.first.get_or_insert(loss);
        let limit = match &self.accepted {
            Some(window) => raised(window.max, safeguard.explosion),
            None => raised(first, safeguard.first_explosion),
        };
        (loss > limit).then_some(RollbackCause::LossExploded)
    }

    /// Takes note of a loss whose step was made.
    pub(crate) fn record(&mut self, loss: f64) {
        if self.window.count == 0 && self.rollbacks > 0 {
            self.restart = Some(loss);
        }
        self.window.push(loss);
    }

    /// The test on the mean of a whole window.
    pub(crate) fn judge(&self, safeguard: &Safeguard) -> Option<RollbackCause> {
        let (mean, sem) = match &self.accepted {
            Some(window) => (window.mean, window.sem()),
            None => (self.first?, 0.0),
        };
        if self.window.count == 0 {
            return None;
        }
        // No rate, however small, gets below the loss it starts from at once.
        let mean = self.restart.map_or(mean, |restart| mean.max(restart));
        let limit =
            raised(mean, 1.0 + safeguard.tolerance) + safeguard.sems * (self.window.sem() + sem);
        (self.window.mean > limit).then_some(RollbackCause::LossIncreased)
    }

    /// The window is good.
    pub(crate) fn accept(&mut self) {
        let window = std::mem::take(&mut self.window);
        if window.count > 0 {
            self.accepted = Some(window);
        }
        self.any_accepted = true;
        self.rollbacks = 0;
        self.restart = None;
    }

    /// The window is undone: what to multiply the rates by.
    pub(crate) fn roll_back(&mut self, safeguard: &Safeguard) -> f64 {
        self.window = Losses::default();
        self.restart = None;
        self.rollbacks += 1;
        if self.any_accepted {
            safeguard.cut
        } else {
            safeguard.first_cut
        }
    }

    pub(crate) fn rollbacks(&self) -> usize {
        self.rollbacks
    }
}

/// `value · factor` for a positive value; a negative one moves up by as much.
fn raised(value: f64, factor: f64) -> f64 {
    value + (factor - 1.0) * value.abs()
}

/// Mean, variance (Welford) and maximum of the losses of a window.
#[derive(Clone, Debug, PartialEq)]
struct Losses {
    count: u64,
    mean: f64,
    squares: f64,
    max: f64,
}

impl Default for Losses {
    fn default() -> Self {
        Self { count: 0, mean: 0.0, squares: 0.0, max: f64::NEG_INFINITY }
    }
}

impl Losses {
    fn push(&mut self, loss: f64) {
        self.count += 1;
        let off = loss - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (loss - self.mean);
        self.max = self.max.max(loss);
    }

    /// Standard error of the mean: 0 for a single loss, which says nothing of the noise.
    fn sem(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let n = self.count as f64;
        (self.squares / (n - 1.0) / n).sqrt()
    }
}
