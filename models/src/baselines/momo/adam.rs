//! [`MomoAdam`]: momentum with a model of the loss, for Adam.

use super::{Averages, Bound, Model};
use crate::baselines::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// MoMo-Adam: as [`Momo`](super::Momo), with Adam's average of squares for the norm.
///
/// d, f̄ and γ̄ are averages by β₁ that begin at 0, ρ = 1 − β₁ᵗ, v ← β₂·v + (1 − β₂)·g² and
/// D = √(v/(1 − β₂ᵗ)) + ε. With q = 1 + lr·λ,
/// τ = min(lr/ρ, max(q·(f̄ − ρ·f*) + ⟨d,w⟩ − q·γ̄, 0)/⟨d,d/D⟩) and w ← (w − τ·d/D)/q.
///
/// Schaipp, Ohana, Eickenberg, Defazio and Gower, *MoMo: momentum models for adaptive learning
/// rates*, ICML 2024. The package is `momo-opt`, here with its default `divide=True`. Deviation:
/// where d is 0, no step is made; the package divides by 0.
///
/// # Errors
/// [`PeerError::NoLoss`] in a step without a loss.
///
/// # Example
/// ```
/// use tlr_models::baselines::{MomoAdam, Peer};
///
/// let mut peer = Peer::new(MomoAdam::default())?;
/// let mut w = [3.0];
/// for _ in 0..600 {
///     let (loss, g) = (0.5 * w[0] * w[0], w);
///     peer.step(&mut [&mut w[..]], &[&g[..]], Some(loss))?;
/// }
/// assert!(w[0].abs() < 0.5);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MomoAdam {
    /// The largest step size. Above 0; default 0.01.
    pub lr: f64,
    /// β₁ and β₂ in [0, 1). Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// ε. Above 0; default 1e-8.
    pub eps: f64,
    /// λ, the weight decay. At least 0; default 0.
    pub weight_decay: f64,
    /// f*, a bound on the loss from below. Default 0.
    pub lower_bound: f64,
    /// Whether the bound is estimated on the way: MoMo-Adam*. Default false.
    pub estimate_bound: bool,
}

impl Default for MomoAdam {
    fn default() -> Self {
        Self {
            lr: 0.01,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            lower_bound: 0.0,
            estimate_bound: false,
        }
    }
}

/// What [`MomoAdam`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MomoAdamState<E> {
    tau: f64,
    lower_bound: f64,
    averages: Averages,
    /// d, the average of the gradients.
    mean: Tensors<E>,
    /// v, the average of their squares.
    square: Tensors<E>,
}

impl<E> PeerState for MomoAdamState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.mean, &self.square])
    }
}

impl PeerRule for MomoAdam {
    const NAME: &'static str = "momo-adam";
    type State<E: Real> = MomoAdamState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("momo-adam: lr", self.lr)?;
        PeerError::unless_beta("momo-adam: beta1", self.betas[0])?;
        PeerError::unless_beta("momo-adam: beta2", self.betas[1])?;
        PeerError::unless_positive("momo-adam: eps", self.eps)?;
        PeerError::unless_decay("momo-adam: weight_decay", self.weight_decay)?;
        let bound = self.lower_bound;
        PeerError::unless(bound.is_finite(), "momo-adam: lower_bound", "finite", bound)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> MomoAdamState<E> {
        let zeros = slices::zeros(weights);
        MomoAdamState {
            tau: 0.0,
            lower_bound: self.lower_bound,
            averages: Averages { loss: 0.0, product: 0.0 },
            mean: zeros.clone(),
            square: zeros,
        }
    }

    fn update<E: Real>(
        &self,
        state: &mut MomoAdamState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let loss = facts.loss.ok_or(PeerError::NoLoss { rule: Self::NAME })?;
        let lr = self.lr * facts.factor;
        let [beta1, beta2] = self.betas;
        let steps = facts.step as f64;
        let (total, bias2) = (1.0 - beta1.powf(steps), 1.0 - beta2.powf(steps));
        let averaged = |d: f64, g: f64| beta1 * d + (1.0 - beta1) * g;
        let squared = |v: f64, g: f64| beta2 * v + (1.0 - beta2) * g * g;
        let scale = |v: f64| (v / bias2).sqrt() + self.eps;
        let buffers = [&state.mean, &state.square];
        let [product, dot, norm] = slices::sums(weights, gradients, buffers, |w, g, [d, v]| {
            let d = averaged(d, g);
            [w * g, w * d, d * (d / scale(squared(v, g)))]
        });
        let averages = Averages {
            loss: averaged(state.averages.loss, loss),
            product: averaged(state.averages.product, product),
        };
        let model = Model { averages, dot, norm, total, lr, weight_decay: self.weight_decay };
        let bound = Bound { first: self.lower_bound, is_estimated: self.estimate_bound };
        let (tau, lower_bound) = model.step(state.lower_bound, bound);
        slices::finite_sums(facts.step, &[averages.product, dot, norm, tau, lower_bound])?;
        let decay = 1.0 + lr * self.weight_decay;
        let buffers = [&mut state.mean, &mut state.square];
        slices::transform(facts.step, weights, gradients, buffers, |_, w, g, [d, v]| {
            let (d, v) = (averaged(d, g), squared(v, g));
            ((w - tau * d / scale(v)) / decay, [d, v])
        })?;
        (state.tau, state.lower_bound, state.averages) = (tau, lower_bound, averages);
        Ok(())
    }

    fn rates<E: Real>(&self, state: &MomoAdamState<E>) -> Vec<f64> {
        vec![state.tau]
    }
}
