//! [`RATES`]: the range of every rate.

use std::ops::RangeInclusive;

/// Every rate a group can have, whatever the rule answers. The range is wide enough never to matter
/// in training, and it is the reason that a rate cannot vanish or overflow.
///
/// # Example
/// ```
/// use tlr::engine::RATES;
///
/// assert!(RATES.contains(&1e-6) && !RATES.contains(&0.0));
/// ```
pub const RATES: RangeInclusive<f64> = 1e-30..=1e30;
