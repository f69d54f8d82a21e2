//! Which rates a loss that rises is to be blamed on.

use crate::engine::products::Slope;

/// Beyond this part of its norm a group's gradient is no longer trusted.
const FAR: f64 = 0.1;

/// The rates that a rise is to be blamed on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Blame {
    /// All rates: the slopes are not known.
    All,
    /// These groups' rates.
    Some(Vec<bool>),
    /// No rate: the way of the weights does not explain the rise.
    None,
}

/// The rates to blame for this rise of the loss. On a convex piece the loss rises by no more than
/// ⟨g,d⟩ along the way d. So if the groups' sum Σ max(⟨g,d⟩, 0) is less than `share` of the rise,
/// the rise comes from elsewhere: noise, another batch, another task. If weights have moved far,
/// the gradient may be that of another piece, and proves nothing.
pub(crate) fn blame(share: f64, rise: f64, slopes: &[Slope]) -> Blame {
    // If it was an earlier loss of the window that rose, the weights of then are gone.
    let unknown = slopes.is_empty() || rise.is_nan() || rise <= 0.0;
    if unknown || !slopes.iter().all(Slope::is_finite) {
        return Blame::All;
    }
    let is_far = |slope: &Slope| slope.moved > FAR * slope.size();
    if explained(slopes) < share * rise && !slopes.iter().any(is_far) {
        return Blame::None;
    }
    let largest = slopes.iter().map(|slope| slope.along).fold(0.0, f64::max);
    let guilty =
        |slope: &Slope| is_far(slope) || slope.along > 0.0 && slope.along >= share * largest;
    Blame::Some(slopes.iter().map(guilty).collect())
}

/// How large a rise the ways explain at most, on a convex piece: Σ max(⟨g,d⟩, 0).
pub(crate) fn explained(slopes: &[Slope]) -> f64 {
    slopes.iter().map(|slope| slope.along.max(0.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slope of a hundred weights of norm 10. Callers let them move by 1 at most.
    fn slope(along: f64, moved: f64) -> Slope {
        Slope { along, moved, gradient: 5.0, norm: 10.0, weights: 100 }
    }

    // By hand. Fails with another share, another limit of what is far, or another sum.
    #[test]
    fn who_is_to_blame() {
        let of = |rise, slopes: &[Slope]| blame(0.25, rise, slopes);
        // A way that explains 3 of 12 is just enough. A group whose way leads downhill explains
        // nothing, and hides nothing that others explain.
        assert_eq!(of(12.0, &[slope(3.0, 0.5), slope(-9.0, 0.5)]), Blame::Some(vec![true, false]));
        assert_eq!(of(12.1, &[slope(3.0, 0.5), slope(-9.0, 0.5)]), Blame::None);
        assert_eq!(of(12.0, &[slope(1.0, 0.5), slope(2.0, 0.5)]), Blame::Some(vec![true, true]));
        // A quarter of the largest is enough as well.
        assert_eq!(of(1.0, &[slope(4.0, 0.5), slope(1.0, 0.5)]), Blame::Some(vec![true, true]));
        assert_eq!(of(1.0, &[slope(4.0, 0.5), slope(0.9, 0.5)]), Blame::Some(vec![true, false]));
        // Far from the snapshot a gradient proves nothing: beyond a tenth of the norm.
        assert_eq!(of(100.0, &[slope(0.0, 1.0)]), Blame::None);
        assert_eq!(of(100.0, &[slope(0.0, 1.1), slope(0.0, 0.5)]), Blame::Some(vec![true, false]));
        // A fall, nothing to go by, and figures that are no numbers.
        assert_eq!(of(0.0, &[slope(1.0, 0.5)]), Blame::All);
        assert_eq!(of(f64::NAN, &[slope(1.0, 0.5)]), Blame::All);
        assert_eq!(of(1.0, &[]), Blame::All);
        assert_eq!(of(1.0, &[slope(f64::NAN, 0.5)]), Blame::All);
    }
}
