//! [`Mechanic`]: a scale for the updates of any rule.

use super::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Mechanic: w = w₀ + S·Δ, where Δ is the sum of the updates of a base rule, and the scale S is
/// learned by coin betting.
///
/// The base moves w to ŵ. h = ⟨Δ, g + λ·S·‖g‖/(‖ŵ‖ + ε)·ŵ⟩, and Δ ← Δ + ŵ − w. For each β,
/// m ← max(β·m, |h|), v ← β²·v + h², r ← max(β·r − s·h, 0), s ← (m·s₀/n + r)/(√v + ε), and S is the
/// sum of the n values s. m begins at 1e-6.
///
/// Cutkosky, Defazio and Mehta, *Mechanic: a learning rate tuner*, NeurIPS 2023. The package is
/// `mechanic-pytorch`.
///
/// By default Δ is (w − w₀)/(S + ε), as in the package. In f32, the part of Δ that is below a
/// weight's rounding is then lost. At scales of about 1e-8 that is all of Δ. `store_delta` keeps Δ
/// apart.
///
/// # Cost
/// A step copies the weights and the base's state.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Mechanic, Peer, Sgd};
///
/// let mut peer = Peer::new(Mechanic::around(Sgd { lr: 0.01, ..Sgd::default() }))?;
/// let mut w = [3.0];
/// for _ in 0..100 {
///     let g = w;
///     peer.step(&mut [&mut w[..]], &[&g[..]], None)?;
/// }
/// assert!(peer.rates()[0] > 1e-3); // S, from 1e-8
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mechanic<B> {
    /// The base rule, with the rate that is usual for it.
    pub base: B,
    /// λ. At least 0; default 0.01.
    pub s_decay: f64,
    /// The values of β: each in [0, 1], at least one. Default 0.9, 0.99 and so on up to 0.999999.
    pub betas: Vec<f64>,
    /// s₀. Above 0; default 1e-8.
    pub s_init: f64,
    /// ε. Above 0; default 1e-8.
    pub eps: f64,
    /// Whether Δ is kept, one more buffer. Default false.
    pub store_delta: bool,
}

impl<B> Mechanic<B> {
    /// The package's defaults around this base.
    ///
    /// Example: [`Mechanic`].
    pub fn around(base: B) -> Self {
        Self {
            base,
            s_decay: 0.01,
            betas: vec![0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999],
            s_init: 1e-8,
            eps: 1e-8,
            store_delta: false,
        }
    }
}

/// What [`Mechanic`] remembers, with `S` the base's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MechanicState<E, S> {
    base: S,
    tuners: Vec<Tuner>,
    /// w₀, the weights before the first step.
    origin: Tensors<E>,
    /// Δ, the sum of the base's updates. Empty unless it is kept.
    delta: Tensors<E>,
}

impl<E, S: PeerState> PeerState for MechanicState<E, S> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        let mut buffers = self.base.buffers();
        buffers.extend(slices::lens([&self.origin, &self.delta]));
        buffers
    }

    fn parts(&self) -> usize {
        self.base.parts() + self.tuners.len()
    }
}

/// What is remembered for one β: the state of one bettor on the scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tuner {
    beta: f64,
    s: f64,
    /// m, the largest |h|, which decays by β.
    largest: f64,
    /// v, the sum of h², which decays by β².
    squares: f64,
    /// r, what the bettor has won.
    reward: f64,
}

/// m before the first step.
const FIRST_LARGEST: f64 = 1e-6;

fn scale(tuners: &[Tuner]) -> f64 {
    tuners.iter().map(|tuner| tuner.s).sum()
}

impl<B: PeerRule> PeerRule for Mechanic<B> {
    const NAME: &'static str = "mechanic";
    type State<E: Real> = MechanicState<E, B::State<E>>;

    fn is_scheduled(&self) -> bool {
        self.base.is_scheduled()
    }

    fn needs_trials(&self) -> bool {
        self.base.needs_trials()
    }

    fn validate(&self) -> Result<(), PeerError> {
        self.base.validate()?;
        PeerError::unless_decay("mechanic: s_decay", self.s_decay)?;
        let count = self.betas.len();
        PeerError::unless(count > 0, "mechanic: betas", "at least one", count as f64)?;
        for &beta in &self.betas {
            let in_range = (0.0..=1.0).contains(&beta);
            PeerError::unless(in_range, "mechanic: beta", "in [0, 1]", beta)?;
        }
        PeerError::unless_positive("mechanic: s_init", self.s_init)?;
        PeerError::unless_positive("mechanic: eps", self.eps)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> Self::State<E> {
        let tuner =
            |&beta| Tuner { beta, s: 0.0, largest: FIRST_LARGEST, squares: 0.0, reward: 0.0 };
        let delta = if self.store_delta { slices::zeros(weights) } else { Vec::new() };
        MechanicState {
            base: self.base.start(weights),
            tuners: self.betas.iter().map(tuner).collect(),
            origin: slices::copies(weights),
            delta,
        }
    }

    fn update<E: Real>(
        &self,
        state: &mut Self::State<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let step = facts.step;
        let mut base = state.base.clone();
        let mut ahead = slices::copies(weights);
        let mut lent: Vec<_> = ahead.iter_mut().map(Vec::as_mut_slice).collect();
        self.base.update(&mut base, &mut lent, gradients, facts)?;

        let before = scale(&state.tuners);
        let delta_of = |w: f64, origin: f64, stored: f64| match self.store_delta {
            true => stored,
            false => (w - origin) / (before + self.eps),
        };
        let buffers = [&state.origin, &state.delta, &ahead];
        let [of_gradient, of_ahead, squares, ahead_squares] =
            slices::sums(weights, gradients, buffers, |w, g, [origin, stored, ahead]| {
                let delta = delta_of(w, origin, stored);
                [delta * g, delta * ahead, g * g, ahead * ahead]
            });
        let decay = self.s_decay * before * squares.sqrt() / (ahead_squares.sqrt() + self.eps);
        let product = of_gradient + decay * of_ahead;
        slices::finite_sums(step, &[product, product * product])?;
        let mut tuners = state.tuners.clone();
        let share = self.s_init / tuners.len() as f64;
        for tuner in &mut tuners {
            tuner.largest = (tuner.beta * tuner.largest).max(product.abs());
            tuner.squares = tuner.beta * tuner.beta * tuner.squares + product * product;
            tuner.reward = (tuner.beta * tuner.reward - tuner.s * product).max(0.0);
            let wealth = tuner.largest * share + tuner.reward;
            tuner.s = wealth / (tuner.squares.sqrt() + self.eps);
        }
        let after = scale(&tuners);
        slices::finite_sums(step, &[after])?;

        let buffers = [&mut state.origin, &mut state.delta, &mut ahead];
        slices::transform(step, weights, gradients, buffers, |_, w, _, own| {
            let [origin, stored, ahead] = own;
            let delta = delta_of(w, origin, stored) + (ahead - w);
            let stored = if self.store_delta { delta } else { 0.0 };
            (origin + delta * after.max(0.0), [origin, stored, ahead])
        })?;
        (state.base, state.tuners) = (base, tuners);
        Ok(())
    }

    /// S, the sum of the bettors' scales.
    fn rates<E: Real>(&self, state: &Self::State<E>) -> Vec<f64> {
        vec![scale(&state.tuners)]
    }

    /// The base's average, if it has one.
    fn averaged<E: Real>(
        &self,
        state: &Self::State<E>,
        weights: &[&mut [E]],
    ) -> Option<Tensors<E>> {
        self.base.averaged(&state.base, weights)
    }
}
