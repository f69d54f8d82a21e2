//! [`ScheduleFreeAdamW`]: AdamW that averages in place of a schedule.

use super::{averaged, moved, Average};
use crate::baselines::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Schedule-free AdamW: as [`ScheduleFreeSgd`](super::ScheduleFreeSgd), along
/// g/(√v̂ + ε) + λ·y with v ← β₂·v + (1 − β₂)·g² and v̂ = v/(1 − β₂ᵗ). β₁ takes the place of β.
///
/// Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, *The road less scheduled*, NeurIPS 2024.
/// The package is `schedulefree`. The model holds y; the weights to use are x:
/// [`Peer::averaged`](crate::baselines::Peer::averaged).
///
/// # Example
/// ```
/// use tlr_models::baselines::{Peer, ScheduleFreeAdamW};
///
/// let mut peer = Peer::new(ScheduleFreeAdamW { lr: 0.1, ..Default::default() })?;
/// let mut y = [3.0_f64];
/// for _ in 0..200 {
///     let g = y;
///     peer.step(&mut [&mut y[..]], &[&g[..]], None)?;
/// }
/// assert!(y[0].abs() < 1.0);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleFreeAdamW {
    /// The rate. Above 0; default 0.0025.
    pub lr: f64,
    /// β₁ in (0, 1) and β₂ in [0, 1). Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// ε, beside the root. Above 0; default 1e-8.
    pub eps: f64,
    /// λ, the weight decay. At least 0; default 0.
    pub weight_decay: f64,
    /// The steps in which the rate grows from 0. Default 0.
    pub warmup_steps: u64,
    /// The power r of a step's number in its weight. At least 0; default 0.
    pub r: f64,
    /// The power p of the largest rate in a step's weight. At least 0; default 2.
    pub lr_power: f64,
}

impl Default for ScheduleFreeAdamW {
    fn default() -> Self {
        Self {
            lr: 0.0025,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            warmup_steps: 0,
            r: 0.0,
            lr_power: 2.0,
        }
    }
}

/// What [`ScheduleFreeAdamW`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleFreeAdamWState<E> {
    average: Average,
    /// z, the base sequence.
    base: Tensors<E>,
    square: Tensors<E>,
}

impl<E> PeerState for ScheduleFreeAdamWState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.base, &self.square])
    }
}

impl PeerRule for ScheduleFreeAdamW {
    const NAME: &'static str = "schedule-free adamw";
    type State<E: Real> = ScheduleFreeAdamWState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("schedule-free: lr", self.lr)?;
        let [beta1, beta2] = self.betas;
        let in_range = beta1 > 0.0 && beta1 < 1.0;
        PeerError::unless(in_range, "schedule-free: beta1", "in (0, 1)", beta1)?;
        PeerError::unless_beta("schedule-free: beta2", beta2)?;
        PeerError::unless_positive("schedule-free: eps", self.eps)?;
        PeerError::unless_decay("schedule-free: weight_decay", self.weight_decay)?;
        PeerError::unless_decay("schedule-free: r", self.r)?;
        PeerError::unless_decay("schedule-free: lr_power", self.lr_power)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> ScheduleFreeAdamWState<E> {
        ScheduleFreeAdamWState {
            average: Average::default(),
            base: slices::copies(weights),
            square: slices::zeros(weights),
        }
    }

    fn update<E: Real>(
        &self,
        state: &mut ScheduleFreeAdamWState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let lr = self.lr * facts.factor;
        let (average, share) = state.average.next(lr, self.warmup_steps, self.r, self.lr_power);
        let [beta1, beta2] = self.betas;
        let bias2 = 1.0 - beta2.powf(average.steps as f64);
        let buffers = [&mut state.base, &mut state.square];
        slices::transform(facts.step, weights, gradients, buffers, |_, y, g, [z, v]| {
            let v = beta2 * v + (1.0 - beta2) * g * g;
            let direction = g / ((v / bias2).sqrt() + self.eps) + self.weight_decay * y;
            let (y, z) = moved(y, z, direction, average.rate, beta1, share);
            (y, [z, v])
        })?;
        state.average = average;
        Ok(())
    }

    fn rates<E: Real>(&self, state: &ScheduleFreeAdamWState<E>) -> Vec<f64> {
        vec![state.average.rate]
    }

    fn averaged<E: Real>(
        &self,
        state: &ScheduleFreeAdamWState<E>,
        weights: &[&mut [E]],
    ) -> Option<Tensors<E>> {
        Some(averaged(weights, &state.base, self.betas[0]))
    }
}
