//! Rules: how a rate moves, given the dot products of two windows. Arithmetic in f64 and nothing
//! else.

mod hypergradient;
mod newton;

pub use crate::rates::RATES;
pub use hypergradient::HypergradientRule;
pub use newton::{NewtonForm, NewtonRule};

use super::{
    history::{KeptBecause, Outcome},
    products::DirectionProducts,
};
use crate::error::Error;

/// How a rate moves, given the dot products of two windows.
///
/// A rule only proposes: see [`RATES`] for the bounds that hold for any rule. Hand one of your own
/// to [`Config::new`](crate::engine::Config::new).
///
/// # Example
/// ```
/// use tlr::engine::{DirectionProducts, NewtonRule, RateRule};
///
/// // On ½·4·w², at a rate of 0.1, u = 4w shrinks to (1 − 0.4)·4w; the best rate is 1/4.
/// let products = DirectionProducts { uu: 16.0, un: 16.0 * 0.6, nn: 16.0 * 0.36 };
/// let rule = NewtonRule::default().damping(1.0);
/// assert!((rule.propose(0.1, 0.1, &products).rate - 0.25).abs() < 1e-12);
/// ```
pub trait RateRule {
    /// The next rate and what to call the move. `rate` is in force now; `previous` was in force in
    /// the window that u₋ comes from. The products are finite.
    fn propose(&self, rate: f64, previous: f64, products: &DirectionProducts) -> Proposal;

    /// Whether the rule's own numbers are in range. Checked once, when a trainer or an
    /// engine is made.
    ///
    /// # Errors
    /// The first number out of range.
    fn validate(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A rate, and why it was chosen.
///
/// Example: [`RateRule`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// The next rate.
    pub rate: f64,
    /// What to call the move.
    pub outcome: Outcome,
}

impl Proposal {
    pub(crate) fn kept(rate: f64, because: KeptBecause) -> Self {
        Self { rate, outcome: Outcome::Kept(because) }
    }
}

/// The rule's proposal made safe: always finite, always within [`RATES`].
pub(crate) fn decide(
    rule: &impl RateRule,
    rate: f64,
    previous: f64,
    products: &DirectionProducts,
) -> Proposal {
    if !products.is_finite() {
        return Proposal::kept(rate, KeptBecause::NonFinite);
    }
    let proposal = rule.propose(rate, previous, products);
    if proposal.rate.is_nan() {
        return Proposal::kept(rate, KeptBecause::NonFinite);
    }
    // Deviation from the paper, which has no bounds of rates.
    let bounded = bounded(proposal.rate);
    if bounded == proposal.rate {
        proposal
    } else {
        Proposal { rate: bounded, outcome: Outcome::Capped }
    }
}

/// The nearest rate within [`RATES`].
pub(crate) fn bounded(rate: f64) -> f64 {
    rate.clamp(*RATES.start(), *RATES.end())
}

/// Checks the `max_factor` of any rule that has one.
fn validate_max_factor(max_factor: f64) -> Result<(), Error> {
    let in_range = max_factor > 1.0 && max_factor.is_finite();
    let advice = "the paper uses 100";
    Error::unless_advised(in_range, "max_factor", "finite and above 1", max_factor, advice)
}
