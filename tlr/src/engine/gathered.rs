//! The losses of the batches whose gradients are gathered for one step.

use super::{exact, mean::running_mean, possible::MAX_COUNT};
use serde::{Deserialize, Serialize};

/// The batches whose gradients the base optimizer has gathered for the step to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GatheredLosses {
    batches: u64,
    /// The batches among them that had a loss.
    losses: u64,
    /// The mean of these losses.
    #[serde(with = "exact")]
    mean: f64,
}

impl GatheredLosses {
    /// These losses with those of one more batch, which may have no loss.
    pub(super) fn with(self, loss: Option<f64>) -> Self {
        let all = Self { batches: self.batches + 1, ..self };
        match loss {
            Some(loss) => all.with_loss(loss),
            None => all,
        }
    }

    fn with_loss(self, loss: f64) -> Self {
        let losses = self.losses + 1;
        Self { losses, mean: running_mean(self.mean, loss, losses as f64), ..self }
    }

    /// The mean of the losses. None if no batch had one.
    pub(super) fn mean(self) -> Option<f64> {
        (self.losses > 0).then_some(self.mean)
    }

    /// Whether there is no batch.
    pub(super) fn is_empty(self) -> bool {
        self.batches == 0
    }

    pub(super) fn is_possible(self) -> bool {
        self.losses <= self.batches && self.batches <= MAX_COUNT
    }
}
