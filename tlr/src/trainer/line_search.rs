//! Exact steps that pass a line search before they are made (the third item of the future work in
//! the paper: Retsinas, Sfikas, Filntisis and Maragos, *Newton-based Trainable Learning Rate*,
//! ICASSP 2023), for losses without noise.

use super::{fault::StepFault, Trainer};
use crate::{
    engine::{ExactDecision, LookaheadProducts, RateRule, Step},
    error::Error,
    optim::{ErrOf, TunableOptimizer},
};
use dfdx::tensor::Gradients;

/// The conditions that a step must meet, and how many points to try.
///
/// Let φ(t) be the loss at w − t·Σαᵢuᵢ, so that φ'(0) = −Σαᵢ⟨uᵢ,g⟩. A step t passes if
///
/// - φ(t) ≤ φ(0) + c₁·t·φ'(0) (Armijo's condition: the loss falls by at least the fraction c₁ of
///   what the slope at 0 predicts), and
/// - |φ'(t)| ≤ c₂·|φ'(0)| (the strong Wolfe condition: the slope has become flat), unless `c2` is
///   `None`.
///
/// Nocedal and Wright, *Numerical Optimization*, 2nd edition, §3.1.
///
/// # Example
/// ```
/// use tlr::LineSearch;
///
/// let strict = LineSearch::default().c1(1e-2).c2(0.1);
/// let quick = LineSearch::default().c2(None).max_trials(5);
/// assert_eq!(quick, LineSearch::armijo().max_trials(5));
/// ```
/// [`Trainer::step_line_search`] makes the search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineSearch {
    c1: f64,
    c2: Option<f64>,
    max_trials: usize,
}

impl Default for LineSearch {
    fn default() -> Self {
        Self { c1: 1e-4, c2: Some(0.9), max_trials: 60 }
    }
}

impl LineSearch {
    /// A search with Armijo's condition alone.
    ///
    /// # Example
    /// ```
    /// let search = tlr::LineSearch::armijo().max_trials(20);
    /// ```
    pub fn armijo() -> Self {
        Self { c2: None, ..Self::default() }
    }

    /// Sets c₁, in (0, 1). Default 1e-4.
    ///
    /// Example: [`LineSearch`].
    pub fn c1(mut self, c1: f64) -> Self {
        self.c1 = c1;
        self
    }

    /// Sets c₂, in (c₁, 1), or `None` for Armijo's condition alone. Default 0.9.
    ///
    /// Example: [`LineSearch`].
    pub fn c2(mut self, c2: impl Into<Option<f64>>) -> Self {
        self.c2 = c2.into();
        self
    }

    /// Sets the largest number of points to try, at least 1, after the one at the rate in force,
    /// which every exact step looks at. Default 60, which is enough to get from any rate to any
    /// other.
    ///
    /// Example: [`LineSearch`].
    pub fn max_trials(mut self, trials: usize) -> Self {
        self.max_trials = trials;
        self
    }

    fn validate(&self) -> Result<(), Error> {
        let fraction = |v: f64| v > 0.0 && v < 1.0;
        Error::unless(fraction(self.c1), "line search: c1", "in (0, 1)", self.c1)?;
        if let Some(c2) = self.c2 {
            let in_range = fraction(c2) && c2 > self.c1;
            Error::unless(in_range, "line search: c2", "in (c1, 1)", c2)?;
        }
        let trials = self.max_trials;
        Error::unless(trials > 0, "line search: max_trials", "at least 1", trials as f64)
    }
}

