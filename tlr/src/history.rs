use crate::{checkpoint::exact, rule::Moments};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// One decision on one group's rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adaptation {
    /// The optimizer step after which it was made, counted from 1; steps that were rolled back count.
    pub step: u64,
    /// The group: a layer's path, or `model`.
    pub layer: Arc<str>,
    /// The rate before.
    #[serde(with = "exact")]
    pub from: f64,
    /// The rate after.
    #[serde(with = "exact")]
    pub to: f64,
    /// What the rule was given; none where there was nothing to give.
    pub moments: Option<Moments>,
    /// What happened.
    pub outcome: Outcome,
}

/// What became of a rate at the end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// There is no previous direction yet: the first window, or the first after a rollback.
    WarmingUp,
    /// The rule's own step.
    Scaled,
    /// The rule's step, cut to the largest it may be.
    Capped,
    /// Raised beyond the rule's step, or held above it, because the windows agree too well: see
    /// [`Config::climb`](crate::Config::climb).
    Climbed,
    /// Raised because a window was lost in rounding: no weight has moved although the gradients are large enough, or they have
    /// moved by no more than rounding explains. See
    /// [`Config::climb`](crate::Config::climb).
    Raised,
    /// Back to what it was before a cut, because the window after it was good: see
    /// [`Safeguard::trust`](crate::Safeguard::trust).
    Regained,
    /// No step.
    Kept(KeptBecause),
    /// Set by the line search, where the rule's own step did not pass.
    Searched,
    /// The window was undone and the rate cut.
    RolledBack(RollbackCause),
}

/// Why a rate stayed where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeptBecause {
    /// The loss is not convex along the direction, or the weights did not move.
    NonPositiveCurvature,
    /// A moment is NaN or infinite.
    NonFinite,
    /// The layer is `#[tlr(frozen)]`.
    Frozen,
}

/// Why a window was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RollbackCause {
    /// The window's mean loss is above its predecessor's by more than noise.
    LossIncreased,
    /// One step's loss is far above all that came before.
    LossExploded,
    /// A loss is NaN or infinite.
    NonFiniteLoss,
    /// A weight is NaN or infinite.
    NonFiniteWeights,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WarmingUp => f.write_str("warming up"),
            Self::Scaled => f.write_str("scaled"),
            Self::Capped => f.write_str("capped"),
            Self::Climbed => f.write_str("climbed: the windows agree"),
            Self::Raised => f.write_str("raised: lost in rounding"),
            Self::Regained => f.write_str("regained: the cut was not needed"),
            Self::Kept(KeptBecause::NonPositiveCurvature) => {
                f.write_str("kept: the curvature is not positive")
            }
            Self::Kept(KeptBecause::NonFinite) => f.write_str("kept: a figure is not finite"),
            Self::Kept(KeptBecause::Frozen) => f.write_str("kept: frozen"),
            Self::Searched => f.write_str("set by the line search"),
            Self::RolledBack(cause) => write!(f, "rolled back: {cause}"),
        }
    }
}

impl fmt::Display for RollbackCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LossIncreased => "the mean loss rose",
            Self::LossExploded => "the loss exploded",
            Self::NonFiniteLoss => "the loss is not finite",
            Self::NonFiniteWeights => "a weight is not finite",
        })
    }
}
