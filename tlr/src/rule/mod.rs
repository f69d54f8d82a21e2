//! Arithmetic on the learning rate: no tensor, no device, all in f64.

mod hypergradient;
mod newton;

pub use hypergradient::{HypergradientForm, HypergradientRule};
pub use newton::{NewtonForm, NewtonRule};

use crate::{
    checkpoint::exact,
    history::{KeptBecause, Outcome},
    Error,
};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Every rate a group can have, whatever the rule answers: wide enough never to bind in training,
/// and the reason that a rate cannot vanish or overflow.
pub const RATES: RangeInclusive<f64> = 1e-30..=1e30;

/// The dot products between the averaged update directions of two windows in a row, over one
/// group's trainable tensors: u₋ = u_{k-1} and u = u_k of the paper.
///
/// In [`step_lookahead`](crate::Tlr::step_lookahead), ⟨u,g⟩, ⟨u,ĝ⟩ and ⟨ĝ,ĝ⟩ take their places, with
/// g the gradient here and ĝ the gradient ahead: the same rule is then exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// ⟨u₋,u₋⟩.
    #[serde(with = "exact")]
    pub uu: f64,
    /// ⟨u₋,u⟩: minus the first derivative of the loss with respect to the rate (Eq. 3).
    #[serde(with = "exact")]
    pub un: f64,
    /// ⟨u,u⟩.
    #[serde(with = "exact")]
    pub nn: f64,
}

impl Moments {
    /// ⟨u₋,u₋⟩ − ⟨u₋,u⟩: the rate times the second derivative of the loss with respect to it (Eq. 7).
    pub fn curvature(&self) -> f64 {
        self.uu - self.un
    }

    /// The cosine of the angle between the two directions, 0 where one of them vanishes.
    pub fn cosine(&self) -> f64 {
        let norms = self.uu.sqrt() * self.nn.sqrt();
        if norms > 0.0 {
            (self.un / norms).clamp(-1.0, 1.0)
        } else {
            0.0
        }
    }

    /// ρ = ⟨u₋,u⟩/√(⟨u₋,u₋⟩·max(⟨u₋,u₋⟩, ⟨u,u⟩)): the part of u₋ that is left in u, and never more than the cosine.
    fn persistence(&self) -> f64 {
        (self.un / self.uu * (self.uu / self.nn).sqrt().min(1.0)).min(1.0)
    }

    fn is_finite(&self) -> bool {
        self.uu.is_finite() && self.un.is_finite() && self.nn.is_finite()
    }
}

/// How a rate moves, given the moments of two windows.
///
/// A rule only proposes: see [`RATES`] for the bounds that hold for any rule. To write one of your
/// own, hand it to [`Config::new`](crate::Config::new).
///
/// # Example
/// ```
/// use tlr::rule::{Moments, NewtonRule, RateRule};
///
/// // On ½·4·w², at a rate of 0.1, u = 4w shrinks to (1 − 0.4)·4w; the best rate is 1/4.
/// let moments = Moments { uu: 16.0, un: 16.0 * 0.6, nn: 16.0 * 0.36 };
/// let rule = NewtonRule { damping: 1.0, ..NewtonRule::default() };
/// assert!((rule.propose(0.1, 0.1, &moments).rate - 0.25).abs() < 1e-12);
/// ```
pub trait RateRule {
    /// The next rate and what to call the move. `rate` is in force now, `previous` was in the window
    /// that u₋ comes from. The moments are finite.
    fn propose(&self, rate: f64, previous: f64, moments: &Moments) -> Proposal;

    /// Whether its own figures make sense; checked once, when an optimizer is made.
    ///
    /// # Errors
    /// The first figure out of range.
    fn validate(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A rate and the name of what led to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// The next rate.
    pub rate: f64,
    /// What to call the move.
    pub outcome: Outcome,
}

impl Proposal {
    fn kept(rate: f64, because: KeptBecause) -> Self {
        Self { rate, outcome: Outcome::Kept(because) }
    }
}

/// The rule's proposal made safe: always finite, always within [`RATES`].
pub(crate) fn decide(
    rule: &impl RateRule,
    rate: f64,
    previous: f64,
    moments: &Moments,
) -> Proposal {
    if !moments.is_finite() {
        return Proposal::kept(rate, KeptBecause::NonFinite);
    }
    let proposal = rule.propose(rate, previous, moments);
    if proposal.rate.is_nan() {
        return Proposal::kept(rate, KeptBecause::NonFinite);
    }
    let bounded = bounded(proposal.rate);
    if bounded == proposal.rate {
        proposal
    } else {
        Proposal { rate: bounded, outcome: Outcome::Capped }
    }
}

/// The largest growth of a rate in one climb: what the paper allows its rule.
pub(crate) const LARGEST_CLIMB: f64 = 100.0;

/// The proposal, or the Newton point of the window before, whichever is more. See
/// [`Config::climb`](crate::Config::climb).
pub(crate) fn climb(rate: f64, previous: f64, moments: &Moments, proposal: Proposal) -> Proposal {
    // Where nothing at all is lost, infinite.
    let point = previous / (1.0 - moments.persistence());
    let climbed = bounded(point.min(LARGEST_CLIMB * rate)).max(rate);
    if climbed > proposal.rate {
        Proposal { rate: climbed, outcome: Outcome::Climbed }
    } else {
        proposal
    }
}

/// The nearest rate within [`RATES`].
pub(crate) fn bounded(rate: f64) -> f64 {
    rate.clamp(*RATES.start(), *RATES.end())
}
