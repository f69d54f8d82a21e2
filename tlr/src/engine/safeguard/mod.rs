//! When a window is undone, and how far the rates are cut then.

mod blame;
mod losses;
pub(super) mod retry;
mod watch;

pub(crate) use blame::{blame, explained, Blame};
pub(crate) use watch::{gradient_has_exploded, LossVerdict, Watch};

use crate::error::Error;
use serde::Serialize;

/// The tests that undo a window, and how far they cut the rate.
///
/// When a step has a loss, the loss is judged before its gradients are used. The weights go
/// back to the last snapshot, at once, in three cases:
///
/// - For the second time in a row, the loss is not finite or **explodes**: it is above `explosion`
///   times the largest of the losses at the starting weights, those of the last accepted window,
///   and the snapshot's level. (The first time only the batch is skipped: it may be what is
///   broken.)
/// - For the second time in a row, a single loss is so high that it dooms the window by itself (see
///   below), and is above `explosion` times all losses of this window and the last.
/// - The window is **doomed**: even if all its further losses were 0 (or the lowest loss seen so
///   far, if losses are below 0), its mean would end above m₋·(1 + `tolerance`) +
///   `standard_errors`·√2·s₋. Here m₋ is the mean of the last accepted window, and s₋ is the
///   standard error of that mean. The difference of two such means has a standard error of √2·s₋.
///
/// Some details of the third test:
///
/// - Before a window has been accepted, m₋ is the loss at the starting weights, and s₋ is the
///   standard error of the window itself.
/// - Standard errors come from the differences between successive losses. They are 0 in a window of
///   fewer than four.
/// - After a rollback m₋ is at least the mean of the losses seen at the snapshot itself: even a
///   very small rate needs some steps to bring the loss below the one that it starts from.
/// - No limit exceeds the ceiling, l₀ + `standard_errors`·σ₁: l₀ is the loss at the starting
///   weights, and σ₁ the standard deviation of the first window's losses. Otherwise training could
///   end above where it began, a little every window. The ceiling is raised to a loss for which no
///   rate is to blame (below), and to the limit for the snapshot's level.
/// - The **level** of a snapshot is the least of the last three losses seen there, once three
///   windows have begun there. No limit is below the one that a window with this mean would set.
///
/// A spike that later losses can still average out is tolerated. A window whose mean is certain to
/// be too high ends at once. Each loss is measured before its step, so no loss of a window says how
/// good the weights at its end are. The snapshot taken there is trusted only once a loss seen at it
/// was below the limit for means. Until then a rollback goes to the snapshot before it.
///
/// Before a window is undone because losses rose, **blame** is looked for. Let d = w − snapshot be
/// the way since the snapshot, and g the batch's gradient at w. Where the loss is convex, moving
/// along d raises it by at most ⟨g,d⟩. This is the part of the rise that the way explains. If the
/// part is less than [`blame`](Self::blame), the rise comes from elsewhere (noise, another batch,
/// another task), unless weights have moved by more than a tenth of their norm. Then the step is
/// made, and the limits move up to the new loss. Otherwise only those rates are cut whose own ⟨g,d⟩
/// is at least that part of the largest.
///
/// A rollback restores weights and buffers from the snapshot, clears what the base optimizer has
/// accumulated, drops the previous direction, and multiplies the rates that are to blame: by
/// `first_cut` while no window has been accepted, by `cut` later. The k-th rollback in a row
/// multiplies by the k-th power of that. The rate stays where it is if no step was made since the
/// last rollback, for then the batch is to blame. It also stays, once in a row of rollbacks, if
/// weights are NaN or infinite although the losses are finite: that is a broken gradient.
///
/// After `trust` windows accepted in a row a mean that rises may be bad luck. Late in training it
/// is noise that holds a rate where it is, and a rate that was cut would stay cut for good. So if
/// the next window is accepted, each rate goes back to what it was, unless it had just risen by
/// more than a quarter. A second rollback is final if it comes before `trust` windows have been
/// accepted again.
///
/// A rate that was undone is not tried again at once: it stays below 0.9 times that rate, a bound
/// that grows by [`retry`](Self::retry) with each good window.
///
/// Without a loss, a window is undone if a weight is not finite, or if the gradients show that the
/// weights have gone too far: [`Cause::WentTooFar`](crate::Cause::WentTooFar).
///
/// Deviation from the paper, which has no safeguard: its rule can end anywhere once a rate is too
/// large.
///
/// # Example
/// ```
/// use tlr::{NewtonConfig, Safeguard};
///
/// let patient = NewtonConfig::default().safeguard(Safeguard::default().max_rollbacks(100));
/// let without = NewtonConfig::default().safeguard(None);
/// // Every setting at its default:
/// let same = Safeguard::default()
///     .tolerance(0.1).standard_errors(3.0).explosion(1.5).first_cut(0.1).cut(0.5)
///     .blame(0.25).trust(5).retry(1.02).max_rollbacks(20);
/// assert_eq!(same, Safeguard::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Safeguard {
    tolerance: f64,
    standard_errors: f64,
    pub(crate) explosion: f64,
    first_cut: f64,
    cut: f64,
    pub(crate) blame: Option<f64>,
    trust: usize,
    pub(super) retry: Option<f64>,
    pub(crate) max_rollbacks: usize,
}

