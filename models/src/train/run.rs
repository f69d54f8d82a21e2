//! [`Event`], which a run reports while it lasts, and [`Run`], which it leaves.

use crate::report::Epoch;
use tlr::{Adaptation, Outcome};

/// What happens during a run, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The first event: model and data fit, and training is about to begin, or to go on.
    Begun {
        /// Trainable parameters of the model.
        parameters: usize,
        /// Batches in an epoch.
        batches: usize,
        /// Steps in a window, after which a rate is decided on.
        window: usize,
    },
    /// After a step.
    Step {
        /// The epoch, counted from 0.
        epoch: usize,
        /// The batch, counted from 0 within the epoch.
        batch: usize,
        /// Batches in an epoch.
        batches: usize,
        /// The loss of this batch before the step.
        loss: f64,
        /// Each group's name and learned rate after the step.
        rates: Vec<(&'a str, f64)>,
        /// The factor on the learned rates in this step, by schedule or horizon: 1 without one, and
        /// while the starting rate is looked for.
        schedule: f64,
    },
    /// A decision on a rate. It comes before the event of the step that it was made in.
    Decision(&'a Adaptation),
    /// After an epoch and its test.
    Epoch(&'a Epoch),
    /// The run goes on from a checkpoint, or begins if there is none yet. The events that led
    /// there are repeated after this one.
    Resumed {
        /// How many steps had been made when the checkpoint was written; none if there is none.
        step: Option<usize>,
    },
    /// A checkpoint or the best weights could not be written. The run goes on; the file before is
    /// still there.
    NotSaved(&'a dyn std::error::Error),
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Run {
    /// The epochs, in order.
    pub epochs: Vec<Epoch>,
    /// The loss of every step, before it was made.
    pub losses: Vec<f64>,
    /// Every decision on a rate.
    pub history: Vec<Adaptation>,
    /// Optimizer steps in an epoch.
    pub batches_per_epoch: usize,
    /// Trainable parameters of the model.
    pub parameters: usize,
    /// The seconds of the whole run, tests included.
    pub seconds: f64,
}

/// The steps at which windows were undone. With a rate a layer, each step counts once.
///
/// # Example
/// ```
/// let history = []; // of a run: `Run::history`
/// assert!(tlr_models::train::rollback_steps(&history).is_empty());
/// ```
pub fn rollback_steps(history: &[Adaptation]) -> Vec<u64> {
    let mut steps: Vec<_> = history
        .iter()
        .filter(|decision| matches!(decision.outcome, Outcome::RolledBack(_)))
        .map(|decision| decision.step)
        .collect();
    steps.dedup();
    steps
}
