//! [`ScheduleFreeSgd`] and [`ScheduleFreeAdamW`].
//!
//! Both keep the base sequence z beside the weights y that are trained. The weights to use are x,
//! with y = (1 − β)·z + β·x. The package puts x in the place of y, and back, at a call of
//! [`eval`] and to [`train`]. Here the model always holds y, and [`Peer::averaged`] has x: there
//! is no mode that could be forgotten before a test, a step or a checkpoint.
//!
//! [`eval`]: https://github.com/facebookresearch/schedule_free
//! [`train`]: https://github.com/facebookresearch/schedule_free
//! [`Peer::averaged`]: super::Peer::averaged

mod adamw;
mod sgd;

pub use adamw::{ScheduleFreeAdamW, ScheduleFreeAdamWState};
pub use sgd::{ScheduleFreeSgd, ScheduleFreeSgdState};

use super::{Figures, Real, Tensors};
use serde::{Deserialize, Serialize};

/// How far the average of the base sequence has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Average {
    /// The sum of the weights of all steps in the average.
    weights: f64,
    /// The largest rate so far.
    largest_rate: f64,
    /// The rate of the last step.
    rate: f64,
}

impl Average {
    fn figures(&self) -> Figures {
        let at_least_0 = vec![self.weights, self.largest_rate, self.rate];
        Figures { at_least_0, ..Figures::default() }
    }

    /// The state after this step, counted from 1, and the step's share in the average.
    fn next(self, step: u64, lr: f64, warmup_steps: u64, r: f64, lr_power: f64) -> (Self, f64) {
        let warm = match step <= warmup_steps {
            true => step as f64 / warmup_steps as f64,
            false => 1.0,
        };
        let rate = lr * warm;
        let largest_rate = self.largest_rate.max(rate);
        let weight = (step as f64).powf(r) * largest_rate.powf(lr_power);
        let weights = self.weights + weight;
        let share = if weights > 0.0 { weight / weights } else { 0.0 };
        (Self { weights, largest_rate, rate }, share)
    }
}

/// y and z after a step along `direction`. y is computed directly, without x.
fn moved(y: f64, z: f64, direction: f64, rate: f64, beta: f64, share: f64) -> (f64, f64) {
    let y = y + share * (z - y) + rate * (beta * (1.0 - share) - 1.0) * direction;
    (y, z - rate * direction)
}

/// x, from y and z.
fn averaged<E: Real>(weights: &[&mut [E]], base: &Tensors<E>, beta: f64) -> Tensors<E> {
    let tensors = weights.iter().zip(base);
    let x = |y: &E, z: &E| E::round(y.wide() + (z.wide() - y.wide()) * (1.0 - 1.0 / beta));
    tensors.map(|(y, z)| y.iter().zip(z).map(|(y, z)| x(y, z)).collect()).collect()
}
