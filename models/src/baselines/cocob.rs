//! [`Cocob`]: coin betting.

use super::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Coin betting, COCOB-Backprop: each weight is a gambler who bets on its gradient.
///
/// L ← max(L, |g|), θ ← θ − g, G ← G + |g|, R ← max(R − g·(w − w₀), 0),
/// w ← w₀ + θ·(R + L)/(L·max(G + L, α·L)), element by element, with g + λ·w for g.
///
/// Orabona and Tommasi, *Training deep networks without learning rates through coin betting*,
/// NeurIPS 2017. The package is `parameterfree`. Deviation: its ε may be 0, which is 0/0 if a
/// gradient is; here it is above 0. There is no rate, so [`Peer::rates`](super::Peer::rates) is
/// empty.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Cocob, Peer};
///
/// let mut peer = Peer::new(Cocob::default())?;
/// let mut w = [3.0_f64];
/// for _ in 0..400 {
///     let g = w;
///     peer.step(&mut [&mut w[..]], &[&g[..]], None)?;
/// }
/// assert!(w[0].abs() < 1.0);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Cocob {
    /// α, about the steps of a warm-up. At least 0; default 100.
    pub alpha: f64,
    /// ε, L before the first step. Above 0; default 1e-8.
    pub eps: f64,
    /// λ, the weight decay, as L2. At least 0; default 0.
    pub weight_decay: f64,
}

impl Default for Cocob {
    fn default() -> Self {
        Self { alpha: 100.0, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// What [`Cocob`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CocobState<E> {
    /// w₀, the weights before the first step.
    origin: Tensors<E>,
    /// θ, the sum of the negative gradients.
    sum: Tensors<E>,
    /// G, the sum of the magnitudes of all gradients.
    magnitudes: Tensors<E>,
    /// L, the largest magnitude of a gradient so far.
    largest: Tensors<E>,
    /// R, what the gambler has won so far.
    reward: Tensors<E>,
}

impl<E> PeerState for CocobState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.origin, &self.sum, &self.magnitudes, &self.largest, &self.reward])
    }
}

impl PeerRule for Cocob {
    const NAME: &'static str = "cocob";
    type State<E: Real> = CocobState<E>;

    fn is_scheduled(&self) -> bool {
        false
    }

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_decay("cocob: alpha", self.alpha)?;
        PeerError::unless_positive("cocob: eps", self.eps)?;
        PeerError::unless_decay("cocob: weight_decay", self.weight_decay)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> CocobState<E> {
        let zeros = slices::zeros(weights);
        let eps = weights.iter().map(|tensor| vec![E::round(self.eps); tensor.len()]).collect();
        CocobState {
            origin: slices::copies(weights),
            sum: zeros.clone(),
            magnitudes: zeros.clone(),
            largest: eps,
            reward: zeros,
        }
    }

    fn update<E: Real>(
        &self,
        state: &mut CocobState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let CocobState { origin, sum, magnitudes, largest, reward } = state;
        let buffers = [origin, sum, magnitudes, largest, reward];
        slices::transform(facts.step, weights, gradients, buffers, |_, w, g, own| {
            let [origin, sum, magnitudes, largest, reward] = own;
            let g = g + self.weight_decay * w;
            let largest = largest.max(g.abs());
            let (sum, magnitudes) = (sum - g, magnitudes + g.abs());
            let reward = (reward - g * (w - origin)).max(0.0);
            let denominator = (magnitudes + largest).max(self.alpha * largest) * largest;
            let w = origin + (reward + largest) * sum / denominator;
            (w, [origin, sum, magnitudes, largest, reward])
        })
    }

    fn rates<E: Real>(&self, _state: &CocobState<E>) -> Vec<f64> {
        Vec::new()
    }
}
