//! [`Adam`] and AdamW, PyTorch's form.

use super::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Adam: m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g²,
/// w ← w − lr·m̂/(√v̂ + ε), with m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ).
///
/// Kingma and Ba, *Adam: a method for stochastic optimization*, ICLR 2015. AdamW, with
/// w ← (1 − lr·λ)·w first: Loshchilov and Hutter, *Decoupled weight decay regularization*,
/// ICLR 2019. PyTorch's `torch.optim.Adam` and `AdamW`. It is here, beside [`tlr::optim::Adam`],
/// because [`Mechanic`](super::Mechanic) needs a base rule that knows no model.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Adam, Peer};
///
/// let mut peer = Peer::new(Adam::default())?;
/// let mut w = [3.0];
/// peer.step(&mut [&mut w[..]], &[&[-7.0][..]], None)?;
/// assert!((w[0] - 3.001_f64).abs() < 1e-9); // the first step is of the rate
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// The rate. Above 0; default 1e-3.
    pub lr: f64,
    /// β₁ and β₂ in [0, 1). Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// ε, beside the root. Above 0; default 1e-8.
    pub eps: f64,
    /// λ, the weight decay. At least 0; default 0.
    pub weight_decay: f64,
    /// Whether λ acts on the weights directly and not through the gradient: AdamW. Default false.
    pub decoupled: bool,
}

impl Default for Adam {
    fn default() -> Self {
        let betas = [0.9, 0.999];
        Self { lr: 1e-3, betas, eps: 1e-8, weight_decay: 0.0, decoupled: false }
    }
}

/// What [`Adam`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamState<E> {
    rate: f64,
    mean: Tensors<E>,
    square: Tensors<E>,
}

impl<E> PeerState for AdamState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.mean, &self.square])
    }
}

impl PeerRule for Adam {
    const NAME: &'static str = "adam";
    type State<E: Real> = AdamState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("adam: lr", self.lr)?;
        PeerError::unless_beta("adam: beta1", self.betas[0])?;
        PeerError::unless_beta("adam: beta2", self.betas[1])?;
        PeerError::unless_positive("adam: eps", self.eps)?;
        PeerError::unless_decay("adam: weight_decay", self.weight_decay)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> AdamState<E> {
        let zeros = slices::zeros(weights);
        AdamState { rate: self.lr, mean: zeros.clone(), square: zeros }
    }

    fn update<E: Real>(
        &self,
        state: &mut AdamState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let rate = self.lr * facts.factor;
        let [beta1, beta2] = self.betas;
        let steps = facts.step as f64;
        let (bias1, bias2) = (1.0 - beta1.powf(steps), 1.0 - beta2.powf(steps));
        let (coupled, decoupled) = match self.decoupled {
            false => (self.weight_decay, 0.0),
            true => (0.0, self.weight_decay),
        };
        let buffers = [&mut state.mean, &mut state.square];
        slices::transform(facts.step, weights, gradients, buffers, |_, w, g, [m, v]| {
            let g = g + coupled * w;
            let m = beta1 * m + (1.0 - beta1) * g;
            let v = beta2 * v + (1.0 - beta2) * g * g;
            let denominator = (v / bias2).sqrt() + self.eps;
            (w * (1.0 - rate * decoupled) - rate * (m / bias1) / denominator, [m, v])
        })?;
        state.rate = rate;
        Ok(())
    }

    fn rates<E: Real>(&self, state: &AdamState<E>) -> Vec<f64> {
        vec![state.rate]
    }
}
