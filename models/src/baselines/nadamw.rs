//! [`NAdamW`]: Adam with Nesterov's momentum and decoupled weight decay.

use super::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Adam with Nesterov's momentum and decoupled weight decay. With a
/// [cosine](tlr::Schedule::cosine) it is the one to beat: the strongest baseline of AlgoPerf (Dahl
/// et al., *Benchmarking neural network training algorithms*, 2023).
///
/// μₜ = β₁·(1 − ½·0.96^(t·ψ)), and with m, v and v̂ as Adam's
/// w ← (1 − lr·λ)·w − lr·((1 − μₜ)·g/(1 − Πμ) + μₜ₊₁·m/(1 − Πμ·μₜ₊₁))/(√v̂ + ε).
///
/// Dozat, *Incorporating Nesterov momentum into Adam*, ICLR workshop 2016. PyTorch's
/// `torch.optim.NAdam` with `decoupled_weight_decay`.
///
/// # Example
/// ```
/// use tlr_models::baselines::{NAdamW, Peer};
///
/// let mut peer = Peer::new(NAdamW { lr: 1e-2, ..NAdamW::default() })?;
/// let mut w = [3.0];
/// for _ in 0..300 {
///     let g = w;
///     peer.step(&mut [&mut w[..]], &[&g[..]], None)?;
/// }
/// assert!(w[0] < 1.0);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NAdamW {
    /// The rate. Above 0; default 2e-3.
    pub lr: f64,
    /// β₁ and β₂ in [0, 1). Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// ε, beside the root. Above 0; default 1e-8.
    pub eps: f64,
    /// λ, the weight decay. At least 0; default 0.
    pub weight_decay: f64,
    /// ψ, how soon the momentum is whole. At least 0; default 4e-3.
    pub momentum_decay: f64,
}

impl Default for NAdamW {
    fn default() -> Self {
        let betas = [0.9, 0.999];
        Self { lr: 2e-3, betas, eps: 1e-8, weight_decay: 0.0, momentum_decay: 4e-3 }
    }
}

/// What [`NAdamW`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NAdamWState<E> {
    rate: f64,
    /// Πμ, the product of the momenta of all steps so far.
    product: f64,
    mean: Tensors<E>,
    square: Tensors<E>,
}

impl<E> PeerState for NAdamWState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.mean, &self.square])
    }
}

impl PeerRule for NAdamW {
    const NAME: &'static str = "nadamw";
    type State<E: Real> = NAdamWState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("nadamw: lr", self.lr)?;
        PeerError::unless_beta("nadamw: beta1", self.betas[0])?;
        PeerError::unless_beta("nadamw: beta2", self.betas[1])?;
        PeerError::unless_positive("nadamw: eps", self.eps)?;
        PeerError::unless_decay("nadamw: weight_decay", self.weight_decay)?;
        PeerError::unless_decay("nadamw: momentum_decay", self.momentum_decay)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> NAdamWState<E> {
        let zeros = slices::zeros(weights);
        NAdamWState { rate: self.lr, product: 1.0, mean: zeros.clone(), square: zeros }
    }

    fn update<E: Real>(
        &self,
        state: &mut NAdamWState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let rate = self.lr * facts.factor;
        let [beta1, beta2] = self.betas;
        let steps = facts.step as f64;
        let momentum = |t: f64| beta1 * (1.0 - 0.5 * 0.96_f64.powf(t * self.momentum_decay));
        let (now, next) = (momentum(steps), momentum(steps + 1.0));
        let product = state.product * now;
        let of_gradient = rate * (1.0 - now) / (1.0 - product);
        let of_mean = rate * next / (1.0 - product * next);
        let bias2 = 1.0 - beta2.powf(steps);
        let buffers = [&mut state.mean, &mut state.square];
        slices::transform(facts.step, weights, gradients, buffers, |_, w, g, [m, v]| {
            let m = beta1 * m + (1.0 - beta1) * g;
            let v = beta2 * v + (1.0 - beta2) * g * g;
            let denominator = (v / bias2).sqrt() + self.eps;
            let w = w * (1.0 - rate * self.weight_decay);
            (w - (of_gradient * g + of_mean * m) / denominator, [m, v])
        })?;
        (state.rate, state.product) = (rate, product);
        Ok(())
    }

    fn rates<E: Real>(&self, state: &NAdamWState<E>) -> Vec<f64> {
        vec![state.rate]
    }
}
