//! [`RmsProp`]: PyTorch's form.

use super::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// RMSprop: v ← α·v + (1 − α)·g², b ← μ·b + g/(√v + ε), w ← w − lr·b, with g + λ·w for g.
///
/// Tieleman and Hinton, *Lecture 6.5*, Coursera 2012. PyTorch's `torch.optim.RMSprop`, which the
/// paper compares with. [`tlr::optim::RMSprop`] is dfdx's form: its v starts at 1, and its ε is
/// under the root.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Peer, RmsProp};
///
/// let mut peer = Peer::new(RmsProp::default())?;
/// let mut w = [3.0];
/// peer.step(&mut [&mut w[..]], &[&[7.0][..]], None)?;
/// assert!((w[0] - 2.9_f64).abs() < 1e-6); // 0.01·g/√(0.01·g²)
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp {
    /// The rate. Above 0; default 0.01.
    pub lr: f64,
    /// α in [0, 1). Default 0.99.
    pub alpha: f64,
    /// ε, beside the root. Above 0; default 1e-8.
    pub eps: f64,
    /// μ in [0, 1). Default 0.
    pub momentum: f64,
    /// λ, the weight decay, as L2. At least 0; default 0.
    pub weight_decay: f64,
}

impl Default for RmsProp {
    fn default() -> Self {
        Self { lr: 0.01, alpha: 0.99, eps: 1e-8, momentum: 0.0, weight_decay: 0.0 }
    }
}

/// What [`RmsProp`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsPropState<E> {
    rate: f64,
    square: Tensors<E>,
    velocity: Tensors<E>,
}

impl<E> PeerState for RmsPropState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.square, &self.velocity])
    }
}

impl PeerRule for RmsProp {
    const NAME: &'static str = "rmsprop";
    type State<E: Real> = RmsPropState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("rmsprop: lr", self.lr)?;
        PeerError::unless_beta("rmsprop: alpha", self.alpha)?;
        PeerError::unless_positive("rmsprop: eps", self.eps)?;
        PeerError::unless_beta("rmsprop: momentum", self.momentum)?;
        PeerError::unless_decay("rmsprop: weight_decay", self.weight_decay)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> RmsPropState<E> {
        let zeros = slices::zeros(weights);
        RmsPropState { rate: self.lr, square: zeros.clone(), velocity: zeros }
    }

    fn update<E: Real>(
        &self,
        state: &mut RmsPropState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let rate = self.lr * facts.factor;
        let buffers = [&mut state.square, &mut state.velocity];
        slices::transform(facts.step, weights, gradients, buffers, |_, w, g, [v, b]| {
            let g = g + self.weight_decay * w;
            let v = self.alpha * v + (1.0 - self.alpha) * g * g;
            let b = self.momentum * b + g / (v.sqrt() + self.eps);
            (w - rate * b, [v, b])
        })?;
        state.rate = rate;
        Ok(())
    }

    fn rates<E: Real>(&self, state: &RmsPropState<E>) -> Vec<f64> {
        vec![state.rate]
    }
}
