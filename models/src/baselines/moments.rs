//! What the rules with averages of gradients and of their squares have in common.

/// A weight decay λ that acts through the gradient, as L2, or on the weights directly, as in AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Decay {
    /// What is added to the gradient for each unit of weight.
    pub(super) coupled: f64,
    /// The share of a weight that is taken away for each unit of rate.
    pub(super) decoupled: f64,
}

impl Decay {
    pub(super) fn new(weight_decay: f64, is_decoupled: bool) -> Self {
        match is_decoupled {
            true => Self { coupled: 0.0, decoupled: weight_decay },
            false => Self { coupled: weight_decay, decoupled: 0.0 },
        }
    }
}

/// What Adam's bias correction multiplies the rate of this step by, counted from 1: averages that
/// begin at 0 are too small at first. ε is not corrected.
pub(super) fn bias_correction([beta1, beta2]: [f64; 2], step: u64) -> f64 {
    let steps = step as f64;
    (1.0 - beta2.powf(steps)).sqrt() / (1.0 - beta1.powf(steps))
}
