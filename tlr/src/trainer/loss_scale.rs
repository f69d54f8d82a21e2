//! [`LossScale`]: a factor that keeps small gradients from vanishing in half precision.

use crate::{
    engine::MAX_COUNT,
    error::{CheckpointError, Difference, Error},
};

/// A factor on the loss, so that small gradients do not vanish in half precision.
///
/// The loss is multiplied by the scale before its gradients are taken. If a gradient overflows, the
/// batch is skipped and the scale is halved. After `interval` batches without overflow the scale is
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
    start: f64,
    interval: u64,
}

impl LossScale {
    const LARGEST: f64 = 32768.0;

    /// The first scale, a power of two from 1 to 2¹⁵. Default 2¹⁰.
    ///
    /// Example: [`LossScale`].
    pub fn start(mut self, start: f64) -> Self {
        self.start = start;
        self
    }

    /// The number of batches without overflow before the scale is doubled, at least 1. Default
    /// 2000. Batches that are gathered or undone count, too.
    ///
    /// Example: [`LossScale`].
    pub fn interval(mut self, batches: u64) -> Self {
        self.interval = batches;
        self
    }

    fn is_possible(scale: f64) -> bool {
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

/// The scale as training has left it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ScaleState {
    /// The next loss is multiplied by it.
    pub(super) scale: f64,
    /// The number of batches since it last changed.
    since: u64,
    /// The number of batches that were skipped because a gradient overflowed.
    pub(super) skipped: u64,
}

impl ScaleState {
    pub(super) fn new(config: &LossScale) -> Self {
        Self { scale: config.start, since: 0, skipped: 0 }
    }

    /// Notes a batch that is skipped, because the scale is too large for its gradients.
    pub(super) fn overflowed(&mut self) {
        *self = Self { scale: 0.5 * self.scale, since: 0, skipped: self.skipped + 1 };
    }

    /// Notes a batch, and whether its gradients were finite.
    pub(super) fn stepped(&mut self, finite: bool, config: &LossScale) {
        self.since = if finite { self.since + 1 } else { 0 };
        if self.since >= config.interval {
            self.scale = (2.0 * self.scale).min(LossScale::LARGEST);
            self.since = 0;
        }
    }

    /// As it stands in a checkpoint: four words of eight bytes, the last of them the interval.
    pub(super) fn to_bytes(self, config: &LossScale) -> Vec<u8> {
        let words = [self.scale.to_bits(), self.since, self.skipped, config.interval];
        words.map(u64::to_le_bytes).concat()
    }

    /// The state from these bytes of a checkpoint, if it has any.
    pub(super) fn from_bytes(
        bytes: Option<&[u8]>,
        config: &LossScale,
    ) -> Result<Self, CheckpointError> {
        let damaged = |what: &str| CheckpointError::Damaged(what.to_owned());
        let Some(bytes) = bytes else {
            let missing = Difference::Missing { tensor: "tlr.loss_scale".to_owned() };
            return Err(CheckpointError::Differs(vec![missing]));
        };
        let (words, rest) = bytes.as_chunks();
        let ([scale, since, skipped, interval], []) = (words, rest) else {
            return Err(damaged("its loss scale is not one"));
        };
        let [scale, since, skipped, interval] =
            [scale, since, skipped, interval].map(|word| u64::from_le_bytes(*word));
        if interval != config.interval {
            let differs = Difference::Setting {
                name: "loss_scale.interval".to_owned(),
                file: Some(interval.to_string()),
                here: Some(config.interval.to_string()),
            };
            return Err(CheckpointError::Differs(vec![differs]));
        }
        let scale = f64::from_bits(scale);
        if !LossScale::is_possible(scale) {
            return Err(damaged("its loss scale is impossible"));
        }
        if since >= MAX_COUNT || skipped >= MAX_COUNT {
            return Err(damaged("a count of its loss scale is impossible"));
        }
        Ok(Self { scale, since, skipped })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    // Fails where a bad scale is taken, where a count ends in an overflow, and where bytes that are
    // too many are left unread.
    #[test]
    fn an_impossible_loss_scale_is_refused() {
        let config = LossScale::default();
        let forged = |scale: f64, since: u64, skipped: u64| {
            [scale.to_bits(), since, skipped, config.interval].map(u64::to_le_bytes).concat()
        };
        for bad in [
            forged(3.0, 0, 0),
            forged(65536.0, 0, 0),
            forged(f64::NAN, 0, 0),
            forged(2.0, u64::MAX, 0),
            forged(2.0, 0, u64::MAX),
        ] {
            let Err(CheckpointError::Damaged(what)) = ScaleState::from_bytes(Some(&bad), &config)
            else {
                panic!("{bad:?}")
            };
            assert!(what.contains("loss scale is impossible"), "{what}");
        }
        let good = forged(2.0, 1 << 40, 7);
        let state = ScaleState::from_bytes(Some(&good), &config).unwrap();
        assert_eq!(state, ScaleState { scale: 2.0, since: 1 << 40, skipped: 7 });
        for cut in [&good[..31], &[&good[..], &[0]].concat(), &[&good[..], &[0; 8]].concat()] {
            assert!(ScaleState::from_bytes(Some(cut), &config).is_err());
        }
    }
}
