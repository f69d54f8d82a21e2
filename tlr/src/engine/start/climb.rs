//! Growth without damping while windows agree. See [`Config::climb`](crate::engine::Config::climb).

use super::LARGEST_CLIMB;
use crate::engine::{
    history::Outcome,
    products::DirectionProducts,
    rule::{bounded, Proposal},
};

/// The rule's proposal, or the Newton point of the window before, whichever is more. Deviation from
/// the paper, which has no climb.
pub(crate) fn climb(
    rate: f64,
    previous: f64,
    products: &DirectionProducts,
    proposal: Proposal,
) -> Proposal {
    // The point is infinite if the two directions are the same.
    let point = previous / (1.0 - products.persistence());
    let climbed = bounded(point.min(LARGEST_CLIMB * rate)).max(rate);
    if climbed > proposal.rate {
        Proposal { rate: climbed, outcome: Outcome::Climbed }
    } else {
        proposal
    }
}
