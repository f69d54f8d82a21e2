//! [`Prodigy`]: Adam with an estimate of the distance to the solution as its rate.

use super::{
    dadapt::growth_in_range, slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors,
};
use serde::{Deserialize, Serialize};

/// Prodigy: Adam at the rate d·lr, where d estimates the distance to the solution from below.
///
/// With κ = d·lr times Adam's bias correction, if that is on, and sums over all weights:
/// r ← β₃·r + (d/d₀)·κ·⟨g, w₀ − w⟩, s ← β₃·s + (d/d₀)·κ·g, d̂ = c·r/‖s‖₁, d ← max(d, d̂);
/// m ← β₁·m + (1 − β₁)·d·g, v ← β₂·v + (1 − β₂)·d²·g², w ← w − κ·m/(√v + d·ε).
///
/// Mishchenko and Defazio, *Prodigy: an expeditiously adaptive parameter-free learner*, ICML 2024.
/// The package is `prodigyopt`.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Peer, Prodigy};
///
/// let mut peer = Peer::new(Prodigy::default())?;
/// let mut w = [3.0];
/// for _ in 0..100 {
///     let g = w;
///     peer.step(&mut [&mut w[..]], &[&g[..]], None)?;
/// }
/// assert!(peer.rates()[0] > 1e-3); // from 1e-6
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Prodigy {
    /// What d is multiplied by. Above 0; default 1, which is meant to stay.
    pub lr: f64,
    /// β₁ and β₂ in [0, 1). Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// β₃ in [0, 1). Default none: √β₂.
    pub beta3: Option<f64>,
    /// ε. Above 0; default 1e-8.
    pub eps: f64,
    /// λ, the weight decay. At least 0; default 0.
    pub weight_decay: f64,
    /// Whether λ acts on the weights directly, as in AdamW. Default true.
    pub decoupled: bool,
    /// Whether κ has Adam's bias correction. Default false.
    pub bias_correction: bool,
    /// Whether a warm-up's small rates are left out of s. Default false.
    pub safeguard_warmup: bool,
    /// d before the first step. Above 0; default 1e-6.
    pub d0: f64,
    /// c, what d̂ is multiplied by. Above 0; default 1.
    pub d_coef: f64,
    /// The most that d grows by in a step. Above 1; default none: without bound.
    pub growth: Option<f64>,
}

impl Default for Prodigy {
    fn default() -> Self {
        Self {
            lr: 1.0,
            betas: [0.9, 0.999],
            beta3: None,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: true,
            bias_correction: false,
            safeguard_warmup: false,
            d0: 1e-6,
            d_coef: 1.0,
            growth: None,
        }
    }
}

/// What [`Prodigy`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProdigyState<E> {
    d: f64,
    largest_d: f64,
    /// r, the weighted sum of ⟨g, w₀ − w⟩.
    numerator: f64,
    /// Steps with a gradient that is not 0.
    moved: u64,
    origin: Tensors<E>,
    sum: Tensors<E>,
    mean: Tensors<E>,
    square: Tensors<E>,
}

impl<E> PeerState for ProdigyState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.origin, &self.sum, &self.mean, &self.square])
    }
}

impl PeerRule for Prodigy {
    const NAME: &'static str = "prodigy";
    type State<E: Real> = ProdigyState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("prodigy: lr", self.lr)?;
        PeerError::unless_beta("prodigy: beta1", self.betas[0])?;
        PeerError::unless_beta("prodigy: beta2", self.betas[1])?;
        PeerError::unless_beta("prodigy: beta3", self.beta3.unwrap_or_default())?;
        PeerError::unless_positive("prodigy: eps", self.eps)?;
        PeerError::unless_decay("prodigy: weight_decay", self.weight_decay)?;
        PeerError::unless_positive("prodigy: d0", self.d0)?;
        PeerError::unless_positive("prodigy: d_coef", self.d_coef)?;
        growth_in_range("prodigy: growth", self.growth)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> ProdigyState<E> {
        let zeros = slices::zeros(weights);
        ProdigyState {
            d: self.d0,
            largest_d: self.d0,
            numerator: 0.0,
            moved: 0,
            origin: slices::copies(weights),
            sum: zeros.clone(),
            mean: zeros.clone(),
            square: zeros,
        }
    }

    fn update<E: Real>(
        &self,
        state: &mut ProdigyState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let [beta1, beta2] = self.betas;
        let beta3 = self.beta3.unwrap_or(beta2.sqrt());
        let d = state.d;
        let rate = self.lr * facts.factor;
        let steps = (state.moved + 1) as f64;
        let correction = match self.bias_correction {
            true => (1.0 - beta2.powf(steps)).sqrt() / (1.0 - beta1.powf(steps)),
            false => 1.0,
        };
        let step = d * rate * correction;
        let (coupled, decoupled) = match self.decoupled {
            true => (0.0, self.weight_decay),
            false => (self.weight_decay, 0.0),
        };
        let weight_of_sum = d / self.d0 * if self.safeguard_warmup { d } else { step };
        let summed = |s: f64, g: f64| beta3 * s + weight_of_sum * g;

        let buffers = [&state.sum, &state.origin];
        let [product, norm] = slices::sums(weights, gradients, buffers, |w, g, [s, origin]| {
            let g = g + coupled * w;
            [g * (origin - w), summed(s, g).abs()]
        });
        let numerator = beta3 * state.numerator + d / self.d0 * step * product;
        slices::finite_sums(facts.step, &[numerator, norm])?;
        if norm == 0.0 {
            return Ok(()); // there has been no gradient yet
        }
        let estimate = self.d_coef * numerator / norm;
        let largest_d = state.largest_d.max(estimate);
        let base = if d == self.d0 { d.max(estimate) } else { d };
        let next_d = self.growth.map_or(largest_d, |growth| largest_d.min(base * growth));
        slices::finite_sums(facts.step, &[next_d])?;

        let buffers = [&mut state.sum, &mut state.mean, &mut state.square];
        slices::transform(facts.step, weights, gradients, buffers, |_, w, g, [s, m, v]| {
            let g = g + coupled * w;
            let m = beta1 * m + d * (1.0 - beta1) * g;
            let v = beta2 * v + d * d * (1.0 - beta2) * g * g;
            // With β₁ = 0 the package scales the gradient by the new d.
            let direction = if beta1 > 0.0 { m } else { next_d * g };
            let decayed = w - decoupled * step * w;
            (decayed - step * direction / (v.sqrt() + next_d * self.eps), [summed(s, g), m, v])
        })?;
        (state.d, state.largest_d, state.numerator) = (next_d, largest_d, numerator);
        state.moved += 1;
        Ok(())
    }

    /// d, which users of the package watch. It is not the rate d·lr.
    fn rates<E: Real>(&self, state: &ProdigyState<E>) -> Vec<f64> {
        vec![state.d]
    }
}
