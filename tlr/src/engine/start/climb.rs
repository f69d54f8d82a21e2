//! Growth without damping while windows agree. See [`Config::climb`](crate::engine::Config::climb).

use super::LARGEST_CLIMB;
use crate::engine::{
    history::{KeptBecause, Outcome},
    products::{DirectionProducts, Slope},
    rule::{bounded, Proposal},
};

/// A window whose way is a longer part of the weights' norm leaves a rate no room to rise.
const FAR: f64 = 0.0625;

/// Why a rate may not rise, though two windows agree. `follows`, if steps are as long as the gradients.
///
/// Momentum and decay agree with themselves, so the loss has to fall along the way. And steps that
/// stay long can agree for ever, as where the loss falls without end.
pub(crate) fn obstacle(slope: &Slope, follows: bool) -> Option<KeptBecause> {
    if !slope.is_downhill() {
        Some(KeptBecause::NotDownhill)
    } else if !follows && slope.moved > FAR * slope.size() {
        Some(KeptBecause::MovedFar)
    } else {
        None
    }
}

/// The rule's proposal, or the Newton point of the window before, whichever is more.
pub(crate) fn climb(
    rate: f64,
    previous: f64,
    products: &DirectionProducts,
    proposal: Proposal,
) -> Proposal {
    // Infinite, where the two directions are the same.
    let point = previous / (1.0 - products.persistence());
    let climbed = bounded(point.min(LARGEST_CLIMB * rate)).max(rate);
    if climbed > proposal.rate {
        Proposal { rate: climbed, outcome: Outcome::Climbed }
    } else {
        proposal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // At the limit, a sixteenth of the norm, and past it. Fails where steps as long as the gradients
    // are bounded.
    #[test]
    fn no_rate_rises_after_a_window_that_went_far() {
        let slope = |moved| Slope { along: -1.0, moved, gradient: 1.0, norm: 16.0, weights: 3 };
        assert_eq!(obstacle(&slope(1.0), false), None);
        assert_eq!(obstacle(&slope(1.1), false), Some(KeptBecause::MovedFar));
        assert_eq!(obstacle(&slope(1.1), true), None);
        let uphill = Slope { along: 1.0, ..slope(1.1) };
        assert_eq!(obstacle(&uphill, false), Some(KeptBecause::NotDownhill));
        // Weights that start at 0 count as hundredths.
        let zeros = |moved| Slope { norm: 0.0, weights: 256, ..slope(moved) };
        assert_eq!(obstacle(&zeros(0.01), false), None);
        assert_eq!(obstacle(&zeros(0.011), false), Some(KeptBecause::MovedFar));
    }
}
