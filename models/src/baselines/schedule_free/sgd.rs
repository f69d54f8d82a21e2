//! [`ScheduleFreeSgd`]: SGD that averages in place of a schedule.

use super::{averaged, moved, Average};
use crate::baselines::{slices, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Schedule-free SGD: z ← z − lr·g, x ← (1 − c)·x + c·z, y = (1 − β)·z + β·x, with g the gradient
/// at y and λ·y added to it. c weighs each step by tʳ times the largest rate so far to the power p.
///
/// Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, *The road less scheduled*, NeurIPS 2024.
/// The package is `schedulefree`. The model holds y; the weights to use are x:
/// [`Peer::averaged`](crate::baselines::Peer::averaged).
///
/// # Example
/// ```
/// use tlr_models::baselines::{Peer, ScheduleFreeSgd};
///
/// let mut peer = Peer::new(ScheduleFreeSgd::default())?;
/// let mut y = [3.0_f64];
/// for _ in 0..100 {
///     let g = y;
///     peer.step(&mut [&mut y[..]], &[&g[..]], None)?;
/// }
/// let x = peer.averaged(&[&mut y[..]]);
/// assert!(x.is_some_and(|x| x[0][0].abs() < 0.1));
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleFreeSgd {
    /// The rate. Above 0; default 1.
    pub lr: f64,
    /// β in (0, 1). Default 0.9.
    pub momentum: f64,
    /// λ, the weight decay, as L2. At least 0; default 0.
    pub weight_decay: f64,
    /// The steps in which the rate grows from 0. Default 0.
    pub warmup_steps: u64,
    /// The power r of a step's number in its weight. At least 0; default 0.
    pub r: f64,
    /// The power p of the largest rate in a step's weight. At least 0; default 2.
    pub lr_power: f64,
}

impl Default for ScheduleFreeSgd {
    fn default() -> Self {
        Self { lr: 1.0, momentum: 0.9, weight_decay: 0.0, warmup_steps: 0, r: 0.0, lr_power: 2.0 }
    }
}

/// What [`ScheduleFreeSgd`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleFreeSgdState<E> {
    average: Average,
    /// z, the base sequence.
    base: Tensors<E>,
}

impl<E> PeerState for ScheduleFreeSgdState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.base])
    }
}

impl PeerRule for ScheduleFreeSgd {
    const NAME: &'static str = "schedule-free sgd";
    type State<E: Real> = ScheduleFreeSgdState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("schedule-free: lr", self.lr)?;
        let momentum = self.momentum;
        let in_range = momentum > 0.0 && momentum < 1.0;
        PeerError::unless(in_range, "schedule-free: momentum", "in (0, 1)", momentum)?;
        PeerError::unless_decay("schedule-free: weight_decay", self.weight_decay)?;
        PeerError::unless_decay("schedule-free: r", self.r)?;
        PeerError::unless_decay("schedule-free: lr_power", self.lr_power)
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> ScheduleFreeSgdState<E> {
        ScheduleFreeSgdState { average: Average::default(), base: slices::copies(weights) }
    }

    fn update<E: Real>(
        &self,
        state: &mut ScheduleFreeSgdState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let lr = self.lr * facts.factor;
        let (average, share) = state.average.next(lr, self.warmup_steps, self.r, self.lr_power);
        let base = [&mut state.base];
        slices::transform(facts.step, weights, gradients, base, |_, y, g, [z]| {
            let g = g + self.weight_decay * y;
            let (y, z) = moved(y, z, g, average.rate, self.momentum, share);
            (y, [z])
        })?;
        state.average = average;
        Ok(())
    }

    fn rates<E: Real>(&self, state: &ScheduleFreeSgdState<E>) -> Vec<f64> {
        vec![state.average.rate]
    }

    fn averaged<E: Real>(
        &self,
        state: &ScheduleFreeSgdState<E>,
        weights: &[&mut [E]],
    ) -> Option<Tensors<E>> {
        Some(averaged(weights, &state.base, self.momentum))
    }
}
