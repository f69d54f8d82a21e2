//! [`RangeTest`]: the learning-rate range test, which users do by hand.

use super::PeerError;
use serde::{Deserialize, Serialize};

/// The learning-rate range test: a step at each rate from `first` to `last`, equally far apart on a
/// logarithmic scale, and the loss at each.
///
/// Smith, *Cyclical learning rates for training neural networks*, WACV 2017. As in fastai's
/// `lr_find`: the losses are averaged, sᵢ ← β·sᵢ₋₁ + (1 − β)·fᵢ over 1 − βⁱ, and it ends early at
/// a loss above `stop` times the least, or at one that is not finite.
///
/// # Example
/// It trains, so it is run on a copy of the model.
/// ```
/// use tlr_models::baselines::{Peer, RangeTest, Sgd, valley};
///
/// let mut w = [3.0];
/// let curve = RangeTest::default().run(|rate| {
///     let (loss, g) = (50.0 * w[0] * w[0], [100.0 * w[0]]);
///     let mut sgd = Peer::new(Sgd { lr: rate, ..Sgd::default() })?;
///     sgd.step(&mut [&mut w[..]], &[&g[..]], None)?;
///     Ok::<_, tlr_models::baselines::PeerError>(loss)
/// })?;
/// let rate = valley(&curve).expect("a curve of 100 points");
/// assert!(rate > 1e-4 && rate < 2e-2, "{rate}"); // 2/100 is where it would diverge
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RangeTest {
    /// The first rate. Above 0; default 1e-7.
    pub first: f64,
    /// The rate after the last. Above the first; default 10.
    pub last: f64,
    /// Steps. At least 6; default 100.
    pub steps: usize,
    /// β in [0, 1). Default 0.98.
    pub smoothing: f64,
    /// How far above the least the averaged loss may rise. Above 1; default 4; none: without bound.
    pub stop: Option<f64>,
}

impl Default for RangeTest {
    fn default() -> Self {
        Self { first: 1e-7, last: 10.0, steps: 100, smoothing: 0.98, stop: Some(4.0) }
    }
}

/// A rate, and the averaged loss of the batch that was trained on at it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangePoint {
    /// The rate.
    pub rate: f64,
    /// The averaged loss.
    pub loss: f64,
}

impl RangeTest {
    /// Measures the curve. `step` makes one step at the rate that it gets, and returns the batch's
    /// loss before it.
    ///
    /// # Errors
    /// [`PeerError::OutOfRange`], and what `step` fails with.
    ///
    /// Example: [`RangeTest`].
    pub fn run<F: From<PeerError>>(
        &self,
        mut step: impl FnMut(f64) -> Result<f64, F>,
    ) -> Result<Vec<RangePoint>, F> {
        self.validate()?;
        let mut curve = Vec::with_capacity(self.steps);
        let (mut average, mut forgotten, mut least) = (0.0, 1.0, f64::INFINITY);
        for index in 0..self.steps {
            let rate = self.rate(index);
            average = self.smoothing * average + (1.0 - self.smoothing) * step(rate)?;
            forgotten *= self.smoothing;
            let loss = average / (1.0 - forgotten);
            if !loss.is_finite() {
                break;
            }
            curve.push(RangePoint { rate, loss });
            least = least.min(loss);
            if self.stop.is_some_and(|stop| loss > stop * least) {
                break;
            }
        }
        Ok(curve)
    }

    /// The rate of a step, counted from 0.
    ///
    /// ```
    /// let test = tlr_models::baselines::RangeTest::default();
    /// assert_eq!(test.rate(0), 1e-7);
    /// assert!((test.rate(50) - 1e-3).abs() < 1e-9);
    /// assert!((test.rate(100) - 10.0).abs() < 1e-9);
    /// ```
    pub fn rate(&self, step: usize) -> f64 {
        self.first * (self.last / self.first).powf(step as f64 / self.steps as f64)
    }

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("range test: first", self.first)?;
        let grows = self.last > self.first && self.last.is_finite();
        PeerError::unless(grows, "range test: last", "above `first`, and finite", self.last)?;
        let steps = self.steps as f64;
        PeerError::unless(self.steps >= 6, "range test: steps", "at least 6", steps)?;
        PeerError::unless_below_1("range test: smoothing", self.smoothing)?;
        let stop = self.stop.unwrap_or(4.0);
        PeerError::unless(stop > 1.0, "range test: stop", "above 1", stop)
    }
}

/// The part that fastai looks at: without the first tenth and the last five.
fn inner(curve: &[RangePoint]) -> &[RangePoint] {
    curve.get(curve.len() / 10..curve.len().saturating_sub(5)).unwrap_or_default()
}

/// fastai's suggestion: the longest run of points of falling losses (not next to each other), and
/// the rate two thirds down it, within a point or so. `None` where no point is left.
///
/// fastai's `valley`, with the same first tenth and last five points left out as in its `lr_find`.
/// The tenth is that of the measured points; the package takes a tenth of the planned ones.
///
/// Example: [`RangeTest`].
pub fn valley(curve: &[RangePoint]) -> Option<f64> {
    let points = inner(curve);
    // The longest falling run that ends at each point.
    let mut lengths = vec![1_usize; points.len()];
    let (mut end, mut longest) = (0, 1);
    for i in 1..points.len() {
        for j in 0..i {
            let falls = points.get(i)?.loss < points.get(j)?.loss;
            let (own, before) = (*lengths.get(i)?, *lengths.get(j)?);
            if falls && own < before + 1 {
                *lengths.get_mut(i)? = before + 1;
            }
        }
        if longest < *lengths.get(i)? {
            (end, longest) = (i, *lengths.get(i)?);
        }
    }
    // As in the package, a valley that begins at the first point counts from one point before it.
    let start = match longest {
        1 => 0,
        _ => end as i64 - longest as i64,
    };
    let section = (end as i64 - start) as f64 / 3.0;
    let index = start + section as i64 + (section / 2.0) as i64;
    Some(points.get(usize::try_from(index).ok()?)?.rate)
}

/// fastai's other suggestion: the rate where the loss falls most steeply over the logarithm of the
/// rate. `None` for fewer than two points after those left out, as by [`valley`].
///
/// Example: as with [`valley`], in [`RangeTest`].
pub fn steep(curve: &[RangePoint]) -> Option<f64> {
    let slope = |pair: &[RangePoint]| match pair {
        [a, b] => (b.loss - a.loss) / (b.rate.ln() - a.rate.ln()),
        _ => f64::INFINITY,
    };
    let slopes = inner(curve).windows(2).map(|pair| (slope(pair), pair));
    let steepest = slopes.min_by(|(a, _), (b, _)| a.total_cmp(b));
    steepest.and_then(|(_, pair)| pair.first()).map(|point| point.rate)
}

/// Lightning's suggestion: the rate at the least central difference of the losses, without the
/// first ten points and the last. `None` for fewer than two points after those.
///
/// Example: as with [`valley`], in [`RangeTest`].
pub fn steepest_gradient(curve: &[RangePoint]) -> Option<f64> {
    let points = curve.get(10..curve.len().saturating_sub(1)).unwrap_or_default();
    let loss = |index: usize| points.get(index).map(|point| point.loss);
    let gradient = |index: usize| {
        let (low, high) = (index.saturating_sub(1), (index + 1).min(points.len() - 1));
        Some((loss(high)? - loss(low)?) / (high - low) as f64)
    };
    if points.len() < 2 {
        return None;
    }
    let gradients = (0..points.len()).filter_map(|index| Some((gradient(index)?, index)));
    let (_, index) = gradients.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    points.get(index).map(|point| point.rate)
}
