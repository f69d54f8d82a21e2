//! Decisions on rates, each with its reason.

use super::{exact, products::DirectionProducts};
use crate::error::Cause;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// One decision on one group's rate.
///
/// Example: [`Step::decisions`](crate::Step::decisions).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Adaptation {
    /// The optimizer step after which it was made, counted from 1. Steps that were rolled back
    /// count.
    pub step: u64,
    /// The group: a layer's path, or `model`.
    pub layer: Arc<str>,
    /// The rate before.
    #[serde(with = "exact")]
    pub from: f64,
    /// The rate after.
    #[serde(with = "exact")]
    pub to: f64,
    /// What the rule was given; none if there was nothing to give.
    pub products: Option<DirectionProducts>,
    /// What happened.
    pub outcome: Outcome,
}

impl Adaptation {
    /// A decision that no rule has made: for tests and tools that write histories.
    ///
    /// # Example
    /// ```
    /// use tlr::{Adaptation, Outcome};
    ///
    /// let decision = Adaptation::new(30, "head", 0.1, 0.2, None, Outcome::Scaled);
    /// assert_eq!((&*decision.layer, decision.to), ("head", 0.2));
    /// ```
    pub fn new(
        step: u64,
        layer: impl Into<Arc<str>>,
        from: f64,
        to: f64,
        products: Option<DirectionProducts>,
        outcome: Outcome,
    ) -> Self {
        Self { step, layer: layer.into(), from, to, products, outcome }
    }
}

/// Why a rate is what it is after a decision.
///
/// Example: [`Step::decisions`](crate::Step::decisions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// There is no previous direction yet: the first window, or the first after a rollback.
    WarmingUp,
    /// The rule's own step.
    Scaled,
    /// The rule's step, cut to the largest it may be.
    Capped,
    /// Larger than by the rule's step, because successive windows point the same way: see
    /// [`Config::climb`](crate::engine::Config::climb).
    Climbed,
    /// Raised because the window was lost in rounding. No weight has moved although the gradients
    /// are large enough, or the weights have moved by no more than rounding explains. See
    /// [`Config::climb`](crate::engine::Config::climb).
    Raised,
    /// Set while the starting rate is looked for: see
    /// [`Config::ramp`](crate::engine::Config::ramp).
    Ramped,
    /// Lowered because the window has ended uphill: see
    /// [`Config::settle`](crate::engine::Config::settle).
    Settled,
    /// Back to what it was before a cut, because the window after the cut was good: see
    /// [`Safeguard::trust`](crate::engine::Safeguard::trust).
    CutReverted,
    /// The rate stays, for this reason.
    Kept(KeptBecause),
    /// Set by the line search, because the rule's own step did not pass.
    Searched,
    /// The window was undone. The rate was cut, unless it is not to blame or is fixed.
    RolledBack(Cause),
}

/// Why a rate stayed where it was.
///
/// # Example
/// ```
/// use tlr::{KeptBecause, Outcome};
///
/// let outcome = Outcome::Kept(KeptBecause::NoGradient);
/// assert_eq!(outcome.to_string(), "kept: no gradient");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeptBecause {
    /// The loss is not convex along the direction, or the weights did not move while
    /// [`Config::climb`](crate::engine::Config::climb) is off.
    NonPositiveCurvature,
    /// A dot product is NaN or infinite.
    NonFinite,
    /// The group has had no gradient yet, or its weights did not move while
    /// [`Config::climb`](crate::engine::Config::climb) is on.
    NoGradient,
    /// Two windows agree, but the loss does not fall along their way: it is momentum or decay that
    /// agrees.
    NotDownhill,
    /// The layer is `#[tlr(fixed_rate)]`.
    FixedRate,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WarmingUp => f.write_str("warming up"),
            Self::Scaled => f.write_str("scaled"),
            Self::Capped => f.write_str("capped"),
            Self::Climbed => f.write_str("climbed: the windows agree"),
            Self::Raised => f.write_str("raised: lost in rounding"),
            Self::Ramped => f.write_str("ramped: looking for the starting rate"),
            Self::Settled => f.write_str("settled: the window has ended uphill"),
            Self::CutReverted => f.write_str("cut reverted: it was not needed"),
            Self::Kept(KeptBecause::NonPositiveCurvature) => {
                f.write_str("kept: the curvature is not positive")
            }
            Self::Kept(KeptBecause::NonFinite) => f.write_str("kept: a figure is not finite"),
            Self::Kept(KeptBecause::NoGradient) => f.write_str("kept: no gradient"),
            Self::Kept(KeptBecause::NotDownhill) => {
                f.write_str("kept: the loss does not fall along the way")
            }
            Self::Kept(KeptBecause::FixedRate) => f.write_str("kept: the rate is fixed"),
            Self::Searched => f.write_str("set by the line search"),
            Self::RolledBack(cause) => write!(f, "rolled back: {cause}"),
        }
    }
}
