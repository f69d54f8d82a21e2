//! What can go wrong between the ranks of a training.

use serde::{Deserialize, Serialize};

/// What is wrong with a rank, as part of [`Error::Parallel`](crate::Error::Parallel).
///
/// All ranks name the same rank. If ranks differ, it is the one that differs from most of the
/// others; between two ranks, the second.
///
/// # Example
/// What a program says of a training that cannot go on.
/// ```
/// use tlr::{Error, ParallelError};
///
/// fn advice(error: &Error) -> Option<String> {
///     let Error::Parallel { rank, problem, .. } = error else { return None };
///     Some(match problem {
///         ParallelError::Failed { message } => format!("look at rank {rank}: {message}"),
///         ParallelError::Ended => format!("look into the log of rank {rank}"),
///         _ => "start all ranks alike".to_owned(),
///     })
/// }
///
/// let error = Error::Parallel { rank: 1, step: 7, problem: ParallelError::Ended };
/// assert_eq!(advice(&error).as_deref(), Some("look into the log of rank 1"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ParallelError {
    /// Nothing came from the rank in time. It has ended, has been stopped, or is busy with
    /// something else.
    #[error(
        "nothing came from it for {seconds} s: see whether it still runs; where the others \
         have to wait longer for it, raise the time-out"
    )]
    TimeOut {
        /// How long the others have waited, in seconds.
        seconds: f64,
    },
    /// The rank has ended.
    #[error(
        "it has ended: its own output says why; start all ranks again from the last checkpoint"
    )]
    Ended,
    /// The rank has failed by itself.
    #[error("{message}")]
    Failed {
        /// What went wrong on it.
        message: String,
    },
    /// The model, an option or the data differs.
    #[error(
        "its {what} is {here}, and that of rank {other} is {there}: start all ranks with the \
         same model, options and data"
    )]
    Differs {
        /// What is different: a tensor, an option, the data.
        what: String,
        /// Its value on the rank that differs.
        here: String,
        /// One of the ranks that agree.
        other: usize,
        /// Its value on that one.
        there: String,
    },
    /// The rank has made another number of steps.
    #[error(
        "it has made {here} steps, and rank {other} has made {there}: each rank has to make \
         the same steps"
    )]
    Steps {
        /// Steps of the rank that differs.
        here: u64,
        /// One of the ranks that agree.
        other: usize,
        /// Steps of that one.
        there: u64,
    },
    /// A learning rate differs.
    #[error(
        "its rate of `{layer}` is {here:e}, and that of rank {other} is {there:e}: the ranks \
         have decided differently, so they no longer train one model; go on from the last \
         checkpoint"
    )]
    Rate {
        /// The layer, or `model`.
        layer: String,
        /// The rate on the rank that differs.
        here: f64,
        /// One of the ranks that agree.
        other: usize,
        /// The rate on that one.
        there: f64,
    },
    /// What the rank remembers of a layer's windows differs.
    #[error(
        "it remembers something else of `{layer}` than rank {other}: the ranks no longer \
         train one model; go on from the last checkpoint"
    )]
    Memory {
        /// The layer, or `model`.
        layer: String,
        /// One of the ranks that agree.
        other: usize,
    },
    /// Weights differ.
    #[error(
        "its `{tensor}` is not that of rank {other}: call `broadcast` on every rank before \
         training; if they were the same then, go on from the last checkpoint"
    )]
    Weights {
        /// The first such tensor.
        tensor: String,
        /// One of the ranks that agree.
        other: usize,
    },
    /// The rank has made another call than the others.
    #[error(
        "it sent {found} where {expected} was expected: each rank has to make the same calls \
         in the same order"
    )]
    Order {
        /// What was expected from it.
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
        /// The message of the library that carries them.
        message: String,
    },
}