impl Default for Safeguard {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            standard_errors: 3.0,
            explosion: 1.5,
            first_cut: 0.1,
            cut: 0.5,
            blame: Some(0.25),
            trust: 5,
            retry: Some(1.02),
            max_rollbacks: 20,
        }
    }
}

impl Safeguard {
    /// τ: the fraction of itself by which a window's mean loss may rise. At least 0; default 0.1.
    ///
    /// Example: [`Safeguard`].
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// The number of standard errors by which the mean may rise on top of that. At least 0; default
    /// 3.
    ///
    /// Example: [`Safeguard`].
    pub fn standard_errors(mut self, standard_errors: f64) -> Self {
        self.standard_errors = standard_errors;
        self
    }

    /// A loss explodes above this times the largest loss at the starting weights or in the last
    /// accepted window, or the snapshot's level. Above 1; default 1.5.
    ///
    /// Example: [`Safeguard`].
    pub fn explosion(mut self, explosion: f64) -> Self {
        self.explosion = explosion;
        self
    }

    /// The factor of a rollback on rates while no window has been accepted. In (0, 1); default
    /// 0.1.
    ///
    /// Example: [`Safeguard`].
    pub fn first_cut(mut self, first_cut: f64) -> Self {
        self.first_cut = first_cut;
        self
    }

    /// The factor of a rollback on rates after a window has been accepted. In (0, 1); default 0.5.
    ///
    /// Example: [`Safeguard`].
    pub fn cut(mut self, cut: f64) -> Self {
        self.cut = cut;
        self
    }

    /// The part of a rise that the way since the last snapshot has to explain, for a rate to be
    /// blamed. In (0, 1]; default 0.25. `None` blames every rate for every rise.
    ///
    /// Example: [`Safeguard`].
    pub fn blame(mut self, share: impl Into<Option<f64>>) -> Self {
        self.blame = share.into();
        self
    }

    /// The number of windows accepted in a row after which a rate is trusted. At least 1.
    /// Default 5.
    ///
    /// Example: [`Safeguard`].
    pub fn trust(mut self, windows: usize) -> Self {
        self.trust = windows;
        self
    }

    /// The factor by which each good window raises the bound of a rate that was undone. Above 1;
    /// default 1.02. `None` sets no bound: the rule may try such a rate again at once.
    ///
    /// Example: [`Safeguard`].
    pub fn retry(mut self, growth: impl Into<Option<f64>>) -> Self {
        self.retry = growth.into();
        self
    }

    /// This many rollbacks with no accepted window in between are an error. At least 1; default 20.
    ///
    /// Example: [`Safeguard`].
    pub fn max_rollbacks(mut self, rollbacks: usize) -> Self {
        self.max_rollbacks = rollbacks;
        self
    }

    /// The largest mean loss that a window may have after one with this mean and standard error.
    fn limit_after(&self, mean: f64, standard_error: f64) -> f64 {
        raised(mean, 1.0 + self.tolerance)
            + self.standard_errors * std::f64::consts::SQRT_2 * standard_error
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let non_negative = |v: f64| v >= 0.0 && v.is_finite();
        let above_one = |v: f64| v > 1.0 && v.is_finite();
        let fraction = |v: f64| v > 0.0 && v < 1.0;
        for (what, range, value, holds) in [
            (
                "safeguard.tolerance",
                "finite and at least 0",
                self.tolerance,
                non_negative(self.tolerance),
            ),
            (
                "safeguard.standard_errors",
                "finite and at least 0",
                self.standard_errors,
                non_negative(self.standard_errors),
            ),
            (
                "safeguard.explosion",
                "finite and above 1",
                self.explosion,
                above_one(self.explosion),
            ),
            ("safeguard.first_cut", "in (0, 1)", self.first_cut, fraction(self.first_cut)),
            ("safeguard.cut", "in (0, 1)", self.cut, fraction(self.cut)),
            ("safeguard.trust", "at least 1", self.trust as f64, self.trust >= 1),
            (
                "safeguard.max_rollbacks",
                "at least 1",
                self.max_rollbacks as f64,
                self.max_rollbacks >= 1,
            ),
        ] {
            Error::unless(holds, what, range, value)?;
        }
        let growth = self.retry.unwrap_or(2.0);
        Error::unless(above_one(growth), "safeguard.retry", "finite and above 1", growth)?;
        let share = self.blame.unwrap_or(1.0);
        Error::unless(share > 0.0 && share <= 1.0, "safeguard.blame", "in (0, 1]", share)
    }
}

/// `value · factor` for a positive value; a negative one moves up by as much.
fn raised(value: f64, factor: f64) -> f64 {
    value + (factor - 1.0) * value.abs()
}
