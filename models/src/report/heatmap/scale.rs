//! The scale of colours that all cells of a heat map share.

use crate::report::{axis::product, drawing::between};
use plotters::style::RGBColor;

/// From pale blue over yellow and orange to dark red, ever darker, so that the order survives
/// colour blindness and grey printers.
pub(super) const RAMP: [RGBColor; 6] = [
    RGBColor(230, 244, 249),
    RGBColor(249, 228, 160),
    RGBColor(253, 190, 98),
    RGBColor(240, 122, 56),
    RGBColor(200, 36, 32),
    RGBColor(103, 0, 22),
];

/// The decimal logarithms of the lowest and the highest positive value; any if none is positive.
pub(super) struct Scale {
    low: f64,
    high: f64,
    positive: bool,
}

impl Scale {
    /// The scale of finite values, or `None` without any.
    pub(super) fn new(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values = values.peekable();
        values.peek()?;
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .map(f64::log10)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        let positive = low <= high;
        Some(if positive {
            Self { low, high, positive }
        } else {
            Self { low: 0.0, high: 0.0, positive }
        })
    }

    /// The colour of a value, or `None` for one that is not finite.
    pub(super) fn color(&self, value: f64) -> Option<RGBColor> {
        if !value.is_finite() {
            return None;
        }
        let span = self.high - self.low;
        let part = if span > 0.0 { (value.max(0.0).log10() - self.low) / span } else { 0.0 };
        Some(between(&RAMP, part))
    }

    /// The lowest value, the one in the middle and the highest, or fewer if they cannot be told
    /// apart.
    pub(super) fn labels(&self) -> Vec<String> {
        if !self.positive {
            return vec!["≤ 0".into()];
        }
        if self.low == self.high {
            return vec![rounded(self.low, 2)];
        }
        let exact = [self.low, (self.low + self.high) / 2.0, self.high];
        let mut labels = exact.map(|y| rounded(y, 1)).to_vec();
        for digits in 2..=4 {
            if labels[0] != labels[1] && labels[1] != labels[2] {
                break;
            }
            labels = exact.map(|y| rounded(y, digits)).to_vec();
        }
        labels.dedup();
        labels
    }
}

/// Ten to the power of `y`, with `digits` decimals in scientific notation.
fn rounded(y: f64, digits: usize) -> String {
    // Just below a power of ten, rounding reaches it.
    let exponent = (y + 1e-9).floor();
    product(10_f64.powf(y - exponent), digits, exponent as i32)
}
