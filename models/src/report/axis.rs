//! Axes that know their ticks, linear ones and logarithmic ones.

/// What an axis spans, and its ticks. A logarithmic axis spans decimal logarithms.
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    /// The ticks with a label.
    pub(super) labelled: Vec<(f64, String)>,
    /// The positions of fine grid lines.
    pub(super) fine: Vec<f64>,
}

impl Axis {
    /// A linear axis from `low` to `high`, with about `count` ticks.
    pub(super) fn linear(low: f64, high: f64, count: f64) -> Self {
        let (ticks, digits) = round_numbers(low, high, count);
        let labelled = ticks.into_iter().map(|tick| (tick, format!("{tick:.digits$}"))).collect();
        Self { low, high, labelled, fine: Vec::new() }
    }

    /// An axis over logarithms from `low` to `high`, labelled with the values.
    pub(super) fn logarithmic(low: f64, high: f64) -> Self {
        const BETWEEN: [f64; 8] = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let span = high - low;
        let exponents = || (low.floor() as i32)..=(high.ceil() as i32);
        let multiples = |factors: &'static [f64]| {
            exponents().flat_map(move |e| factors.iter().map(move |&f| (f, e)))
        };
        let place = |(factor, e): (f64, i32)| factor.log10() + f64::from(e);
        let mut fine: Vec<f64> = Vec::new();
        let mut labelled: Vec<(f64, String)>;
        if span >= 2.2 {
            let stride = (span / 6.0).ceil() as i32;
            let shown = exponents().filter(|e| e.rem_euclid(stride) == 0);
            labelled = shown.map(|e| (f64::from(e), power(e))).collect();
            if stride == 1 {
                fine = multiples(&BETWEEN).map(place).collect();
            }
        } else if span >= 0.8 {
            let shown = multiples(&[1.0, 2.0, 5.0]);
            labelled = shown.map(|(f, e)| (place((f, e)), product(f, 0, e))).collect();
            fine = multiples(&BETWEEN).map(place).collect();
        } else {
            // A range of so little of a decade gets linear ticks.
            let e = high.floor() as i32;
            let [bottom, top] = [low, high].map(|y| 10_f64.powf(y - f64::from(e)));
            let (shown, digits) = round_numbers(bottom, top, 6.0);
            labelled = shown.into_iter().map(|f| (place((f, e)), product(f, digits, e))).collect();
        }
        labelled.retain(|tick| (low..=high).contains(&tick.0));
        fine.retain(|tick| (low..=high).contains(tick));
        Self { low, high, labelled, fine }
    }

    /// Where a value is, from 0 at the axis' beginning to 1 at its end.
    pub(super) fn part(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// The least and the largest of some numbers, if there are any.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |extent: Option<(f64, f64)>, value| {
        Some(extent.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    })
}

/// Round numbers between `low` and `high`, about `count` of them, and how many decimals they have.
fn round_numbers(low: f64, high: f64, count: f64) -> (Vec<f64>, usize) {
    let rough = (high - low) / count;
    let unit = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * unit >= rough * 0.999);
    let step = factor.unwrap_or(10.0) * unit;
    let (first, last) = ((low / step).ceil() as i64, (high / step * 1.000_001).floor() as i64);
    // The bound is for ranges so narrow that their ticks would be the same number.
    let ticks = (first..=last).take(50).map(|i| i as f64 * step).collect();
    (ticks, (-step.log10().floor()).max(0.0) as usize)
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
fn power(exponent: i32) -> String {
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let raised = |c: char| c.to_digit(10).map_or('⁻', |digit| RAISED[digit as usize]);
    let exponent: String = exponent.to_string().chars().map(raised).collect();
    format!("10{exponent}")
}
