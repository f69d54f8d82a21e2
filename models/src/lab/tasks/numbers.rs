//! Random numbers, the same everywhere.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of random numbers.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    /// A stream of its own for each purpose.
    pub(super) fn new(purpose: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(purpose))
    }

    /// A number in [0, 1).
    pub(super) fn uniform(&mut self) -> f32 {
        self.0.r#gen()
    }

    /// A whole number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.gen_range(0..n)
    }

    /// A normally distributed number, by the method of Box and Muller.
    pub(super) fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }
}
