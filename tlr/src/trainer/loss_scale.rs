//! [`LossScale`]: a factor that keeps small gradients from vanishing in half precision.

use crate::error::Error;

/// A factor on the loss, so that small gradients do not vanish in half precision.
///
/// The loss is multiplied by the scale before its gradients are taken. If a gradient overflows, the
/// batch is skipped and the scale is halved. After `interval` steps without overflow the scale is
/// doubled. Micikevicius et al., *Mixed precision training*, 2018.
///
/// The scale is a power of two, so that scaling is exact. It is at most 2¹⁵, because the largest
/// number in half precision is 65504.
///
/// # Example
/// ```
/// let scale = tlr::LossScale::default().start(4096.0).interval(500);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    pub(super) start: f64,
    pub(super) interval: u64,
}

impl LossScale {
    pub(super) const LARGEST: f64 = 32768.0;

    /// The first scale, a power of two from 1 to 2¹⁵. Default 2¹⁰.
    pub fn start(mut self, start: f64) -> Self {
        self.start = start;
        self
    }

    /// The number of steps without overflow before the scale is doubled, at least 1. Default 2000.
    pub fn interval(mut self, steps: u64) -> Self {
        self.interval = steps;
        self
    }

    pub(super) fn is_possible(scale: f64) -> bool {
        (1.0..=Self::LARGEST).contains(&scale) && scale.log2().fract() == 0.0
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let range = "a power of two from 1 to 32768";
        Error::unless(Self::is_possible(self.start), "loss scale: start", range, self.start)?;
        let interval = self.interval as f64;
        Error::unless(self.interval > 0, "loss scale: interval", "at least 1", interval)
    }
}

impl Default for LossScale {
    fn default() -> Self {
        Self { start: 1024.0, interval: 2000 }
    }
}
