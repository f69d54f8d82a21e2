//! What can go wrong between the ranks of a training.

use serde::{Deserialize, Serialize};

/// What is wrong with a rank, as part of [`Error::Parallel`](crate::Error::Parallel).
///
/// All ranks name the same rank. Where ranks differ, it is the one that differs from most of the
/// others; between two ranks, the second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ParallelError {
    /// Nothing came from it in time. It has ended, has been stopped, or is busy with something
    /// else.
    #[error(
        "nothing came from it for {seconds} s: see whether it still runs; where the others \
         have to wait longer for it, raise the time-out"
    )]
    TimeOut {
        /// How long was waited for it.
        seconds: f64,
    },
    /// It has ended.
    #[error(
        "it has ended: its own output says why; start all ranks again from the last checkpoint"
    )]
    Ended,
    /// It has failed by itself.
    #[error("{message}")]
    Failed {
        /// What went wrong there.
        message: String,
    },
    /// It was started with something else.
    #[error(
        "its {what} is {here}, and that of rank {other} is {there}: start all ranks with the \
         same model, options and data"
    )]
    Differs {
        /// What is different: a tensor, an option, the data.
        what: String,
        /// What it is on the rank that is named.
        here: String,
        /// A rank of the many.
        other: usize,
        /// What it is there.
        there: String,
    },
    /// It has made another number of steps.
    #[error(
        "it has made {here} steps, and rank {other} has made {there}: each rank has to make \
         the same steps"
    )]
    Steps {
        /// Steps of the rank that is named.
        here: u64,
        /// A rank of the many.
        other: usize,
        /// Its steps.
        there: u64,
    },
    /// A rate is another one there.
    #[error(
        "its rate of `{layer}` is {here:e}, and that of rank {other} is {there:e}: the ranks \
         have decided differently, so they no longer train one model; go on from the last \
         checkpoint"
    )]
    Rate {
        /// The layer, or `model`.
        layer: String,
        /// The rate on the rank that is named.
        here: f64,
        /// A rank of the many.
        other: usize,
        /// The rate there.
        there: f64,
    },
    /// What it remembers of a layer's windows is something else.
    #[error(
        "it remembers something else of `{layer}` than rank {other}: the ranks no longer \
         train one model; go on from the last checkpoint"
    )]
    Memory {
        /// The layer, or `model`.
        layer: String,
        /// A rank of the many.
        other: usize,
    },
    /// Weights are other ones there.
    #[error(
        "its `{tensor}` is not that of rank {other}: call `broadcast` on every rank before \
         training; if they were the same then, go on from the last checkpoint"
    )]
    Weights {
        /// The first such tensor.
        tensor: String,
        /// A rank of the many.
        other: usize,
    },
    /// It is doing something else.
    #[error(
        "it sent {found} where {expected} was expected: each rank has to make the same calls \
         in the same order"
    )]
    Order {
        /// What was expected of it.
        expected: String,
        /// What came.
        found: String,
    },
    /// No rank has any example for this step.
    #[error("the batches of all ranks weigh 0: give at least one of them an example")]
    NoExamples,
    /// What carries the messages has failed.
    #[error("the message passing failed: {message}")]
    Transport {
        /// Its own words.
        message: String,
    },
}
