//! What can go wrong in a peer's step.

use dfdx::prelude::CpuError;
use tlr::Error;

/// Why a peer was not made, made no step, or could not be resumed. Weights and state are as they
/// were.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// A setting is outside its range.
    #[error("{what} must be {range}, not {value}")]
    OutOfRange {
        /// The setting, such as `prodigy: d0`.
        what: &'static str,
        /// The values it may have.
        range: &'static str,
        /// The value it was given.
        value: f64,
    },
    /// The rule has no rate that a schedule could multiply.
    #[error("{rule} has no rate that a schedule could multiply: leave the schedule out")]
    NoSchedule {
        /// The rule's name.
        rule: &'static str,
    },
    /// Weights and gradients are not of the same number or lengths, or not those of the first step.
    #[error("{what} of {found} where {expected} are due: weights, gradients and state must match")]
    Shapes {
        /// What does not match.
        what: &'static str,
        /// What was given.
        found: usize,
        /// What it should have been.
        expected: usize,
    },
    /// The rule needs the batch's loss, and got none.
    #[error("{rule} needs the loss of each batch, and got none")]
    NoLoss {
        /// The rule's name.
        rule: &'static str,
    },
    /// The rule needs losses at trial weights: take `step_with`.
    #[error("{rule} needs the batch's loss at trial weights: make its steps by `step_with`")]
    NoTrials {
        /// The rule's name.
        rule: &'static str,
    },
    /// A loss is NaN or infinite.
    #[error("the loss is {loss} at step {step}: nothing was updated")]
    NonFiniteLoss {
        /// The step, counted from 1.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A gradient is NaN or infinite, or the step would leave the finite numbers.
    #[error("{what} would not be finite at step {step}: nothing was updated")]
    NonFinite {
        /// The gradient, the weights, or the rule's sums.
        what: &'static str,
        /// The step, counted from 1.
        step: u64,
    },
    /// A saved state is of another rule, or of other settings.
    #[error("the saved state is of {saved}, and this is {here}")]
    AnotherRule {
        /// Name and settings of the rule that was saved.
        saved: String,
        /// Name and settings of the rule that was to take it over.
        here: String,
    },
    /// The model is refused, or a checkpoint of it, as by a [`Trainer`](tlr::Trainer).
    #[error(transparent)]
    Model(#[from] Error),
    /// The device has failed at the gradients.
    #[error("device: {0}")]
    Device(#[source] CpuError),
    /// The loss at trial weights could not be computed.
    #[error("the loss at trial weights: {0}")]
    Trial(String),
}

/// Compares the texts: the errors of devices cannot be compared.
impl PartialEq for PeerError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl PeerError {
    /// `Ok` if `holds`; otherwise the error that says in which range `value` should be.
    pub(super) fn unless(
        holds: bool,
        what: &'static str,
        range: &'static str,
        value: f64,
    ) -> Result<(), Self> {
        if holds {
            Ok(())
        } else {
            Err(Self::OutOfRange { what, range, value })
        }
    }

    /// Checks that `value` is finite and above 0.
    pub(super) fn unless_positive(what: &'static str, value: f64) -> Result<(), Self> {
        Self::unless(value > 0.0 && value.is_finite(), what, "finite and above 0", value)
    }

    /// Checks that `value` is finite and at least 0.
    pub(super) fn unless_decay(what: &'static str, value: f64) -> Result<(), Self> {
        Self::unless(value >= 0.0 && value.is_finite(), what, "finite and at least 0", value)
    }

    /// Checks that `value` is in [0, 1), so that an average by it forgets.
    pub(super) fn unless_beta(what: &'static str, value: f64) -> Result<(), Self> {
        Self::unless((0.0..1.0).contains(&value), what, "in [0, 1)", value)
    }
}
