//! What the CPU's operations compute with.

use crate::layers::gemm::Element;
use dfdx::prelude::Dtype;

/// f32 and f64, with what sums in f64 need.
pub(super) trait Real: Element + Dtype + Send + Sync {
    fn to(self) -> f64;
    fn of(value: f64) -> Self;
    fn exp(self) -> Self;
}

impl Real for f32 {
    fn to(self) -> f64 {
        self.into()
    }

    fn of(value: f64) -> Self {
        value as Self
    }

    fn exp(self) -> Self {
        self.exp()
    }
}

impl Real for f64 {
    fn to(self) -> f64 {
        self
    }

    fn of(value: f64) -> Self {
        value
    }

    fn exp(self) -> Self {
        self.exp()
    }
}
