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
    ///
    /// Example: [`Trainer::new`].
    pub fn rates(&self) -> Vec<(&str, f64)> {
        self.engine.rates().collect()
    }

    /// The factor of the next step: that of the [`schedule`](Self::schedule) times that of the
    /// horizon. 1 without them, and while the starting rate is looked for.
    ///
    /// Example: [`effective_rates`](Self::effective_rates).
    pub fn factor(&self) -> f64 {
        self.engine.factor()
    }

    /// Each group's name and effective rate, which the next step will use: the learned rate times
    /// the [`factor`](Self::factor). It is never below 1e-30, even if the factor is 0. (While the
    /// starting rate is looked for, it is the rate of the last step. The next step may choose
    /// another one.)
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, Newton, NewtonConfig, Schedule};
    ///
    /// let w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([3.0]);
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 0.5, ..Default::default() });
    /// let opt = Newton::new(&w, sgd, NewtonConfig::default().ramp(false))?;
    /// let opt = opt.schedule(Schedule::warm_up(10)?);
    /// assert_eq!((opt.rates(), opt.factor()), (vec![("model", 0.5)], 0.1));
    /// assert_eq!(opt.effective_rates(), [("model", 0.05)]);
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn effective_rates(&self) -> Vec<(&str, f64)> {
        let factor = self.factor();
        self.engine.rates().map(|(name, rate)| (name, bounded(rate * factor))).collect()
    }

    /// Every decision on a rate, in order: at the end of a window one for each group.
    ///
    /// Example: [`take_history`](Self::take_history).
    pub fn history(&self) -> &[Adaptation] {
        self.engine.history()
    }

    /// Hands the history over and starts a new one, so that a long run need not keep it all.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, Newton, NewtonConfig, Window};
    ///
    /// let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([3.0]);
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 1e-3, ..Default::default() });
    /// let config = NewtonConfig::default().window(Window::steps(2)?).ramp(false);
    /// let mut opt = Newton::new(&w, sgd, config)?;
    /// for _ in 0..4 {
    ///     let loss = w.leaky_trace().square().sum();
    ///     let value = loss.array();
    ///     opt.step(&mut w, &loss.backward(), value)?;
    /// }
    /// let steps: Vec<_> = opt.history().iter().map(|decision| decision.step).collect();
    /// assert_eq!((opt.steps(), steps), (4, vec![2, 4]));
    /// assert_eq!(opt.take_history().len(), 2);
    /// assert!(opt.history().is_empty());
    /// assert!(opt.into_inner().cfg.lr > 1e-3); // as it was learned
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn take_history(&mut self) -> Vec<Adaptation> {
        self.engine.take_history()
    }

    /// Optimizer steps so far. Those that were rolled back count, batches that were only gathered
    /// do not.
    ///
    /// Example: [`take_history`](Self::take_history).
    pub fn steps(&self) -> u64 {
        self.engine.steps()
    }

    /// K: the optimizer steps in a window.
    ///
    /// Example: [`Trainer::new`].
    pub fn window(&self) -> usize {
        self.engine.window()
    }

    /// The base optimizer.
    ///
    /// Example: [`forward!`](crate::optim::forward!).
    pub fn optimizer(&self) -> &Opt {
        &self.optimizer
    }

    /// The base optimizer, with the learned rates and all that it has accumulated.
    ///
    /// Example: [`take_history`](Self::take_history).
    pub fn into_inner(mut self) -> Opt {
        self.optimizer.end_averaging();
        self.optimizer
    }
}
