//! [`StepFigures`]: what a trainer passes to an optimizer that averages over ranks, and gets back.

use crate::{engine::Standing, error::Error};

/// The figures of one step, which
/// [`TunableOptimizer::average_over_ranks`](super::TunableOptimizer::average_over_ranks) replaces
/// by those of all ranks together.
///
/// An optimizer that wraps another one hands the figures on as they are.
///
/// Example: [`forward!`](super::forward!).
#[derive(Clone, Debug)]
pub struct StepFigures {
    pub(crate) loss: Option<f64>,
    /// The weight of this rank's batch; after averaging, the sum of the weights of all ranks.
    pub(crate) weight: f64,
    /// The engine's standing, which has to be the same on all ranks. None without an engine.
    pub(crate) standing: Option<Standing>,
    /// Whether this is a second set of gradients for the same batches.
    pub(crate) again: bool,
    /// Whether gradients that are means already, left over from a step that failed, are taken as
    /// they are.
    pub(crate) unless_averaged: bool,
}

impl StepFigures {
    pub(crate) fn new(loss: Option<f64>) -> Self {
        Self { loss, weight: 1.0, standing: None, again: false, unless_averaged: false }
    }

    pub(crate) fn again(self) -> Self {
        Self { again: true, ..self }
    }

    pub(crate) fn unless_averaged() -> Self {
        Self { unless_averaged: true, ..Self::new(None) }
    }
}

/// The largest weight of a batch. The sum over all batches and ranks of a step, and its product
/// with a gradient of f32, stay finite.
const MOST_WEIGHT: f64 = 1e100;

/// `Ok` if a batch can have this weight. If other ranks have a part of it, it may be 0.
pub(crate) fn check_weight(weight: f64, has_other_parts: bool) -> Result<(), Error> {
    let (least, range) = match has_other_parts {
        true => (0.0, "from 0 to 1e100"),
        false => (f64::MIN_POSITIVE, "above 0 and at most 1e100"),
    };
    let in_range = (least..=MOST_WEIGHT).contains(&weight);
    Error::unless(in_range, "the weight of a batch", range, weight)
}
