//! A mean that does not overflow where its sum would.

/// The mean of some values and one more, from the `mean` of those so far. The `value` is one
/// part in `parts` of them all: of n values without weights it is one in n. What is not finite
/// makes the mean so.
pub(crate) fn running_mean(mean: f64, value: f64, parts: f64) -> f64 {
    if !(mean.is_finite() && value.is_finite()) {
        return mean + value;
    }
    let difference = value - mean;
    // The difference of two huge numbers may overflow, although their mean does not.
    match difference.is_finite() {
        true => mean + difference / parts,
        false => mean - mean / parts + value / parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_stays_so() {
        let of = |all: &[f64]| {
            let mean = |mean, (before, value): (usize, &f64)| {
                running_mean(mean, *value, before as f64 + 1.0)
            };
            all.iter().enumerate().fold(0.0, mean)
        };
        assert_eq!(of(&[1.0, 2.0, 6.0]), 3.0);
        assert_eq!(of(&[f64::MAX, -f64::MAX]), 0.0);
        assert_eq!(of(&[f64::INFINITY]), f64::INFINITY);
        assert_eq!(of(&[1.0, f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(of(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan() && of(&[f64::NAN, 1.0]).is_nan());
    }
}
