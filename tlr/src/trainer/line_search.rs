//! Steps that are checked before they are made (the paper's third future step), for losses without
//! noise.

use super::{host::Fault, Trainer};
use crate::{
    engine::{DirectionProducts, ExactDecision, RateRule, Step},
    error::Error,
    optim::{DeviceError, TunableOptimizer},
};
use dfdx::tensor::Gradients;

/// When a step is good enough, and how long to look for one.
///
/// With φ(t) the loss at w − t·Σαᵢuᵢ and φ'(0) = −Σαᵢ⟨uᵢ,g⟩, a step t passes if
///
/// - φ(t) ≤ φ(0) + c₁·t·φ'(0) (Armijo: the loss falls by a fraction of what the slope promises), and
/// - |φ'(t)| ≤ c₂·|φ'(0)| (strong Wolfe: the slope has gone), unless `c2` is `None`.
///
/// Nocedal and Wright, *Numerical Optimization*, 2nd edition, §3.1.
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
    /// Armijo's condition alone.
    ///
    /// # Example
    /// ```
    /// let search = tlr::LineSearch::armijo().max_trials(20);
    /// ```
    pub fn armijo() -> Self {
        Self { c2: None, ..Self::default() }
    }

    /// c₁, in (0, 1). Default 1e-4.
    pub fn c1(mut self, c1: f64) -> Self {
        self.c1 = c1;
        self
    }

    /// c₂, in (c₁, 1), or `None` for Armijo's condition alone. Default 0.9.
    pub fn c2(mut self, c2: impl Into<Option<f64>>) -> Self {
        self.c2 = c2.into();
        self
    }

    /// The points to try, at least 1. Default 60, enough to get from any rate to any other.
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
    /// [`step_lookahead`](Self::step_lookahead), made only where it passes a line search.
    ///
    /// The rule's step is tried first; where it fails, the interval is bisected, or doubled while the
    /// loss falls steeply. `evaluate` computes the loss and its gradients, always on the same data as
    /// `loss` and `gradients`, which were computed at w. The loss falls with every step that is made.
    ///
    /// # Errors
    /// [`Error::NoDescent`], where no point passes, be it that the direction does not descend (momentum
    /// may not) or that the minimum is reached to rounding; [`Error::OutOfRange`], for a number of
    /// `search`; those of [`step_lookahead`](Self::step_lookahead). Weights and rates are as they were.
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
        result.map_err(|fault| self.explain(fault))
    }

    fn search(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        loss: f64,
        search: LineSearch,
        mut evaluate: impl FnMut(&mut Opt::Model) -> (f64, Gradients<Opt::Dtype, Opt::Device>),
    ) -> Result<Step, Fault<DeviceError<Opt>>> {
        if !loss.is_finite() {
            return Err(Error::NonFiniteLoss { step: self.steps() + 1, loss }.into());
        }
        if self.only_gathered(model, gradients)? {
            return Ok(Step::Gathered);
        }
        let proposed = self.propose(model, gradients)?;
        let (_, ahead) = self.evaluate(model, &proposed, &mut evaluate)?;
        let sums = self.derivatives(model, &proposed, gradients, &ahead);
        let mut decisions = self.engine.decide_ahead(&sums);

        // Points that are known to be too near and too far.
        let (mut near, mut far) = (0.0, f64::INFINITY);
        let mut t = 1.0;
        for _ in 0..search.max_trials {
            // Further than the finite numbers is too far.
            let passed = match self.move_along(model, &proposed, &decisions, t) {
                Ok(next) => {
                    let (there, gradients_there) = self.evaluate(model, &next, &mut evaluate)?;
                    let sums = self.derivatives(model, &next, gradients, &gradients_there);
                    let total =
                        |of: fn(&DirectionProducts) -> f64| sums.iter().map(of).sum::<f64>();
                    // t·φ'(0) and t·φ'(t).
                    let slopes = (-total(|sums| sums.uu), -total(|sums| sums.un));
                    match search.judge(loss, there, slopes) {
                        Verdict::Passed => Some(next),
                        Verdict::TooFar => {
                            far = t;
                            None
                        }
                        Verdict::TooNear => {
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
                return Ok(self.accept_step(model, next, decisions));
            }
            t = if far.is_finite() { 0.5 * (near + far) } else { 2.0 * t };
        }
        self.forget_proposal(model);
        Err(Error::NoDescent { step: self.steps() + 1, trials: search.max_trials }.into())
    }
}

enum Verdict {
    Passed,
    TooFar,
    TooNear,
}

impl LineSearch {
    /// Of the loss `there`, with t·φ'(0) and t·φ'(t).
    fn judge(&self, loss: f64, there: f64, (slope, slope_there): (f64, f64)) -> Verdict {
        // Not <: NaN is too far as well. A slope of 0 passes nothing, which ends the search.
        let falls = slope < 0.0 && there <= loss + self.c1 * slope && there < loss;
        if !falls {
            return Verdict::TooFar;
        }
        match self.c2 {
            Some(c2) if slope_there.abs() > c2 * slope.abs() => {
                if slope_there < 0.0 {
                    Verdict::TooNear
                } else {
                    Verdict::TooFar
                }
            }
            _ => Verdict::Passed,
        }
    }
}
