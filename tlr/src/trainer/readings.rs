//! Getters of [`Trainer`]: rates, history, counts.

use super::Trainer;
use crate::{
    engine::{bounded, Adaptation, RateRule},
    optim::TunableOptimizer,
};

impl<Opt, R> Trainer<Opt, R>
where
    Opt: TunableOptimizer,
    R: RateRule,
{
    /// Each group's name and current rate: one, called `model`, or one a layer.
    pub fn rates(&self) -> Vec<(&str, f64)> {
        self.engine.rates().collect()
    }

    /// The factor of the next step: that of the [`schedule`](Self::schedule) times that of the
    /// horizon. 1 without them, and while the starting rate is looked for.
    pub fn factor(&self) -> f64 {
        self.engine.factor()
    }

    /// Each group's name and rate, as the next step will use it: times the
    /// [`factor`](Self::factor), and never below 1e-30, also if the factor is 0. (While the
    /// starting rate is looked for, as the last step has used it: the next one may choose another.)
    pub fn effective_rates(&self) -> Vec<(&str, f64)> {
        let factor = self.factor();
        self.engine.rates().map(|(name, rate)| (name, bounded(rate * factor))).collect()
    }

    /// Every decision on a rate, in order: at the end of a window one for each group.
    pub fn history(&self) -> &[Adaptation] {
        self.engine.history()
    }

    /// Hands the history over and starts a new one, so that a long run need not keep it all.
    pub fn take_history(&mut self) -> Vec<Adaptation> {
        self.engine.take_history()
    }

    /// Optimizer steps so far. Those that were rolled back count, batches that were only gathered
    /// do not.
    pub fn steps(&self) -> u64 {
        self.engine.steps()
    }

    /// K: the optimizer steps in a window.
    pub fn window(&self) -> usize {
        self.engine.window()
    }

    /// The base optimizer.
    pub fn optimizer(&self) -> &Opt {
        &self.optimizer
    }
}
