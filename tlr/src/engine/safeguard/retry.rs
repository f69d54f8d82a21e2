//! How soon a rate is tried again whose window was undone. See
//! [`Safeguard::retry`](super::Safeguard::retry).

use crate::engine::{
    history::Outcome,
    rule::{Proposal, RATES},
};

/// The first bound after a rollback, as a part of the rate that was undone.
const BELOW: f64 = 0.9;

/// The bound of a rate after a rollback from `undone`.
pub(crate) fn bound_after(undone: f64) -> f64 {
    BELOW * undone
}

/// The proposal, or the bound if that is less; but a bound never lowers the `rate` in force.
pub(crate) fn within(bound: f64, rate: f64, proposal: Proposal) -> Proposal {
    let most = bound.max(rate);
    if proposal.rate > most {
        Proposal { rate: most, outcome: Outcome::Capped }
    } else {
        proposal
    }
}

/// The bound after one more good window. None once no rate can be as high.
pub(crate) fn grown(bound: f64, by: f64) -> Option<f64> {
    Some(bound * by).filter(|bound| bound < RATES.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand. Fails with another bound, or if it lowers a rate.
    #[test]
    fn a_rate_that_was_undone_is_not_tried_at_once() {
        let proposed = |rate| Proposal { rate, outcome: Outcome::Scaled };
        let capped = |rate| Proposal { rate, outcome: Outcome::Capped };
        assert_eq!(bound_after(2.0), 1.8);
        assert_eq!(within(1.8, 1.0, proposed(1.9)), capped(1.8));
        assert_eq!(within(1.8, 1.0, proposed(1.8)), proposed(1.8));
        assert_eq!(within(0.9, 1.0, proposed(1.1)), capped(1.0));
        assert_eq!(within(0.9, 1.0, proposed(0.95)), proposed(0.95));
        assert_eq!(grown(2.0, 1.5), Some(3.0));
        assert_eq!((grown(4.9e29, 2.0), grown(5e29, 2.0)), (Some(9.8e29), None));
    }
}
