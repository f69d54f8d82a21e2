//! [`DAdaptAdam`]: D-Adaptation of Adam's rate.

use super::{grown, growth_in_range};
use crate::baselines::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Adam by D-Adaptation: the rate is d·lr, where d estimates the distance to the solution from
/// below.
///
/// With κ = d·lr times Adam's bias correction, if that is on, and with q = √β₂:
/// r ← q·r + (1 − q)·κ·⟨g, s/(√v + ε)⟩, then m ← β₁·m + (1 − β₁)·κ·g, v ← β₂·v + (1 − β₂)·g²,
/// s ← q·s + (1 − q)·κ·g, d̂ = r/((1 − q)·‖s‖₁), d ← max(d, d̂), w ← w − m/(√v + ε).
///
/// Defazio and Mishchenko, *Learning-rate-free learning by D-Adaptation*, ICML 2023. The package is
/// `dadaptation`.
///
/// # Example
/// ```
/// use tlr_models::baselines::{DAdaptAdam, Peer};
///
/// let mut peer = Peer::new(DAdaptAdam::default())?;
/// let mut w = [3.0];
/// for _ in 0..100 {
///     let g = w;
///     peer.step(&mut [&mut w[..]], &[&g[..]], None)?;
/// }
/// assert!(peer.rates()[0] > 1e-3); // from 1e-6
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DAdaptAdam {
    /// What d is multiplied by. Above 0; default 1, which is meant to stay.
    pub lr: f64,
    /// β₁ and β₂ in [0, 1). Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// ε. Above 0; default 1e-8.
    pub eps: f64,
    /// λ, the weight decay. At least 0; default 0.
    pub weight_decay: f64,
    /// Whether λ acts on the weights directly, as in AdamW. Default false.
    pub decoupled: bool,
    /// Whether κ has Adam's bias correction. Default false.
    pub bias_correction: bool,
    /// d before the first step. Above 0; default 1e-6.
    pub d0: f64,
    /// The most that d grows by in a step. Above 1; default none: without bound.
    pub growth: Option<f64>,
}

impl Default for DAdaptAdam {
    fn default() -> Self {
        Self {
            lr: 1.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
            bias_correction: false,
            d0: 1e-6,
            growth: None,
        }
    }
}

/// What [`DAdaptAdam`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DAdaptAdamState<E> {
    d: f64,
    /// r, the average of the products of gradients with s.
    numerator: f64,
    /// Steps with a gradient that is not 0.
    moved: u64,
    /// s, the average of the gradients, weighed by κ.
    sum: Tensors<E>,
    mean: Tensors<E>,
    square: Tensors<E>,
}

impl<E> PeerState for DAdaptAdamState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.sum, &self.mean, &self.square])
    }
}

impl PeerRule for DAdaptAdam {
    const NAME: &'static str = "d-adaptation adam";
    type State<E: Real> = DAdaptAdamState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("d-adaptation: lr", self.lr)?;
        PeerError::unless_beta("d-adaptation: beta1", self.betas[0])?;
        PeerError::unless_beta("d-adaptation: beta2", self.betas[1])?;
        PeerError::unless_positive("d-adaptation: eps", self.eps)?;
        PeerError::unless_decay("d-adaptation: weight_decay", self.weight_decay)?;
        PeerError::unless_positive("d-adaptation: d0", self.d0)?;
        growth_in_range("d-adaptation: growth", self.growth)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> DAdaptAdamState<E> {
        let zeros = slices::zeros(weights);
        DAdaptAdamState {
            d: self.d0,
            numerator: 0.0,
            moved: 0,
            sum: zeros.clone(),
            mean: zeros.clone(),
            square: zeros,
        }
    }

    fn update<E: Real>(
        &self,
        state: &mut DAdaptAdamState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let [beta1, beta2] = self.betas;
        let root = beta2.sqrt();
        let steps = (state.moved + 1) as f64;
        let correction = match self.bias_correction {
            true => (1.0 - beta2.powf(steps)).sqrt() / (1.0 - beta1.powf(steps)),
            false => 1.0,
        };
        let step = state.d * self.lr * facts.factor * correction;
        let (coupled, decoupled) = match self.decoupled {
            true => (0.0, self.weight_decay),
            false => (self.weight_decay, 0.0),
        };
        let summed = |s: f64, g: f64| root * s + (1.0 - root) * step * g;

        let buffers = [&state.sum, &state.square];
        let [product, norm] = slices::sums(weights, gradients, buffers, |w, g, [s, v]| {
            let g = g + coupled * w;
            [g * s / (v.sqrt() + self.eps), summed(s, g).abs()]
        });
        let numerator = root * state.numerator + (1.0 - root) * step * product;
        slices::finite_sums(facts.step, &[numerator, norm])?;
        if norm == 0.0 {
            return Ok(()); // there has been no gradient yet
        }
        let d = grown(state.d, numerator / ((1.0 - root) * norm), self.growth);
        slices::finite_sums(facts.step, &[d])?;

        let buffers = [&mut state.sum, &mut state.mean, &mut state.square];
        slices::transform(facts.step, weights, gradients, buffers, |_, w, g, [s, m, v]| {
            let g = g + coupled * w;
            let m = beta1 * m + step * (1.0 - beta1) * g;
            let v = beta2 * v + (1.0 - beta2) * g * g;
            (w - decoupled * step * w - m / (v.sqrt() + self.eps), [summed(s, g), m, v])
        })?;
        (state.d, state.numerator) = (d, numerator);
        state.moved += 1;
        Ok(())
    }

    /// d, which users of the package watch.
    fn rates<E: Real>(&self, state: &DAdaptAdamState<E>) -> Vec<f64> {
        vec![state.d]
    }
}
