use crate::{
    checkpoint::{named, CheckpointError},
    history::RollbackCause,
};
use std::path::PathBuf;

/// What can go wrong, and what to do about it.
///
/// After any of these but [`LostWeights`](Self::LostWeights) the model's weights are finite and whole: as they were before
/// the call, or at the last good snapshot where the variant says so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The damping γ is outside (0, 1].
    #[error("damping must be in (0, 1], not {0}: try the default, 0.33")]
    Damping(f64),
    /// The growth cap is not above 1.
    #[error("max_factor must be finite and above 1, not {0}: the paper uses 100")]
    MaxFactor(f64),
    /// The meta-learning rate η of a first-order rule is not positive.
    #[error("the meta-learning rate of a hypergradient must be finite and above 0, not {0}")]
    MetaLearningRate(f64),
    /// The fraction p of an epoch is outside (0, 1].
    #[error("a window is a fraction in (0, 1] of an epoch, not {0}: try the default, 0.2")]
    WindowFraction(f64),
    /// The least length of a window is no number of memories.
    #[error("memories must be finite and at least 0, not {0}: try the default, 5")]
    Memories(f64),
    /// The cosine to climb above is outside (0, 1).
    #[error("the cosine to climb above must be in (0, 1), not {0}: try the default, 0.8, or None")]
    Climb(f64),
    /// A sketch of another number of bins than a power of two from 64 to 2²⁴.
    #[error("a sketch has a power of two of bins, from 64 to 16777216, not {0}: try NewtonConfig::SKETCH, 16384")]
    Sketch(usize),
    /// A sketch holds no weights, and the safeguard has to go back to some.
    #[error("a sketch keeps no weights that the safeguard could go back to: take `safeguard(None)` with it, or leave it out")]
    SketchWithSafeguard,
    /// An epoch of no batches.
    #[error("an epoch has no batches: give the number of optimizer steps in an epoch")]
    EmptyEpoch,
    /// A window of no steps.
    #[error("a window has at least one step")]
    EmptyWindow,
    /// A figure of the safeguard is out of range.
    #[error("safeguard: {field} must be {range}, not {value}")]
    Safeguard {
        /// The field of [`Safeguard`](crate::Safeguard).
        field: &'static str,
        /// The values it may have.
        range: &'static str,
        /// The value it was given.
        value: f64,
    },
    /// The limit of a [`Clip`](crate::optim::Clip) is not finite and above 0.
    #[error("clip: {field} must be finite and above 0, not {value}")]
    Clip {
        /// `max_norm` or `limit`.
        field: &'static str,
        /// The value it was given.
        value: f64,
    },
    /// An [`Accumulate`](crate::optim::Accumulate) of no batches.
    #[error("a step gathers the gradients of at least one batch")]
    EmptyAccumulation,
    /// A figure of the line search is out of range.
    #[error("line search: {field} must be {range}, not {value}")]
    LineSearch {
        /// The field of [`LineSearch`](crate::LineSearch).
        field: &'static str,
        /// The values it may have.
        range: &'static str,
        /// The value it was given.
        value: f64,
    },
    /// A figure of the loss scale is out of range.
    #[error("loss scale: {field} must be {range}, not {value}")]
    LossScale {
        /// The field of [`LossScale`](crate::LossScale).
        field: &'static str,
        /// The values it may have.
        range: &'static str,
        /// The value it was given.
        value: f64,
    },
    /// A figure of a schedule is out of range.
    #[error("schedule: {field} must be {range}, not {value}")]
    Schedule {
        /// The argument of the constructor of [`Schedule`](crate::Schedule).
        field: &'static str,
        /// The values it may have.
        range: &'static str,
        /// The value it was given.
        value: f64,
    },
    /// A schedule's factor is negative or not finite. Nothing was changed.
    #[error("the schedule's factor is {factor} at step {step}, and the rate cannot be multiplied by that: nothing was updated")]
    ScheduleFactor {
        /// Counted from 1.
        step: u64,
        /// What the schedule said.
        factor: f64,
    },
    /// A starting rate that is zero, negative, not finite, or outside
    /// [`RATES`](crate::rule::RATES).
    #[error("the starting learning rate of `{group}` must be in [{min:e}, {max:e}], not {rate:e}", min = crate::rule::RATES.start(), max = crate::rule::RATES.end())]
    Rate {
        /// The group of layers.
        group: String,
        /// The rate.
        rate: f64,
    },
    /// The model has nothing to train.
    #[error("the model has no trainable tensor, so there is no rate to learn")]
    NothingToTrain,
    /// A trainable tensor belongs to no layer, so `PerLayer` would never update it.
    #[error("no layer holds the trainable tensor `{tensor}`: `TensorCollection` visits it and `TrainableLr` does not; remove its `#[tlr(skip)]` or visit it in both")]
    TensorOutsideLayers {
        /// The tensor.
        tensor: String,
    },
    /// A tensor is a view that is not laid out contiguously.
    #[error("the tensor `{tensor}` is not contiguous: call `.contiguous()` on it before it becomes a parameter")]
    NotContiguous {
        /// The tensor.
        tensor: String,
    },
    /// The model is not the one the optimizer was made for. Nothing was changed.
    #[error("the model's layers changed under the optimizer ({what}): make a new optimizer for the new model")]
    ModelChanged {
        /// What is different.
        what: String,
    },
    /// Parameters that the loss does not depend on, as far as the gradients tell. The weights are as
    /// they were before the step; what the optimizer has accumulated too, if it takes
    /// [gradients of its own](crate::LearningRate::own_gradients), and otherwise it is cleared.
    #[error("no gradient for {}: no weight was moved; trace the input with `model.alloc_grads()`, which gives unused parameters a gradient of zero, or take them out of the model", .tensors.join(", "))]
    UnusedParameters {
        /// The tensors without a gradient.
        tensors: Vec<String>,
    },
    /// The loss is not finite and there is no safeguard to roll back. Nothing was changed.
    #[error("the loss is {loss} at step {step} and the safeguard is off: nothing was updated")]
    NonFiniteLoss {
        /// Counted from 1.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A weight is not finite, and beside a [sketch](crate::Config::sketch) there is no snapshot to go back to: the weights
    /// are as they are.
    #[error("`{tensor}` is not finite after step {step}, and a sketch has no snapshot to go back to: load a checkpoint and lower the rate, or train without a sketch")]
    LostWeights {
        /// Counted from 1.
        step: u64,
        /// The tensor.
        tensor: String,
    },
    /// A weight is not finite and there is no safeguard to roll back. The model is at its last good
    /// snapshot.
    #[error("`{tensor}` is not finite after step {step} and the safeguard is off: the model is back at its last good snapshot; check the gradients, or lower the rate")]
    NonFiniteWeights {
        /// Counted from 1.
        step: u64,
        /// The first such tensor.
        tensor: String,
    },
    /// A step that would leave the finite numbers. Nothing was moved; the optimizer's accumulated
    /// state is cleared.
    #[error("`{tensor}` would not be finite after step {step}: nothing was moved; check the gradients, or lower the rate")]
    NonFiniteStep {
        /// Counted from 1.
        step: u64,
        /// The first such tensor.
        tensor: String,
    },
    /// No point along the direction passes the line search. Weights and rates are as they were; the
    /// optimizer's accumulated state is cleared.
    #[error("no step along the direction passes the line search at step {step}, after {trials} trials: the minimum is reached to rounding, or the loss is not computed on the data of its gradients, or momentum points uphill (its state is cleared: try again)")]
    NoDescent {
        /// Counted from 1.
        step: u64,
        /// Points tried.
        trials: usize,
    },
    /// Rolling back does not help. The model is at its last good snapshot.
    #[error("{count} rollbacks without one good window, the last at step {step} because {cause}: the model is at its last good snapshot; look for bad data or a broken loss")]
    TooManyRollbacks {
        /// How many in a row.
        count: usize,
        /// The step of the last, counted from 1.
        step: u64,
        /// Why the last.
        cause: RollbackCause,
    },
    /// A checkpoint could not be written, read, or taken over. Model and optimizer are as they were, and so is the
    /// file.
    #[error("{}: {problem}", named(.path))]
    Checkpoint {
        /// The file, where there is one.
        path: Option<PathBuf>,
        /// What is wrong.
        problem: CheckpointError,
    },
    /// The device failed, for instance for lack of memory. The weights are as they were.
    #[error("device: {0}")]
    Device(String),
}
