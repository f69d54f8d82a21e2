//! The ramp's first steps: a rate at which the weights move far enough to be noticed.

use super::{Ramp, Ramped, Stage};
use crate::engine::{host_facts::HostFacts, products::Slope, rule::bounded};

/// The first steps move the weights by this fraction of their norm.
const FIRST_WAY: f64 = 1e-4;
/// A trial rate whose step is lost in rounding is raised by this.
pub(super) const RAISE: f64 = 30.0;
/// If the weights have moved by between this part of Σ rate·‖g‖ and [`MOST_FOLLOWED`], steps are as
/// long as the gradients (SGD). Otherwise the base optimizer normalizes them (Adam). It is less
/// than 1 because gradients may disagree.
const LEAST_FOLLOWED: f64 = 0.5;
/// The same part in the trial, if the optimizer has no momentum.
const LEAST_FOLLOWED_AT_ONCE: f64 = 0.9;
/// See [`LEAST_FOLLOWED`]. It is a little above 1 because of rounding.
const MOST_FOLLOWED: f64 = 1.05;

impl Ramp {
    /// Chooses the trial rate.
    pub(super) fn rest(&mut self, all: &Slope, facts: HostFacts) -> Ramped {
        let way = first_way(all, facts.epsilon);
        let rate = bounded(way / all.gradient.max((all.weights as f64).sqrt()));
        self.moving().for_each(|group| group.rate = rate);
        self.expect(all.gradient, facts.momentum);
        self.stage = Stage::Trying;
        Ramped::On
    }

    /// Corrects the trial rate by how far the weights have moved.
    pub(super) fn try_rate(&mut self, all: &Slope, facts: HostFacts) -> Ramped {
        let way = first_way(all, facts.epsilon);
        // Infinite if nothing has moved.
        let by = (way / all.moved).min(RAISE);
        self.moving().for_each(|group| group.rate = bounded(by * group.rate));
        if all.moved >= way / 2.0 {
            let least = if facts.momentum > 0.0 { LEAST_FOLLOWED } else { LEAST_FOLLOWED_AT_ONCE };
            self.follows = self.follows(all.moved, least);
            self.stage = Stage::Probing;
        }
        self.expect(all.gradient, facts.momentum);
        Ramped::On
    }

    /// Whether the weights have gone on to move about as far as gradient descent would have moved
    /// them.
    pub(super) fn still_follows(&self, moved: f64) -> bool {
        self.follows(moved, LEAST_FOLLOWED)
    }

    /// Whether the weights have moved about as far as gradient descent would have moved them.
    fn follows(&self, moved: f64, least: f64) -> bool {
        (least..=MOST_FOLLOWED).contains(&(moved / self.expected))
    }

    /// Adds to `expected` the length of the next step.
    pub(super) fn expect(&mut self, gradient: f64, momentum: f64) {
        let rate = self.moving().next().map_or(0.0, |group| group.rate);
        self.velocity = momentum * self.velocity + gradient;
        self.expected += rate * self.velocity;
    }
}

/// How far the first steps go: see [`FIRST_WAY`]. In half precision a few roundings are more.
fn first_way(all: &Slope, epsilon: f64) -> f64 {
    FIRST_WAY.max(2.0 * epsilon) * all.size()
}
