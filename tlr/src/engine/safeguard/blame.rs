//! Which rates a loss that rises is to be blamed on.

use crate::engine::products::Slope;

/// A group that has moved by more than this part of its norm may be where gradients say nothing.
const FAR: f64 = 0.1;

/// Whom a rise is to be blamed on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Blame {
    /// All rates: the slopes cannot be told.
    All,
    /// These groups' rates.
    Some(Vec<bool>),
    /// No rate: the way that the weights have gone does not explain the rise.
    None,
}

/// On a convex piece the loss has risen by no more than ⟨g,s⟩ along the way s. So a rise of which
/// this explains less than `share` comes from elsewhere: noise, another batch, another task. Where
/// weights have gone far, the gradient may be that of another piece, and proves nothing.
pub(crate) fn blame(share: f64, rise: f64, slopes: &[Slope]) -> Blame {
    // It was an earlier loss of the window that rose: the way to it is not known any more.
    let unknown = slopes.is_empty() || rise.is_nan() || rise <= 0.0;
    if unknown || !slopes.iter().all(Slope::is_finite) {
        return Blame::All;
    }
    let is_far = |slope: &Slope| slope.moved > FAR * slope.size();
    let explained: f64 = slopes.iter().map(|slope| slope.along.max(0.0)).sum();
    if explained < share * rise && !slopes.iter().any(is_far) {
        return Blame::None;
    }
    let largest = slopes.iter().map(|slope| slope.along).fold(0.0, f64::max);
    let guilty =
        |slope: &Slope| is_far(slope) || slope.along > 0.0 && slope.along >= share * largest;
    Blame::Some(slopes.iter().map(guilty).collect())
}
