//! What the CPU's operations compute with: f32 and f64.

use num_traits::Float;
use std::ops::AddAssign;

/// f32 or f64.
pub(super) trait Element: Float + AddAssign + Send + Sync + 'static {
    const ZERO: Self;
    const ONE: Self;

    /// In f64, for sums.
    fn to(self) -> f64;

    /// Rounded to this type.
    fn of(value: f64) -> Self;

    /// The same slice, if these are f32: for what is written for single precision only.
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

    fn to(self) -> f64 {
        self.into()
    }

    fn of(value: f64) -> Self {
        value as Self
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

    fn to(self) -> f64 {
        self
    }

    fn of(value: f64) -> Self {
        value
    }
}
