//! Mean and standard error of some numbers.

use crate::engine::exact;
use serde::{Deserialize, Serialize};

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

    /// One more, if there is one.
    pub(super) fn extend(&mut self, x: Option<f64>) {
        x.into_iter().for_each(|x| self.push(x));
    }

    /// Whether the mean is below 0 by more than noise: by four standard errors.
    pub(super) fn is_below_zero(&self) -> bool {
        self.mean < -4.0 * self.error()
    }

    /// The samples of both (Chan, Golub and LeVeque, *Updating formulae and a pairwise algorithm for
    /// computing sample variances*, 1979).
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
