//! The scale of colours that all cells of a heat map share.

use crate::report::{
    axis::{extent, product},
    color::{Color, BLACK, WHITE},
};

/// From pale blue over yellow and orange to dark red, ever darker, so that the order survives
/// colour blindness and grey printers.
pub(super) const RAMP: [Color; 6] = [
    Color(230, 244, 249),
    Color(249, 228, 160),
    Color(253, 190, 98),
    Color(240, 122, 56),
    Color(200, 36, 32),
    Color(103, 0, 22),
];

/// The decimal logarithms of the lowest and the highest positive value, if there is one.
pub(super) struct Scale(Option<(f64, f64)>);

impl Scale {
    /// The scale of finite values, or `None` without any.
    pub(super) fn new(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values = values.peekable();
        values.peek()?;
        Some(Self(extent(values.filter(|value| *value > 0.0).map(f64::log10))))
    }

    /// The colour of a value, or `None` for one that is not finite.
    pub(super) fn color(&self, value: f64) -> Option<Color> {
        let part = match self.0 {
            Some((low, high)) if high > low => (value.max(0.0).log10() - low) / (high - low),
            _ => 0.0,
        };
        value.is_finite().then(|| Color::between(&RAMP, part))
    }

    /// The lowest value, the one in the middle and the highest, or fewer where they cannot be told
    /// apart.
    pub(super) fn labels(&self) -> Vec<String> {
        let Some((low, high)) = self.0 else { return vec!["≤ 0".into()] };
        if low == high {
            return vec![rounded(low, 2)];
        }
        let mut labels = Vec::new();
        for digits in 1..=4 {
            labels = [low, (low + high) / 2.0, high].map(|y| rounded(y, digits)).to_vec();
            labels.dedup();
            if labels.len() == 3 {
                break;
            }
        }
        labels
    }
}

/// Ten to the power of `y`, with `digits` decimals in scientific notation.
fn rounded(y: f64, digits: usize) -> String {
    // Just below a power of ten, rounding reaches it.
    let exponent = (y + 1e-9).floor();
    product(10_f64.powf(y - exponent), digits, exponent as i32)
}

/// The colour in which text is read best on `background`.
pub(super) fn ink(background: Color) -> Color {
    if background.contrast(BLACK) >= background.contrast(WHITE) {
        BLACK
    } else {
        WHITE
    }
}
