//! Random numbers, the same everywhere, and what is drawn from them.

use support::quadratic::Random as Bits;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(Bits);

impl Random {
    /// A stream of its own for each seed and purpose.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(Bits(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ purpose.wrapping_mul(0x5851_f42d)))
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f32 {
        (0.5 * (self.0.uniform() + 1.0)) as f32
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f32) as usize).min(n - 1)
    }

    /// Normal, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f32 {
        let radius = (-2.0 * self.positive().ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }

    /// A normal number cubed: mean 0, variance 15, kurtosis 46.
    pub(crate) fn cubed(&mut self) -> f32 {
        self.normal().powi(3)
    }

    /// Student's t with two degrees of freedom: its variance is infinite.
    pub(crate) fn student(&mut self) -> f32 {
        self.normal() / (-self.positive().ln()).max(1e-7).sqrt()
    }

    /// `N` normal numbers.
    pub(crate) fn normals<const N: usize>(&mut self) -> [f32; N] {
        std::array::from_fn(|_| self.normal())
    }

    /// Uniform in (0, 1].
    fn positive(&mut self) -> f32 {
        1.0 - self.uniform()
    }
}

/// ⟨a,b⟩.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// 1 at `class` and 0 elsewhere.
pub(crate) fn one_hot<const N: usize>(class: usize) -> [f32; N] {
    std::array::from_fn(|index| if index == class { 1.0 } else { 0.0 })
}

/// A point of one of three clusters around a circle of radius 1.5, and which.
pub(crate) fn cluster(random: &mut Random, spread: f32) -> ([f32; 2], [f32; 3]) {
    let class = random.below(3);
    let angle = std::f32::consts::TAU * class as f32 / 3.0;
    let [x, y] = random.normals();
    ([1.5 * angle.cos() + spread * x, 1.5 * angle.sin() + spread * y], one_hot(class))
}
