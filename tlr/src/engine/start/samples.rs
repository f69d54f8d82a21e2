//! Mean and standard error of some numbers.

use crate::engine::exact;
use serde::{Deserialize, Serialize};

/// A mean counts as below 0 if it is this many standard errors below.
const KNOWN_ERRORS: f64 = 4.0;

/// Mean and variance of some numbers, by Welford's method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Samples {
    pub(super) count: u64,
    #[serde(with = "exact")]
    pub(super) mean: f64,
    /// Σ(x − mean)².
    #[serde(with = "exact")]
    squares: f64,
}

impl Samples {
    pub(super) fn push(&mut self, x: f64) {
        self.count += 1;
        let off = x - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (x - self.mean);
    }

    /// Adds one more sample, if there is one.
    pub(super) fn extend(&mut self, x: Option<f64>) {
        x.into_iter().for_each(|x| self.push(x));
    }

    /// Whether the mean is below 0 by more than noise: see [`KNOWN_ERRORS`].
    pub(super) fn is_below_zero(&self) -> bool {
        self.mean < -KNOWN_ERRORS * self.error()
    }

    /// Adds all samples of `other` (Chan, Golub and LeVeque, *Updating formulae and a pairwise
    /// algorithm for computing sample variances*, 1979).
    pub(super) fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        if other.count == 0 {
            return;
        }
        let off = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        self.squares += other.squares + off * off * self.count as f64 * share;
        self.mean += off * share;
        self.count = count;
    }

    /// The standard deviation. 0 for fewer than two.
    pub(super) fn deviation(&self) -> f64 {
        (self.squares / (self.count.max(2) - 1) as f64).sqrt()
    }

    /// The standard error of the mean.
    pub(super) fn error(&self) -> f64 {
        self.deviation() / (self.count.max(1) as f64).sqrt()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::engine::start) fn of(samples: &[f64]) -> Samples {
        let mut all = Samples::default();
        samples.iter().for_each(|x| all.push(*x));
        all
    }

    // By hand: 1, 2, 3, 6 have a mean of 3, and squares of 14. Fails with another divisor, or where
    // two halves are not the whole.
    #[test]
    fn mean_deviation_and_error() {
        let whole = of(&[1.0, 2.0, 3.0, 6.0]);
        assert_eq!((whole.count, whole.mean), (4, 3.0));
        assert!((whole.deviation() - (14.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert!((whole.error() - (14.0_f64 / 12.0).sqrt()).abs() < 1e-15);
        assert_eq!((of(&[7.0]).deviation(), of(&[]).error()), (0.0, 0.0));
        for split in 0..=4 {
            let (first, rest) = [1.0, 2.0, 3.0, 6.0].split_at(split);
            let mut both = of(first);
            both.merge(&of(rest));
            assert_eq!(both.count, 4);
            assert!((both.mean - 3.0).abs() < 1e-15 && (both.squares - 14.0).abs() < 1e-14);
        }
        let mut one = of(&[]);
        one.extend(None);
        one.extend(Some(2.0));
        assert_eq!((one.count, one.mean), (1, 2.0));
    }

    // −4 and −6 have a mean of −5 and an error of 1: five errors below 0. −3 and −5 are four.
    #[test]
    fn below_zero_by_four_errors() {
        assert!(of(&[-4.0, -6.0]).is_below_zero() && !of(&[4.0, 6.0]).is_below_zero());
        assert!(!of(&[-3.0, -5.0]).is_below_zero() && !of(&[]).is_below_zero());
    }
}