impl<Opt, R> Trainer<Opt, R>
where
    Opt: TunableOptimizer,
    R: RateRule,
{
    /// Makes a step as [`step_lookahead`](Self::step_lookahead) does, but only if it passes a line
    /// search.
    ///
    /// The search tries the rule's step first. If that fails, it bisects the interval of possible
    /// steps, or doubles the step while the loss still falls steeply. `evaluate` computes the loss
    /// and its gradients. It must always use the same data as `loss` and `gradients`, which were
    /// computed at w. The loss falls with every step that is made.
    ///
    /// # Errors
    /// [`Error::NoDescent`], if no point passes. Either the loss does not fall along the direction,
    /// as can happen with momentum, or it cannot fall further than rounding allows.
    /// [`Error::NonFiniteLoss`], if `loss` is not finite; [`Error::OutOfRange`], for a number of
    /// `search`; and those of [`step_lookahead`](Self::step_lookahead). Weights and rates are then
    /// unchanged, and so is what the base optimizer has accumulated, unless
    /// [it keeps no copy](TunableOptimizer::begin_trial) and is reset. The momentum that has led to
    /// [`Error::NoDescent`] is there again: a plain step goes on with it, and
    /// [`reset`](Self::reset) clears it.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
    /// use tlr::{LineSearch, Newton, NewtonConfig};
    ///
    /// let dev = Cpu::default();
    /// let mut w: Tensor<Rank1<2>, f64, _> = dev.tensor([3.0, -4.0]);
    /// let evaluate = |w: &mut Tensor<Rank1<2>, f64, Cpu>| {
    ///     let loss = (w.leaky_trace().square() + 1.0).sqrt().sum();
    ///     (loss.array(), loss.backward())
    /// };
    ///
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 1e3, ..Default::default() });
    /// let mut opt = Newton::new(&w, sgd, NewtonConfig::default())?;
    /// for _ in 0..5 {
    ///     let (loss, gradients) = evaluate(&mut w);
    ///     opt.step_line_search(&mut w, &gradients, loss, LineSearch::default(), evaluate)?;
    ///     assert!(evaluate(&mut w).0 < loss);
    /// }
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn step_line_search(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        loss: impl Into<f64>,
        search: LineSearch,
        evaluate: impl FnMut(&mut Opt::Model) -> (f64, Gradients<Opt::Dtype, Opt::Device>),
    ) -> Result<Step, Error> {
        search.validate()?;
        let result = self.search(model, gradients, loss.into(), search, evaluate);
        result.map_err(|fault| self.to_error(&fault))
    }

    fn search(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        loss: f64,
        search: LineSearch,
        evaluate: impl FnMut(&mut Opt::Model) -> (f64, Gradients<Opt::Dtype, Opt::Device>),
    ) -> Result<Step, StepFault<ErrOf<Opt>>> {
        let averaged = self.averaged_copy(model, gradients, Some(loss))?;
        let (gradients, loss) = match &averaged {
            Some((means, mean)) => (means, mean.unwrap_or(loss)),
            None => (gradients, loss),
        };
        if !loss.is_finite() {
            return Err(Error::NonFiniteLoss { step: self.steps() + 1, loss }.into());
        }
        self.or_undo(model, |trainer, model| {
            trainer.search_along(model, gradients, loss, search, evaluate)
        })
    }

    fn search_along(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        loss: f64,
        search: LineSearch,
        mut evaluate: impl FnMut(&mut Opt::Model) -> (f64, Gradients<Opt::Dtype, Opt::Device>),
    ) -> Result<Step, StepFault<ErrOf<Opt>>> {
        if self.gather_only(model, gradients)? {
            return Ok(Step::Gathered);
        }
        let proposed = self.propose(model, gradients)?;
        let (_, ahead) = self.evaluate(&proposed, &mut evaluate)?;
        let sums = self.derivatives(model, &proposed, gradients, &ahead);
        let mut decisions = self.engine.decide_ahead(&sums);

        // The largest step known to be too near, and the smallest known to be too far.
        let (mut near, mut far) = (0.0, f64::INFINITY);
        let mut t = 1.0;
        for _ in 0..search.max_trials {
            // A step whose weights are not finite counts as too far.
            let passed = match self.move_along(model, &proposed, &decisions, t) {
                Ok(next) => {
                    let (there, gradients_there) = self.evaluate(&next, &mut evaluate)?;
                    let sums = self.derivatives(model, &next, gradients, &gradients_there);
                    let total =
                        |of: fn(&LookaheadProducts) -> f64| sums.iter().map(of).sum::<f64>();
                    // t·φ'(0) and t·φ'(t).
                    let slopes = (-total(|sums| sums.here), -total(|sums| sums.ahead));
                    match search.judge(loss, there, slopes) {
                        Judgement::Passed => Some(next),
                        Judgement::TooFar => {
                            far = t;
                            None
                        }
                        Judgement::TooNear => {
                            near = t;
                            None
                        }
                    }
                }
                Err(_) => {
                    far = t;
                    None
                }
            };
            if let Some(next) = passed {
                if t != 1.0 {
                    decisions.iter_mut().for_each(|decision: &mut ExactDecision| decision.scale(t));
                }
                return self.accept_step(model, next, decisions);
            }
            t = if far.is_finite() { 0.5 * (near + far) } else { 2.0 * t };
        }
        Err(Error::NoDescent { step: self.steps() + 1, trials: search.max_trials }.into())
    }
}

