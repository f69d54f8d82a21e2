//! What can go wrong. This module depends on no other but the range of rates.

mod changed;
mod checkpoint;
mod device;
mod parallel;
mod words;

pub use changed::TensorDifference;
pub use checkpoint::{CheckpointError, Difference};
pub use device::DeviceError;
pub use parallel::ParallelError;

use crate::rates::RATES;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};
use words::{hint, overflow, plural, shown};

/// What can go wrong, and what to do about it.
///
/// After an error the model's weights are as they were before the call, all of them, unless the
/// variant says otherwise.
///
/// # Example
/// ```
/// use tlr::{Error, Window};
///
/// match Window::steps(0) {
///     Err(Error::OutOfRange { range, value, .. }) => {
///         assert_eq!((range, value), ("at least 1", 0.0));
///     }
///     other => unreachable!("{other:?}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number is outside its range.
    #[error("{what} must be {range}, not {}{}", shown(*value), hint(advice))]
    OutOfRange {
        /// The number's name: a field or an argument, such as `damping` or `safeguard.cut`.
        what: &'static str,
        /// The values it may have.
        range: &'static str,
        /// The value it was given.
        value: f64,
        /// What to try instead, or nothing.
        advice: &'static str,
    },
    /// A sketch was asked for beside the safeguard.
    #[error(
        "a sketch keeps no weights that the safeguard could go back to: take \
         `safeguard(None)` with it, or leave it out"
    )]
    SketchWithSafeguard,
    /// A schedule's factor is negative or not finite. Buffers, such as running means, are those of
    /// the last snapshot.
    #[error(
        "the schedule's factor is {factor} at step {step}, and must be finite and at least 0: \
         nothing was updated"
    )]
    ScheduleFactor {
        /// The step, counted from 1.
        step: u64,
        /// The schedule's factor, times that of the horizon.
        factor: f64,
    },
    /// A group's starting rate is zero, negative, not finite, or outside
    /// [`RATES`](crate::engine::RATES).
    #[error(
        "the starting learning rate of `{group}` must be in [{:e}, {:e}], not {rate:e}",
        RATES.start(), RATES.end()
    )]
    Rate {
        /// The group's name: a layer's path, or `model`.
        group: String,
        /// Its starting rate.
        rate: f64,
    },
    /// The model has nothing to train.
    #[error("the model has no trainable tensor, so there is no rate to learn")]
    NothingToTrain,
    /// A trainable tensor belongs to no layer, so `PerLayer` would never update it.
    #[error(
        "no layer holds the trainable tensor `{tensor}`: `TensorCollection` visits it and \
         `TrainableLr` does not; remove its `#[tlr(skip)]` or visit it in both; \
         `#[tlr(untrained)]` needs tlr's `#[derive(TensorCollection)]`"
    )]
    TensorOutsideLayers {
        /// The tensor.
        tensor: String,
    },
    /// A field of a derived model has an attribute that the optimizer cannot follow.
    #[error("`#[tlr({attribute})]` of `{field}` would have no effect: {advice}")]
    AttributeWithoutEffect {
        /// The attribute, such as `untrained`.
        attribute: &'static str,
        /// The struct and its field, such as `Model::head`.
        field: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A tensor is a view that is not laid out contiguously.
    #[error(
        "the tensor `{tensor}` is not contiguous: call `.contiguous()` on it before it \
         becomes a parameter"
    )]
    NotContiguous {
        /// The tensor.
        tensor: String,
    },
    /// The model is not the one the optimizer was made for.
    #[error(
        "the model's layers changed under the optimizer ({}): make a new optimizer for the new \
         model",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    ModelChanged(Vec<TensorDifference>),
    /// Some parameters have no gradient: the loss does not depend on them.
    ///
    /// What the optimizer has accumulated is as it was, if its `complete_gradients` makes a copy of
    /// the gradients. Otherwise it is cleared.
    #[error(
        "no gradient for {}: no weight was moved; trace the input with `model.alloc_grads()`, \
         which gives unused parameters a gradient of zero, or take them out of the model",
        .tensors.join(", ")
    )]
    UnusedParameters {
        /// The tensors without a gradient.
        tensors: Vec<String>,
    },
    /// The loss is not finite and there is no safeguard that could undo the window. Buffers, such
    /// as running means, are those of the last snapshot.
    ///
    /// In half precision an infinite loss may be a mean whose sum overflowed: dfdx takes a mean by
    /// way of the sum, which is infinite above 65504 however small the mean is.
    #[error(
        "the loss is {loss} at step {step} and the safeguard is off: nothing was updated{}",
        overflow(loss.is_infinite())
    )]
    NonFiniteLoss {
        /// The step, counted from 1.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A weight is not finite, and a [sketch](crate::engine::Config::sketch) has no snapshot to go
    /// back to: the weights are as they are.
    #[error(
        "`{tensor}` is not finite after step {step}, and a sketch has no snapshot to go back \
         to: load a checkpoint and lower the rate, or train without a sketch"
    )]
    LostWeights {
        /// The step, counted from 1.
        step: u64,
        /// The first such tensor.
        tensor: String,
    },
    /// A weight is not finite and the safeguard is off. The model is at its last good snapshot.
    #[error(
        "`{tensor}` is not finite after step {step} and the safeguard is off: the model is \
         back at its last good snapshot; check the gradients, or lower the rate"
    )]
    NonFiniteWeights {
        /// The step, counted from 1.
        step: u64,
        /// The first such tensor.
        tensor: String,
    },
    /// A step would leave the finite numbers. Nothing was moved. What the optimizer has accumulated
    /// is as it was, or cleared if the optimizer keeps no copy of it.
    #[error(
        "`{tensor}` would not be finite after step {step}: nothing was moved; check the \
         gradients, or lower the rate"
    )]
    NonFiniteStep {
        /// The step, counted from 1.
        step: u64,
        /// The first such tensor.
        tensor: String,
    },
    /// No point along the direction passes the line search. Weights and rates are as they were, and
    /// what the optimizer has accumulated is too, or cleared if the optimizer keeps no copy of it.
    #[error(
        "no step along the direction passes the line search at step {step}, after {trials} \
         trials: the minimum is reached to rounding, or the loss is not computed on the data of \
         its gradients, or momentum points uphill (`reset` clears it)"
    )]
    NoDescent {
        /// The step, counted from 1.
        step: u64,
        /// The points that were tried.
        trials: usize,
    },
    /// Rolling back does not help. The model is at its last good snapshot. Without a safeguard this
    /// happens only in the [ramp](crate::engine::Config::ramp).
    #[error(
        "{count} rollback{} without one good window, the last at step {step} because {cause}: \
         the model is at its last good snapshot; look for bad data or a broken loss{}, then go on \
         by `reset`, or without learned rates by `into_inner`",
        plural(*count), overflow(*cause == Cause::NonFiniteLoss)
    )]
    TooManyRollbacks {
        /// How many in a row.
        count: usize,
        /// The step of the last, counted from 1.
        step: u64,
        /// Why the last window was undone.
        cause: Cause,
    },
    /// A checkpoint could not be written, read, or taken over. Model and optimizer are as they
    /// were, and so is the file.
    #[error("{}: {problem}", checkpoint::named(.path))]
    Checkpoint {
        /// The file, if there is one.
        path: Option<PathBuf>,
        /// What is wrong.
        problem: CheckpointError,
    },
    /// Training on several ranks cannot go on as it is. All ranks get this error, except the rank
    /// that failed: it gets its own. Before a step every rank waits for the others, so no rank that
    /// gets the error there has moved its weights. (With shared-out snapshots, and in exact steps,
    /// ranks exchange again after weights have moved; this does not hold there.)
    #[error("rank {rank}, step {step}: {problem}")]
    Parallel {
        /// The rank that is to blame, counted from 0; 0 if all are.
        rank: usize,
        /// The step, counted from 1.
        step: u64,
        /// What is wrong with it.
        problem: ParallelError,
    },
    /// The device or the base optimizer failed, for instance for lack of memory. What the optimizer
    /// has accumulated is as it was, or cleared if the failure came in the middle of its update.
    #[error(transparent)]
    Device(DeviceError),
    /// The step was made, and then this failed at the end of the step's window: the device, say,
    /// or another rank. The weights are those after the step. The next step ends the window, if
    /// this one could not.
    #[error("at the end of a window: {0}: the step itself was made")]
    WindowEnd(#[source] Box<Error>),
    /// An [engine](crate::engine::Engine) with these groups and this window cannot be in the state
    /// that it was to resume. The engine is unchanged.
    #[error(
        "this state cannot come from an engine with these groups and this window, by its \
         `{figure}`: it belongs to another configuration, or was edited"
    )]
    ImpossibleState {
        /// The first figure that is impossible, such as `groups.rate`.
        figure: &'static str,
    },
    /// A checkpoint was asked for after the base optimizer had panicked in a step. It may have
    /// moved some of the weights and not others.
    #[error(
        "the base optimizer has panicked in its last update, and may have moved some of the \
         weights and not others: load a checkpoint; or, to go on with these weights, make another \
         step or `reset` before you save them"
    )]
    UpdateInterrupted,
    /// An [engine](crate::engine::Engine) got an event that it had not asked for, or an answer that
    /// does not have one entry for each group. The engine is as it was.
    #[error("the engine was told of {told} and waits for {expected}")]
    OutOfOrder {
        /// The event that it got, in words.
        told: &'static str,
        /// The event that it waits for, in words.
        expected: &'static str,
    },
}

