//! What a ramp does when a loss or a gradient has exploded.

use super::{Ramp, Ramped};
use crate::engine::{
    products::Slope,
    safeguard::{explained, gradient_has_exploded, Safeguard},
};

impl Ramp {
    /// Whether the loss has risen too far, and ⟨g,d⟩ is large enough to account for it (on a convex
    /// piece it bounds the rise). Without a loss: whether the way leads uphill, to a gradient that
    /// has exploded. Its noise may be so large that no mean slope shows it.
    pub(super) fn has_exploded(
        &self,
        slopes: &[Slope],
        loss: Option<f64>,
        safeguard: &Safeguard,
    ) -> bool {
        let (Some(loss), Some(start)) = (loss, self.start_loss) else {
            let all = self.total(slopes);
            return safeguard.blame.is_some() && gradient_has_exploded(&all, self.gradient);
        };
        let rise = loss - start;
        let explodes = rise > (safeguard.explosion - 1.0) * start.abs();
        explodes && safeguard.blame.is_none_or(|share| explained(slopes) >= share * rise)
    }

    pub(super) fn give_up(&mut self, slopes: &[Slope], safeguard: &Safeguard) -> Ramped {
        let learned = self.groups.iter().zip(slopes).filter(|(group, _)| !group.fixed);
        let largest = learned.map(|(_, slope)| slope.along).fold(0.0, f64::max);
        // Without blame it is all of them.
        let least = safeguard.blame.map_or(f64::NEG_INFINITY, |share| share * largest);
        for (group, slope) in self.groups.iter_mut().zip(slopes).filter(|(group, _)| !group.fixed) {
            if slope.along >= least {
                group.retreat();
            }
        }
        self.settle_rest();
        Ramped::TooFar
    }
}
