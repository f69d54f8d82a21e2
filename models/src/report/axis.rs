//! Axes that know their ticks: epochs, and values on a logarithmic scale.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// The decimal logarithms of the smallest and the largest value, with some room around them.
pub(super) fn decades<'p>(points: impl Iterator<Item = &'p (f64, f64)>) -> (f64, f64) {
    let (low, high) = points
        .map(|point| point.1.log10())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    if low > high {
        return (-1.0, 0.0);
    }
    let room = (0.06 * (high - low)).max(0.1 - 0.5 * (high - low)).max(0.02);
    // The markers of rollbacks hang from the upper edge.
    (low - room, high + 1.5 * room)
}

/// A linear axis that knows its ticks.
pub(super) struct Axis {
    range: Range<f64>,
    /// The ticks with a label.
    pub(super) labelled: Vec<(f64, String)>,
    /// The positions of fine grid lines.
    fine: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        start + (part * f64::from(end - start)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            self.fine.clone()
        } else {
            self.labelled.iter().map(|tick| tick.0).collect()
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.labelled.iter().find(|tick| tick.0 == *value);
        tick.map_or(String::new(), |tick| tick.1.clone())
    }
}

/// The axis for decimal logarithms of values, labelled with the values.
pub(super) fn value_axis(low: f64, high: f64) -> Axis {
    const BETWEEN: [f64; 8] = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let span = high - low;
    let inside = |y: &f64| (low..=high).contains(y);
    let exponents = || (low.floor() as i32)..=(high.ceil() as i32);
    let multiples = |factors: &'static [f64]| {
        exponents()
            .flat_map(move |e| factors.iter().map(move |&f| (f, e)))
            .map(|(f, e)| (f.log10() + f64::from(e), f, e))
            .filter(move |tick| inside(&tick.0))
    };
    let (labelled, fine) = if span >= 2.2 {
        let stride = (span / 6.0).ceil() as i32;
        let labelled = exponents()
            .filter(|e| e.rem_euclid(stride) == 0)
            .map(|e| (f64::from(e), power(e)))
            .filter(|tick| inside(&tick.0))
            .collect();
        let fine = if stride == 1 { &BETWEEN[..] } else { &[] };
        (labelled, multiples(fine).map(|tick| tick.0).collect())
    } else if span >= 0.8 {
        let labelled =
            multiples(&[1.0, 2.0, 5.0]).map(|(y, factor, e)| (y, product(factor, 0, e))).collect();
        (labelled, multiples(&BETWEEN).map(|tick| tick.0).collect())
    } else {
        // So little of a decade is nearly linear.
        let e = high.floor() as i32;
        let [bottom, top] = [low, high].map(|y| 10_f64.powf(y - f64::from(e)));
        let (factors, digits) = round_numbers(bottom, top, 6.0);
        let labelled = factors
            .into_iter()
            .map(|factor| (factor.log10() + f64::from(e), product(factor, digits, e)))
            .filter(|tick| inside(&tick.0))
            .collect();
        (labelled, Vec::new())
    };
    Axis { range: low..high, labelled, fine }
}

pub(super) fn epoch_axis(end: f64) -> Axis {
    let (ticks, digits) = round_numbers(0.0, end, 10.0);
    let label = |epoch: f64| (epoch, format!("{epoch:.digits$}"));
    Axis { range: 0.0..end, labelled: ticks.into_iter().map(label).collect(), fine: Vec::new() }
}

/// Round numbers between `low` and `high`, about `count` of them, and how many decimals they have.
pub(super) fn round_numbers(low: f64, high: f64, count: f64) -> (Vec<f64>, usize) {
    let rough = (high - low) / count;
    let exponent = rough.log10().floor();
    let unit = 10_f64.powf(exponent);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * unit >= rough * 0.999);
    let step = factor.unwrap_or(10.0) * unit;
    let (first, last) = ((low / step).ceil() as i64, (high / step * 1.000_001).floor() as i64);
    // The bound is for ranges too narrow to be told apart.
    let ticks = (first..=last).take(50).map(|i| i as f64 * step).collect();
    let digits = -step.log10().floor();
    (ticks, if digits > 0.0 { digits as usize } else { 0 })
}

/// `factor` times ten to the power of `exponent`, with `digits` decimals in the factor.
pub(super) fn product(factor: f64, digits: usize, exponent: i32) -> String {
    if (-3..=3).contains(&exponent) {
        let decimals = (digits as i32 - exponent).max(0) as usize;
        format!("{:.decimals$}", factor * 10_f64.powi(exponent))
    } else if factor == 1.0 && digits == 0 {
        power(exponent)
    } else {
        format!("{factor:.digits$}×{}", power(exponent))
    }
}

/// Ten to the power of `exponent`, as `10⁻⁶`.
pub(super) fn power(exponent: i32) -> String {
    let superscript = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        '9' => '⁹',
        _ => '⁰',
    };
    let exponent: String = exponent.to_string().chars().map(superscript).collect();
    format!("10{exponent}")
}