/// What was wrong with a batch that was left out, or with a window that was undone.
///
/// # Example
/// ```
/// use tlr::{Cause, Step};
///
/// let step = Step::Skipped(Cause::NonFiniteLoss); // as `Trainer::step` answers
/// if let Step::Skipped(cause) | Step::RolledBack { cause, .. } = step {
///     assert_eq!(cause.to_string(), "the loss is not finite");
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Cause {
    /// The window's mean loss is above that of the window before by more than noise.
    LossIncreased,
    /// One step's loss is far above all that came before.
    LossExploded,
    /// A loss is NaN or infinite. In half precision that may be a mean whose sum overflowed: see
    /// [`Error::NonFiniteLoss`].
    NonFiniteLoss,
    /// A weight is NaN or infinite.
    NonFiniteWeights,
    /// A gradient is NaN or infinite.
    NonFiniteGradient,
    /// The weights have gone too far: the gradients show that the loss rises along the way.
    WentTooFar,
    /// A gradient is beyond half precision, and the loss scale is to blame.
    GradientOverflow,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LossIncreased => "the mean loss rose",
            Self::LossExploded => "the loss exploded",
            Self::NonFiniteLoss => "the loss is not finite",
            Self::NonFiniteWeights => "a weight is not finite",
            Self::NonFiniteGradient => "a gradient is not finite",
            Self::WentTooFar => "the weights went too far",
            Self::GradientOverflow => "a gradient overflowed",
        })
    }
}

impl Error {
    /// `Ok` if `holds`; otherwise the error that says which range `value` missed.
    pub(crate) fn unless(
        holds: bool,
        what: &'static str,
        range: &'static str,
        value: f64,
    ) -> Result<(), Self> {
        Self::unless_advised(holds, what, range, value, "")
    }

    /// As [`unless`](Self::unless), with advice.
    pub(crate) fn unless_advised(
        holds: bool,
        what: &'static str,
        range: &'static str,
        value: f64,
        advice: &'static str,
    ) -> Result<(), Self> {
        if holds {
            Ok(())
        } else {
            Err(Self::OutOfRange { what, range, value, advice })
        }
    }
}
