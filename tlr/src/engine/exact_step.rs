//! Steps whose rate is adapted before they are made: the host looks ahead, the engine decides.

use super::{
    history::{Adaptation, KeptBecause, Outcome},
    phase::Phase,
    products::DirectionProducts,
    rule::{self, bounded, Proposal},
    Engine, RateRule, Step,
};

/// What a look ahead says of a group: the dot products of a displacement s, which is old weights
/// minus new ones (s = −d, with d the way of a slope), with the gradients at both of its ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookaheadProducts {
    /// ⟨s,g⟩, with g the gradient at the old weights.
    pub(crate) here: f64,
    /// ⟨s,ĝ⟩, with ĝ the gradient at the new ones.
    pub(crate) ahead: f64,
    /// ⟨ĝ,ĝ⟩.
    pub(crate) squared: f64,
}

/// A group's decision, from derivatives taken ahead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExactDecision {
    from: f64,
    proposal: Proposal,
    products: DirectionProducts,
}

impl ExactDecision {
    /// What the rate is multiplied by.
    pub(crate) fn factor(&self) -> f64 {
        self.proposal.rate / self.from
    }

    /// Takes in that the line search went t times as far. A group with a fixed rate has moved as
    /// far as the others, and its rate stays.
    pub(crate) fn scale(&mut self, t: f64) {
        if self.proposal.outcome != Outcome::Kept(KeptBecause::FixedRate) {
            self.proposal.rate = bounded(t * self.proposal.rate);
            self.proposal.outcome = Outcome::Searched;
        }
    }
}

impl<R: RateRule> Engine<R> {
    /// Decides on each group's rate, by a look ahead along s = rate · u.
    pub(crate) fn decide_ahead(&self, looks: &[LookaheadProducts]) -> Vec<ExactDecision> {
        let groups = self.state.groups.iter().zip(&self.groups);
        groups
            .zip(looks)
            .map(|((state, settings), look)| {
                let from = state.rate;
                // The products of displacements are divided by the rate, to get those of
                // directions.
                let (uu, un) = (look.here / from, look.ahead / from);
                let products = DirectionProducts { uu, un, nn: look.squared };
                let proposal = if settings.fixed_rate {
                    Proposal::kept(from, KeptBecause::FixedRate)
                } else {
                    // u belongs to the current rate: both forms of the rule are the same here.
                    rule::decide(&self.config.rule, from, from, &products)
                };
                ExactDecision { from, proposal, products }
            })
            .collect()
    }

    /// The step is made. A window in progress ends without a decision.
    pub(crate) fn exact_step_made(&mut self, decisions: Vec<ExactDecision>) -> Step {
        // The step before may have been left in the middle, by an optimizer that panicked.
        self.state.phase = Phase::Idle;
        self.state.steps += 1;
        // An exact step ends the ramp: its derivatives say more than the ramp's slopes.
        match self.state.ramp.take() {
            Some(ramp) if ramp.has_begun() => self.ramp_ended(&ramp, self.state.steps),
            // This ramp has seen no gradient, so it cannot say which groups have none.
            Some(_) => self.state.level_from = self.state.steps,
            None => (),
        }
        self.leave_window();
        let first = self.state.history.len();
        for (index, decision) in decisions.into_iter().enumerate() {
            // The exact step's rate replaces the one from before a cut: nothing is left to revert
            // to.
            if let Some(group) = self.state.groups.get_mut(index) {
                group.before_cut = None;
            }
            self.set_rate(index, decision.proposal, Some(decision.products));
        }
        let decisions: Vec<Adaptation> = self.decisions_since(first);
        Step::WindowEnded { decisions }
    }
}
