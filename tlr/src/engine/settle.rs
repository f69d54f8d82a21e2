//! Lowers a rate if a window ends uphill. See [`Config::settle`](super::Config::settle).

use super::{
    history::Outcome,
    products::Slope,
    rule::{bounded, Proposal},
};

/// The least that a rate is multiplied by.
const LEAST: f64 = 0.5;

/// Steps that follow the gradients count as uphill above this cosine between way and gradient.
/// Noise and steps from side to side of a valley stay below it.
const STEEP: f64 = 0.3;

/// The next rate: the rule's proposal, or the rate times 1 − cos(g,d) if that is less and the loss
/// rises along the window's way d. It rises where the cosine between d and the gradient g is above
/// 0. Deviation from the paper, which has no settling.
///
/// If steps are as long as the gradients (`follows`), their directions already show the rule that
/// the weights go back and forth. Then only a steep way counts.
pub(super) fn settle(rate: f64, slope: &Slope, follows: bool, proposal: Proposal) -> Proposal {
    let least = if follows { STEEP } else { 0.0 };
    let cosine = slope.along / (slope.gradient * slope.moved);
    let settled = bounded((1.0 - cosine).max(LEAST) * rate);
    // False for a cosine that is not a number, because nothing has moved.
    if cosine > least && settled < proposal.rate {
        Proposal { rate: settled, outcome: Outcome::Settled }
    } else {
        proposal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand. Fails with another factor, another bound, or if a way downhill counts.
    #[test]
    fn a_way_uphill_lowers_the_rate() {
        let slope = |along| Slope { along, moved: 2.0, gradient: 5.0, norm: 1.0, weights: 3 };
        let scaled = |rate| Proposal { rate, outcome: Outcome::Scaled };
        let settled = |rate| Proposal { rate, outcome: Outcome::Settled };
        assert_eq!(settle(8.0, &slope(2.5), false, scaled(9.0)), settled(6.0));
        assert_eq!(settle(8.0, &slope(9.9), true, scaled(9.0)), settled(4.0));
        assert_eq!(settle(8.0, &slope(2.5), false, scaled(5.0)), scaled(5.0));
        assert_eq!(settle(8.0, &slope(-2.5), false, scaled(9.0)), scaled(9.0));
        assert_eq!(settle(8.0, &slope(2.5), true, scaled(9.0)), scaled(9.0));
        // At the limits nothing settles: a cosine of 0.3, and a proposal that is as low.
        assert_eq!(settle(8.0, &slope(3.0), true, scaled(9.0)), scaled(9.0));
        assert_eq!(settle(8.0, &slope(2.5), false, scaled(6.0)), scaled(6.0));
        assert_eq!(settle(8.0, &slope(0.0), false, scaled(9.0)), scaled(9.0));
        assert_eq!(settle(8.0, &Slope::default(), false, scaled(9.0)), scaled(9.0));
        // No rate settles below the lower end of `RATES`.
        assert_eq!(settle(1.5e-30, &slope(9.9), false, scaled(2e-30)), settled(1e-30));
        assert_eq!(settle(1e-30, &slope(9.9), false, scaled(1e-30)), scaled(1e-30));
    }
}
