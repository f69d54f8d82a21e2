//! [`Sls`]: stochastic line search.

use super::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Stochastic line search: w ← w − η·g, with η cut by β until Armijo's condition holds on the same
/// batch, f(w − η·g) ≤ f(w) − c·η·‖g‖². Each step begins at γ^(1/batches) times the η of the last.
///
/// Vaswani, Mishkin, Laradji, Schmidt, Gidel and Lacoste-Julien, *Painless stochastic gradient:
/// interpolation, line-search, and convergence rates*, NeurIPS 2019. The package is `sls` by
/// Laradji; this is its `reset_option=1`.
///
/// Each trial is a forward pass, so its steps are made by `step_with`. If 100 trials do not
/// find a step, one of 1e-6 is made, as in the package.
///
/// # Errors
/// [`PeerError::NoTrials`] in a step without trials.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Peer, Sls};
///
/// let loss = |w: f64| 2.0 * w * w;
/// let mut peer = Peer::new(Sls::default())?;
/// let mut w = [3.0_f64];
/// for _ in 0..20 {
///     let (before, g) = (loss(w[0]), [4.0 * w[0]]);
///     let trial = &mut |w: &[Vec<f64>]| Ok(loss(w[0][0]));
///     peer.step_with(&mut [&mut w[..]], &[&g[..]], before, trial)?;
/// }
/// assert!(w[0].abs() < 0.1);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sls {
    /// c of Armijo's condition, in (0, 1). Default 0.1.
    pub c: f64,
    /// β in (0, 1): the factor by which a step is cut. Default 0.9.
    pub cut: f64,
    /// γ, what the step may grow by in an epoch. At least 1; default 2.
    pub growth: f64,
    /// Batches in an epoch. Default 500.
    pub batches: u64,
    /// η before the first step. Above 0; default 1.
    pub first: f64,
}

impl Default for Sls {
    fn default() -> Self {
        Self { c: 0.1, cut: 0.9, growth: 2.0, batches: 500, first: 1.0 }
    }
}

/// What [`Sls`] remembers: the last η.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlsState {
    rate: f64,
}

impl PeerState for SlsState {}

/// Trials in a step.
const TRIALS: usize = 100;

/// The step that is made if no trial passes.
const LAST_RESORT: f64 = 1e-6;

/// A gradient below this norm counts as 0.
const LEAST_NORM: f64 = 1e-8;

impl PeerRule for Sls {
    const NAME: &'static str = "sls";
    type State<E: Real> = SlsState;

    fn is_scheduled(&self) -> bool {
        false
    }

    fn needs_trials(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<(), PeerError> {
        let within = |value: f64| value > 0.0 && value < 1.0;
        PeerError::unless(within(self.c), "sls: c", "in (0, 1)", self.c)?;
        PeerError::unless(within(self.cut), "sls: cut", "in (0, 1)", self.cut)?;
        let grows = self.growth >= 1.0 && self.growth.is_finite();
        PeerError::unless(grows, "sls: growth", "finite and at least 1", self.growth)?;
        let batches = self.batches as f64;
        PeerError::unless(self.batches > 0, "sls: batches", "at least 1", batches)?;
        PeerError::unless_positive("sls: first", self.first)
    }

    fn start<E: Real>(&self, _weights: &[&mut [E]]) -> SlsState {
        SlsState { rate: self.first }
    }

    fn update<E: Real>(
        &self,
        state: &mut SlsState,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let loss = facts.loss.ok_or(PeerError::NoLoss { rule: Self::NAME })?;
        let trial = facts.trial.ok_or(PeerError::NoTrials { rule: Self::NAME })?;
        let [square] = slices::sums(weights, gradients, [], |_, g, []| [g * g]);
        slices::finite_sums(facts.step, &[square])?;
        let mut rate = state.rate * self.growth.powf(1.0 / self.batches as f64);
        if square.sqrt() >= LEAST_NORM {
            let mut found = false;
            let mut ahead = slices::copies(weights);
            for _ in 0..TRIALS {
                move_along(&mut ahead, weights, gradients, rate);
                // A loss that is NaN does not pass.
                if trial(&ahead)? <= loss - rate * self.c * square {
                    found = true;
                    break;
                }
                rate *= self.cut;
            }
            let made = if found { rate } else { LAST_RESORT };
            slices::transform(facts.step, weights, gradients, [], |_, w, g, []| {
                (w - made * g, [])
            })?;
        }
        state.rate = rate;
        Ok(())
    }

    fn rates<E: Real>(&self, state: &SlsState) -> Vec<f64> {
        vec![state.rate]
    }
}

/// Sets `ahead` to the weights after a step of this rate.
fn move_along<E: Real>(
    ahead: &mut Tensors<E>,
    weights: &[&mut [E]],
    gradients: &[&[E]],
    rate: f64,
) {
    for ((ahead, weights), gradients) in ahead.iter_mut().zip(weights).zip(gradients) {
        for ((ahead, w), g) in ahead.iter_mut().zip(weights.iter()).zip(*gradients) {
            *ahead = E::round(w.wide() - rate * g.wide());
        }
    }
}
