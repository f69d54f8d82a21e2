//! [`Momo`]: momentum with a model of the loss, for SGD.

use super::{Averages, Bound, Model};
use crate::baselines::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// MoMo: momentum whose step size is the smaller of lr and the one that takes a model of the loss
/// to its lower bound.
///
/// d ← β·d + (1 − β)·g, f̄ ← β·f̄ + (1 − β)·f, γ̄ ← β·γ̄ + (1 − β)·⟨g,w⟩,
/// τ = min(lr, max(q·(f̄ − f*) + ⟨d,w⟩ − q·γ̄, 0)/‖d‖²) with q = 1 + lr·λ, w ← (w − τ·d)/q. The
/// averages begin with the first batch.
///
/// Schaipp, Ohana, Eickenberg, Defazio and Gower, *MoMo: momentum models for adaptive learning
/// rates*, ICML 2024. The package is `momo-opt`, here without its `bias_correction`. Deviation:
/// where d is 0, no step is made; the package divides by 0.
///
/// # Errors
/// [`PeerError::NoLoss`] in a step without a loss.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Momo, Peer};
///
/// let mut peer = Peer::new(Momo::default())?;
/// let mut w = [3.0];
/// for _ in 0..100 {
///     let (loss, g) = (0.5 * w[0] * w[0], w);
///     peer.step(&mut [&mut w[..]], &[&g[..]], Some(loss))?;
/// }
/// assert!(w[0].abs() < 0.1);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Momo {
    /// The largest step size. Above 0; default 1.
    pub lr: f64,
    /// β in [0, 1). Default 0.9.
    pub beta: f64,
    /// λ, the weight decay. At least 0; default 0.
    pub weight_decay: f64,
    /// f*, a bound on the loss from below. Default 0.
    pub lower_bound: f64,
    /// Whether the bound is estimated on the way: MoMo*. Default false.
    pub estimate_bound: bool,
}

impl Default for Momo {
    fn default() -> Self {
        let (lr, beta) = (1.0, 0.9);
        Self { lr, beta, weight_decay: 0.0, lower_bound: 0.0, estimate_bound: false }
    }
}

/// What [`Momo`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MomoState<E> {
    tau: f64,
    lower_bound: f64,
    /// The averages of losses and products; none before the first step.
    averages: Option<Averages>,
    /// d, the average of the gradients.
    mean: Tensors<E>,
}

impl<E> PeerState for MomoState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.mean])
    }
}

impl PeerRule for Momo {
    const NAME: &'static str = "momo";
    type State<E: Real> = MomoState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("momo: lr", self.lr)?;
        PeerError::unless_beta("momo: beta", self.beta)?;
        PeerError::unless_decay("momo: weight_decay", self.weight_decay)?;
        let bound = self.lower_bound;
        PeerError::unless(bound.is_finite(), "momo: lower_bound", "finite", bound)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> MomoState<E> {
        MomoState {
            tau: 0.0,
            lower_bound: self.lower_bound,
            averages: None,
            mean: slices::zeros(weights),
        }
    }

    fn update<E: Real>(
        &self,
        state: &mut MomoState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let loss = facts.loss.ok_or(PeerError::NoLoss { rule: Self::NAME })?;
        let lr = self.lr * facts.factor;
        // The first batch is its own average.
        let beta = if state.averages.is_some() { self.beta } else { 0.0 };
        let averaged = |d: f64, g: f64| beta * d + (1.0 - beta) * g;
        let [product, dot, norm] = slices::sums(weights, gradients, [&state.mean], |w, g, [d]| {
            let d = averaged(d, g);
            [w * g, w * d, d * d]
        });
        let before = state.averages.unwrap_or(Averages { loss, product });
        let averages = Averages {
            loss: averaged(before.loss, loss),
            product: averaged(before.product, product),
        };
        let model = Model { averages, dot, norm, total: 1.0, lr, weight_decay: self.weight_decay };
        let bound = Bound { first: self.lower_bound, is_estimated: self.estimate_bound };
        let (tau, lower_bound) = model.step(state.lower_bound, bound);
        slices::finite_sums(facts.step, &[averages.product, dot, norm, tau, lower_bound])?;
        let decay = 1.0 + lr * self.weight_decay;
        let mean = [&mut state.mean];
        slices::transform(facts.step, weights, gradients, mean, |_, w, g, [d]| {
            let d = averaged(d, g);
            ((w - tau * d) / decay, [d])
        })?;
        (state.tau, state.lower_bound, state.averages) = (tau, lower_bound, Some(averages));
        Ok(())
    }

    fn rates<E: Real>(&self, state: &MomoState<E>) -> Vec<f64> {
        vec![state.tau]
    }
}
