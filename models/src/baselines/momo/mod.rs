//! [`Momo`] and [`MomoAdam`]: momentum with a model of the loss.

mod adam;
mod sgd;

pub use adam::{MomoAdam, MomoAdamState};
pub use sgd::{Momo, MomoState};

use serde::{Deserialize, Serialize};

/// The averages over the batches' losses and gradients that both rules take a step from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Averages {
    /// f̄, the average of the losses.
    loss: f64,
    /// γ̄, the average of ⟨g,w⟩.
    product: f64,
}

impl Averages {
    fn all(&self) -> [f64; 2] {
        [self.loss, self.product]
    }
}

/// A bound from below on the loss, and whether it is estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound {
    first: f64,
    is_estimated: bool,
}

/// What a step is computed from.
struct Model {
    averages: Averages,
    /// ⟨d,w⟩, with d the averaged gradient.
    dot: f64,
    /// ‖d‖², in the norm that the rule steps by.
    norm: f64,
    /// The sum of the averages' weights.
    total: f64,
    lr: f64,
    weight_decay: f64,
}

impl Model {
    /// The step size τ, and the bound after it.
    fn step(&self, mut lower: f64, bound: Bound) -> (f64, f64) {
        let Self { averages: Averages { loss, product }, dot, norm, total, lr, .. } = *self;
        if norm == 0.0 {
            return (0.0, lower);
        }
        let decay = 1.0 + lr * self.weight_decay;
        if bound.is_estimated {
            let cap = decay * loss + dot - decay * product;
            if cap < decay * total * lower {
                lower = (cap / (2.0 * decay * total)).max(bound.first);
            }
        }
        let above = decay * (loss - total * lower) + dot - decay * product;
        let tau = (above.max(0.0) / norm).min(lr / total);
        if bound.is_estimated {
            let ahead = loss + dot - product;
            lower = ((ahead - 0.5 * tau * norm) / total).max(bound.first);
        }
        (tau, lower)
    }
}
