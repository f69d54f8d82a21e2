//! The two types that the CPU's operations compute with: f32 and f64.

use super::scratch::Kept;
use gemm_common::Parallelism;
use num_traits::Float;
use std::ops::AddAssign;

/// A function that computes C ← α·C + β·A·B, or β·A·B if C is not read.
///
/// Its arguments: m, n, k; C, its steps from column to column and from row to row, and whether it
/// is read; A and B with their steps; α and β; which of the three are conjugated; and on which
/// threads.
pub(super) type Gemm<E> = unsafe fn(
    usize,
    usize,
    usize,
    *mut E,
    isize,
    isize,
    bool,
    *const E,
    isize,
    isize,
    *const E,
    isize,
    isize,
    E,
    E,
    bool,
    bool,
    bool,
    Parallelism,
);

/// f32 or f64.
pub(super) trait Element: Float + AddAssign + Kept {
    const ZERO: Self;
    const ONE: Self;

    /// The function that multiplies matrices of this type.
    fn gemm() -> Gemm<Self>;

    /// The same number in f64, for sums.
    fn to(self) -> f64;

    /// The number, rounded to this type.
    fn of(value: f64) -> Self;

    /// e to the power of this. It is inlined, so that the compiler can take many at a time.
    fn exponential(self) -> Self;

    /// The same slice if the type is f32: some code is written for single precision only.
    fn singles(_values: &[Self]) -> Option<&[f32]> {
        None
    }

    /// As [`singles`](Self::singles).
    fn singles_mut(_values: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn gemm() -> Gemm<Self> {
        gemm_f32::gemm::f32::get_gemm_fn()
    }

    fn to(self) -> f64 {
        self.into()
    }

    fn of(value: f64) -> Self {
        value as Self
    }

    /// e^x = 2^k·e^r with an integer k and |r| ≤ ln 2 / 2. The polynomial is that of Moshier's
    /// Cephes library; its error is below two units in the last place. The result is 0 below −87
    /// and ∞ above 88, a little before e^x is subnormal or overflows.
    #[inline(always)]
    fn exponential(self) -> Self {
        // ln 2 in two parts, the first of few bits, so that k times it is exact.
        const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
        // To add this number and subtract it again rounds to an integer. In between, the integer is
        // in the last bits.
        const ROUND: f32 = 12_582_912.0;
        let x = self.min(88.0);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let k = shifted - ROUND;
        let r = (x - k * LN_2.0) - k * LN_2.1;
        let p = 1.987_569_1e-4;
        let p = p * r + 1.398_2e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 0.5;
        let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
        let y = (p * r * r + r + 1.0) * power;
        let y = if self < -87.0 { 0.0 } else { y };
        let y = if self > 88.0 { Self::INFINITY } else { y };
        if self.is_nan() {
            self
        } else {
            y
        }
    }

    fn singles(values: &[f32]) -> Option<&[f32]> {
        Some(values)
    }

    fn singles_mut(values: &mut [f32]) -> Option<&mut [f32]> {
        Some(values)
    }
}

impl Element for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn gemm() -> Gemm<Self> {
        gemm_f64::gemm::f64::get_gemm_fn()
    }

    fn to(self) -> f64 {
        self
    }

    fn of(value: f64) -> Self {
        value
    }

    fn exponential(self) -> Self {
        self.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A million numbers of every size. Fails with a wrong digit in any coefficient.
    #[test]
    fn exponentials() {
        for index in 0..=1_000_000 {
            let x = -87.0 + 175.0 * (index as f32 / 1e6);
            let exact = f64::from(x).exp();
            let spacing = f64::from(f32::EPSILON) * 2f64.powi(exact.log2().floor() as i32);
            let error = (f64::from(x.exponential()) - exact).abs() / spacing;
            assert!(error < 2.0, "{x}: {error}");
        }
        assert_eq!((0f32.exponential(), (-0f32).exponential()), (1.0, 1.0));
        let ends = [f32::NEG_INFINITY, -87.1, 88.1, f32::INFINITY].map(Element::exponential);
        assert_eq!(ends, [0.0, 0.0, f32::INFINITY, f32::INFINITY]);
        assert!(f32::NAN.exponential().is_nan());
        assert_eq!(1.5f64.exponential(), 1.5f64.exp());
    }
}