#[derive(Debug, PartialEq)]
enum Judgement {
    Passed,
    TooFar,
    TooNear,
}

impl LineSearch {
    /// Judges a step by the loss `there`, by t·φ'(0) and by t·φ'(t).
    fn judge(&self, loss: f64, there: f64, (slope, slope_there): (f64, f64)) -> Judgement {
        // A loss of NaN fails these comparisons, so it counts as too far. With a slope of 0 no step
        // passes, and the search ends after its last trial.
        let falls = slope < 0.0 && there <= loss + self.c1 * slope && there < loss;
        if !falls {
            return Judgement::TooFar;
        }
        let flat = self.c2.map_or(f64::INFINITY, |c2| c2 * slope.abs());
        if slope_there < -flat {
            Judgement::TooNear
        } else if slope_there > flat {
            Judgement::TooFar
        } else {
            Judgement::Passed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each figure at its limit, and just beyond it.
    #[test]
    fn a_step_is_judged_by_both_conditions() {
        let search = LineSearch { c1: 0.25, c2: Some(0.5), max_trials: 1 };
        let judge = |there, slopes| search.judge(4.0, there, slopes);
        assert_eq!(judge(3.0, (-4.0, 2.0)), Judgement::Passed);
        assert_eq!(judge(3.0, (-4.0, -2.0)), Judgement::Passed);
        assert_eq!(judge(3.0 + 1e-9, (-4.0, 0.0)), Judgement::TooFar);
        assert_eq!(judge(f64::NAN, (-4.0, 0.0)), Judgement::TooFar);
        assert_eq!(judge(3.0, (-4.0, 2.0 + 1e-9)), Judgement::TooFar);
        assert_eq!(judge(3.0, (-4.0, -2.0 - 1e-9)), Judgement::TooNear);
        // If the slope predicts nothing, a loss that falls is chance.
        assert_eq!(judge(3.0, (0.0, 0.0)), Judgement::TooFar);
        assert_eq!(judge(3.0, (1.0, 0.0)), Judgement::TooFar);
        // A gain that is lost in rounding does not count.
        assert_eq!(judge(4.0, (-1e-300, 0.0)), Judgement::TooFar);
        let armijo = LineSearch { c2: None, ..search };
        assert_eq!(armijo.judge(4.0, 3.0, (-4.0, 1e9)), Judgement::Passed);
        assert_eq!(armijo.judge(4.0, 3.0, (-4.0, -1e9)), Judgement::Passed);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(LineSearch::armijo(), LineSearch { c2: None, ..LineSearch::default() });
        let search = LineSearch::default().c1(0.25);
        assert!(search.c2(0.25 + 1e-9).validate().is_ok());
        assert!(search.c2(0.25).validate().is_err());
        assert!(search.c2(1.0).validate().is_err());
        assert!(search.c1(0.0).validate().is_err());
        assert!(search.c1(1.0).c2(None).validate().is_err());
        assert!(search.max_trials(0).validate().is_err());
        assert!(search.max_trials(1).validate().is_ok());
    }
}
