//! Rates that are raised because a window was lost in rounding. Deviation from the paper, which has
//! no raise: see [`Config::climb`](super::Config::climb).

use super::{
    history::Outcome,
    products::{Slope, WindowProducts},
    rule::{bounded, Proposal},
    start::{rounding::Rounding, LARGEST_CLIMB},
    Engine, RateRule,
};

impl<R: RateRule> Engine<R> {
    /// The rate to raise a group's to if its window was lost in rounding. None otherwise.
    ///
    /// At most a rate that has moved the weights in a good window, if there was one: from there on
    /// weights stand still because they have arrived, and no higher rate is needed to move them.
    pub(super) fn raised(
        &self,
        index: usize,
        products: &WindowProducts,
        moves: bool,
        norm: Option<f64>,
        slope: Option<&Slope>,
    ) -> Option<f64> {
        let group = self.state.groups.get(index)?;
        let highest = if group.highest > 0.0 { group.highest } else { 1.0 };
        let most = highest.min(1.0).min(group.bound.unwrap_or(1.0));
        if self.groups.get(index)?.fixed_rate || group.rate >= most {
            return None;
        }
        let by = if stood_still(products, slope) {
            moves.then_some(LARGEST_CLIMB)
        } else if group.climbs {
            // Weights that have come back were further away before.
            let moved = slope.map_or(0.0, |slope| slope.moved).max(products.own.sqrt());
            Rounding::new(norm?, self.window, self.facts.epsilon).raise(moved)
        } else {
            None
        };
        by.map(|by| bounded((by * group.rate).min(most)))
    }

    pub(super) fn raise(&mut self, index: usize, rate: f64) {
        let Some(group) = self.state.groups.get_mut(index) else { return };
        (group.previous, group.before_cut) = (None, None);
        self.set_rate(index, Proposal { rate, outcome: Outcome::Raised }, None);
    }
}

/// Whether nothing has moved the weights in a window. The slope, where there is one, was measured
/// before the window's last step: weights that go from side to side of a valley may end where they
/// began, but they were somewhere else before.
pub(super) fn stood_still(products: &WindowProducts, slope: Option<&Slope>) -> bool {
    products.own == 0.0 && slope.is_none_or(|slope| slope.moved == 0.0)
}
