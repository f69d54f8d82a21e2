//! What bounds the step sizes of [`Sls`](super::Sls) and [`Sps`](super::Sps).

use super::PeerError;

/// A gradient below this norm counts as 0.
pub(super) const LEAST_NORM: f64 = 1e-8;

/// How a step size may grow from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    /// γ, what it may grow by in an epoch.
    pub(super) growth: f64,
    /// Batches in an epoch.
    pub(super) batches: u64,
    /// The step size before the first step.
    pub(super) first: f64,
}

impl Growth {
    /// Checks the fields, which have these names.
    pub(super) fn validate(self, names: [&'static str; 3]) -> Result<(), PeerError> {
        let Self { growth, batches, first } = self;
        let [of_growth, of_batches, of_first] = names;
        let grows = growth >= 1.0 && growth.is_finite();
        PeerError::unless(grows, of_growth, "finite and at least 1", growth)?;
        PeerError::unless(batches > 0, of_batches, "at least 1", batches as f64)?;
        PeerError::unless_positive(of_first, first)
    }

    /// The largest step size after one of `rate`.
    pub(super) fn after(self, rate: f64) -> f64 {
        rate * self.growth.powf(1.0 / self.batches as f64)
    }
}
