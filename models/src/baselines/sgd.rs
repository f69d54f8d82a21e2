//! [`Sgd`]: stochastic gradient descent with momentum, PyTorch's form.

use super::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Stochastic gradient descent: v ← μ·v + g + λ·w, w ← w − lr·v, with v = g at the first step.
///
/// With Nesterov's momentum w ← w − lr·(g + λ·w + μ·v). PyTorch's `torch.optim.SGD`. With a
/// [multistep schedule](tlr::Schedule::multi_step) it is the paper's baseline, and with a
/// [cosine](tlr::Schedule::cosine) and momentum one of those to beat. It is here, beside
/// [`tlr::optim::Sgd`], because [`Mechanic`](super::Mechanic) needs a base rule that knows no
/// model.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Peer, Sgd};
///
/// let mut peer = Peer::new(Sgd { lr: 0.5, ..Sgd::default() })?;
/// let mut w = [3.0_f32];
/// peer.step(&mut [&mut w[..]], &[&[2.0][..]], None)?;
/// assert_eq!(w, [2.0]);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    /// The rate. Above 0; default 0.1.
    pub lr: f64,
    /// μ in [0, 1). Default 0.
    pub momentum: f64,
    /// Whether the momentum is Nesterov's. Default false.
    pub nesterov: bool,
    /// λ, the weight decay, as L2. At least 0; default 0.
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { lr: 0.1, momentum: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

/// What [`Sgd`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SgdState<E> {
    rate: f64,
    velocity: Tensors<E>,
}

impl<E> PeerState for SgdState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.velocity])
    }
}

impl PeerRule for Sgd {
    const NAME: &'static str = "sgd";
    type State<E: Real> = SgdState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("sgd: lr", self.lr)?;
        PeerError::unless_beta("sgd: momentum", self.momentum)?;
        PeerError::unless_decay("sgd: weight_decay", self.weight_decay)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> SgdState<E> {
        SgdState { rate: self.lr, velocity: slices::zeros(weights) }
    }

    fn update<E: Real>(
        &self,
        state: &mut SgdState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let rate = self.lr * facts.factor;
        let velocity = &mut state.velocity;
        slices::transform(facts.step, weights, gradients, [velocity], |_, w, g, [v]| {
            let g = g + self.weight_decay * w;
            let v = self.momentum * v + g;
            let direction = if self.nesterov { g + self.momentum * v } else { v };
            (w - rate * direction, [v])
        })?;
        state.rate = rate;
        Ok(())
    }

    fn rates<E: Real>(&self, state: &SgdState<E>) -> Vec<f64> {
        vec![state.rate]
    }
}
