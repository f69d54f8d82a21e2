//! Mean, noise and range of the losses of a window.

use crate::engine::{exact, mean::running_mean};
use serde::{Deserialize, Serialize};

/// Mean, noise and range of some losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Losses {
    pub(super) count: u64,
    #[serde(with = "exact")]
    pub(super) mean: f64,
    /// Σ(lᵢ − lᵢ₋₁)², over the losses lᵢ.
    #[serde(with = "exact")]
    squared_differences: f64,
    #[serde(with = "exact")]
    last: f64,
    #[serde(with = "exact")]
    pub(super) min: f64,
    #[serde(with = "exact")]
    pub(super) max: f64,
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            count: 0,
            mean: 0.0,
            squared_differences: 0.0,
            last: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Losses {
    pub(super) fn push(&mut self, loss: f64) {
        if self.count > 0 {
            self.squared_differences += (loss - self.last).powi(2);
        }
        self.last = loss;
        self.count += 1;
        self.mean = running_mean(self.mean, loss, self.count as f64);
        self.min = self.min.min(loss);
        self.max = self.max.max(loss);
    }

    /// Whether these can be figures of finite losses. (The sum of squares may have overflowed.)
    pub(super) fn is_possible(&self) -> bool {
        let Self { count, mean, squared_differences, last, min, max } = self;
        let finite = [mean, last, min, max].into_iter().all(|figure| figure.is_finite());
        match count {
            0 => *self == Self::default(),
            _ => finite && min <= max && *squared_differences >= 0.0,
        }
    }

    /// The standard deviation, from the differences between successive losses (von Neumann,
    /// *Distribution of the ratio of the mean square successive difference to the variance*, 1941),
    /// so that a fall is not taken for noise. 0 for fewer than four losses, which say too little.
    pub(super) fn deviation(&self) -> f64 {
        if self.count < 4 {
            return 0.0;
        }
        let variance = self.squared_differences / (2.0 * (self.count as f64 - 1.0));
        // The sum may have overflowed. What is finite can be multiplied by 0 standard errors.
        variance.sqrt().min(f64::MAX)
    }

    /// The standard error of the mean.
    pub(super) fn standard_error(&self) -> f64 {
        self.deviation() / (self.count.max(1) as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The difference of the first two overflows, and so does the sum of squares. Fails if the mean
    // does as well, or if a sum that has overflowed makes the deviation NaN.
    #[test]
    fn huge_losses_have_a_mean() {
        let of = |all: &[f64]| {
            let mut losses = Losses::default();
            all.iter().for_each(|loss| losses.push(*loss));
            losses
        };
        assert_eq!(of(&[f64::MAX, -f64::MAX]).mean, 0.0);
        assert!(of(&[-1e308, -1e308, 1e308, 1e308]).mean.abs() < 1e293);
        let third = of(&[1.5e308, 1.5e308, -1.5e308]).mean;
        assert!((third - 0.5e308).abs() < 1e293, "{third:e}");
        let huge = of(&[1e308, -1e308, 1e308, -1e308]);
        assert!(huge.is_possible() && huge.squared_differences.is_infinite());
        assert_eq!((huge.deviation(), 0.0 * huge.standard_error()), (f64::MAX, 0.0));
    }
}
