//! Rates so small that steps are lost in rounding. See
//! [`Config::climb`](crate::engine::Config::climb).

use super::LARGEST_CLIMB;

/// A raised rate is to move the weights in a window by this fraction of their norm.
const AIM: f64 = 1e-3;
/// A smaller factor is not worth a window.
const WORTH_IT: f64 = 2.0;

/// How far the weights of one group can move by rounding alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounding {
    /// ‖w‖.
    weights: f64,
    /// √K·ε‖w‖/2: what K roundings add up to, each in a random direction.
    noise: f64,
}

impl Rounding {
    /// For a window of `steps` steps, weights of this norm, and numbers whose spacing at 1 is
    /// `epsilon`.
    pub(crate) fn new(weights: f64, steps: usize, epsilon: f64) -> Self {
        Self { weights, noise: (steps as f64).sqrt() * epsilon / 2.0 * weights }
    }

    /// The factor to raise a rate by if its window has moved the weights by `moved`. None if that
    /// is more than rounding explains. The new rate moves the weights by [`AIM`] of their norm, or
    /// by less if that is more than a rate may climb at once. Deviation from the paper, which has
    /// no raise.
    pub(crate) fn raise(self, moved: f64) -> Option<f64> {
        let by = (AIM * self.weights / moved).min(LARGEST_CLIMB);
        (moved < self.noise && by >= WORTH_IT).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand. Fails with another ε, another power of K, or if what moves far enough is raised.
    #[test]
    fn what_rounding_hides_is_raised() {
        let epsilon = f64::from(f32::EPSILON);
        let rounding = Rounding::new(5.0, 16, epsilon);
        let noise = 4.0 * epsilon * 5.0 / 2.0;
        assert_eq!((rounding.weights, rounding.noise), (5.0, noise));
        assert_eq!(rounding.raise(0.99 * noise), Some(100.0));
        assert_eq!(rounding.raise(noise), None);
        // In half precision rounding alone moves weights by as much as a raised rate should.
        let half = Rounding { weights: 1.0, noise: 1e-3 };
        assert_eq!(half.raise(1e-4), Some(10.0));
        assert_eq!(half.raise(5e-4), Some(2.0));
        assert_eq!(half.raise(6e-4), None);
        let twice = Rounding { weights: 2.0, noise: 1e-3 };
        assert_eq!(twice.raise(4e-4), Some(1e-3 * 2.0 / 4e-4));
    }
}
