//! The ways from a rate that is far too small to a useful one.

pub(crate) mod climb;
pub(crate) mod ramp;
pub(crate) mod rounding;
mod samples;

/// The largest growth of a rate at the end of one window: what the paper allows its rule.
pub(crate) const LARGEST_CLIMB: f64 = 100.0;
