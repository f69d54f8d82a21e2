//! [`DAdaptSgd`] and [`DAdaptAdam`]: D-Adaptation.

mod adam;
mod sgd;

pub use adam::{DAdaptAdam, DAdaptAdamState};
pub use sgd::{DAdaptSgd, DAdaptSgdState};

use super::PeerError;

/// Refuses a bound on the growth of d that is not above 1.
pub(super) fn growth_in_range(what: &'static str, growth: Option<f64>) -> Result<(), PeerError> {
    let growth = growth.unwrap_or(2.0);
    PeerError::unless(growth > 1.0 && growth.is_finite(), what, "finite and above 1", growth)
}

/// d after a new estimate: it never falls, and grows by no more than the bound.
fn grown(d: f64, estimate: f64, growth: Option<f64>) -> f64 {
    d.max(growth.map_or(estimate, |growth| estimate.min(d * growth)))
}
