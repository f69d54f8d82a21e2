//! [`DAdaptSgd`]: D-Adaptation of SGD's rate.

use super::{grown, growth_in_range};
use crate::baselines::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// SGD by D-Adaptation: the rate is d·lr/‖g₀‖, where d estimates the distance to the solution from
/// below.
///
/// With κ = d·lr/‖g₀‖: r ← r + κ·⟨g,s⟩, s ← s + κ·g, d̂ = 2·r/‖s‖, d ← max(d, d̂), and
/// w ← μ·w + (1 − μ)·(w₀ − s).
///
/// Defazio and Mishchenko, *Learning-rate-free learning by D-Adaptation*, ICML 2023. The package is
/// `dadaptation`. As there, ‖g₀‖ is of the gradient without its weight decay. Deviation: where the
/// first gradients are 0, it waits for one that is not; the package divides by 0.
///
/// # Example
/// ```
/// use tlr_models::baselines::{DAdaptSgd, Peer};
///
/// let mut peer = Peer::new(DAdaptSgd::default())?;
/// let mut w = [3.0];
/// for _ in 0..100 {
///     let g = w;
///     peer.step(&mut [&mut w[..]], &[&g[..]], None)?;
/// }
/// assert!(peer.rates()[0] > 1e-3); // from 1e-6
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DAdaptSgd {
    /// What d is multiplied by. Above 0; default 1, which is meant to stay.
    pub lr: f64,
    /// μ in [0, 1). Default 0.
    pub momentum: f64,
    /// λ, the weight decay, as L2. At least 0; default 0.
    pub weight_decay: f64,
    /// d before the first step. Above 0; default 1e-6.
    pub d0: f64,
    /// The most that d grows by in a step. Above 1; default none: without bound.
    pub growth: Option<f64>,
}

impl Default for DAdaptSgd {
    fn default() -> Self {
        Self { lr: 1.0, momentum: 0.0, weight_decay: 0.0, d0: 1e-6, growth: None }
    }
}

/// What [`DAdaptSgd`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DAdaptSgdState<E> {
    d: f64,
    /// r, the weighted sum of ⟨g,s⟩.
    numerator: f64,
    /// ‖g₀‖, the norm of the first gradient that is not 0.
    first_norm: Option<f64>,
    /// w₀, the weights before the first step.
    origin: Tensors<E>,
    /// s, the weighted sum of the gradients.
    sum: Tensors<E>,
}

impl<E> PeerState for DAdaptSgdState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.origin, &self.sum])
    }
}

impl PeerRule for DAdaptSgd {
    const NAME: &'static str = "d-adaptation sgd";
    type State<E: Real> = DAdaptSgdState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("d-adaptation: lr", self.lr)?;
        PeerError::unless_beta("d-adaptation: momentum", self.momentum)?;
        PeerError::unless_decay("d-adaptation: weight_decay", self.weight_decay)?;
        PeerError::unless_positive("d-adaptation: d0", self.d0)?;
        growth_in_range("d-adaptation: growth", self.growth)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> DAdaptSgdState<E> {
        DAdaptSgdState {
            d: self.d0,
            numerator: 0.0,
            first_norm: None,
            origin: slices::copies(weights),
            sum: slices::zeros(weights),
        }
    }

    fn update<E: Real>(
        &self,
        state: &mut DAdaptSgdState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let norm = || {
            let [square] = slices::sums(weights, gradients, [], |_, g, []| [g * g]);
            square.sqrt()
        };
        let first_norm = state.first_norm.unwrap_or_else(norm);
        slices::finite_sums(facts.step, &[first_norm])?;
        if first_norm == 0.0 {
            return Ok(());
        }
        let step = state.d * self.lr * facts.factor / first_norm;
        let decayed = |w: f64, g: f64| g + self.weight_decay * w;
        let [product, square] = slices::sums(weights, gradients, [&state.sum], |w, g, [s]| {
            let g = decayed(w, g);
            [g * s, (s + step * g) * (s + step * g)]
        });
        let numerator = state.numerator + step * product;
        slices::finite_sums(facts.step, &[numerator, square])?;
        // Without any step there is no estimate.
        let estimate = if square > 0.0 { 2.0 * numerator / square.sqrt() } else { 0.0 };
        let d = grown(state.d, estimate, self.growth);
        slices::finite_sums(facts.step, &[d])?;
        let buffers = [&mut state.sum, &mut state.origin];
        slices::transform(facts.step, weights, gradients, buffers, |_, w, g, [s, origin]| {
            let s = s + step * decayed(w, g);
            (self.momentum * w + (1.0 - self.momentum) * (origin - s), [s, origin])
        })?;
        (state.d, state.numerator, state.first_norm) = (d, numerator, Some(first_norm));
        Ok(())
    }

    /// d, which users of the package watch.
    fn rates<E: Real>(&self, state: &DAdaptSgdState<E>) -> Vec<f64> {
        vec![state.d]
    }
}
