//! What an engine receives ([`Event`]), what it asks for ([`Request`]), and how a step ends
//! ([`Step`]).

use super::{
    history::Adaptation,
    products::{Slope, WindowProducts},
};
use crate::error::Cause;
use serde::{Deserialize, Serialize};

/// What has happened. Each event but [`Batch`](Self::Batch) answers the [`Request`] before it.
///
/// # Example
/// A step of a host that has nothing but a loss and its window's products.
/// ```
/// use tlr::{engine::*, Step, Window};
///
/// let group = Group { name: "model".into(), fixed_rate: false, rate: 0.1 };
/// let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
/// let config = Config::new(NewtonRule::default()).window(Window::steps(1)?);
/// let mut engine = Engine::new(config, vec![group], facts)?;
/// let mut event = Event::Batch { loss: Some(1.0), only_gathers: false };
/// let step = loop {
///     event = match engine.tell(event)? {
///         Request::TakeSnapshot(_) => Event::SnapshotTaken,
///         Request::Update => Event::Updated, // at `engine.effective_rates()`
///         Request::EndWindow => {
///             Event::WindowEnded(vec![WindowProducts { across: 0.0, own: 0.01 }])
///         }
///         Request::Done(step) => break step,
///         other => unreachable!("{other:?}"),
///     };
/// };
/// assert!(matches!(step, Step::WindowEnded { .. }));
/// # Ok::<(), tlr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The gradients of a batch are there: a step begins.
    Batch {
        /// The batch's loss, if there is one.
        loss: Option<f64>,
        /// Whether the base optimizer will only gather the gradients for a step to come, and leave
        /// the weights where they are.
        only_gathers: bool,
    },
    /// Answers [`Request::TakeSnapshot`].
    SnapshotTaken,
    /// Answers [`Request::CheckWeights`].
    WeightsChecked {
        /// Whether all weights are finite.
        finite: bool,
    },
    /// Answers [`Request::MeasureSlopes`]: one for each group. Empty if the host cannot measure
    /// them.
    Slopes(Vec<Slope>),
    /// Answers [`Request::Update`].
    Updated,
    /// Answers [`Request::ClearOptimizer`].
    OptimizerCleared,
    /// Answers [`Request::Skip`].
    Skipped,
    /// Answers [`Request::EndWindow`]: the products of each group.
    WindowEnded(Vec<WindowProducts>),
    /// Answers [`Request::EndWindow`]: a weight is not finite, and the last snapshot has not moved.
    WindowBroken {
        /// The first such tensor.
        tensor: String,
    },
    /// Answers [`Request::TellMovable`]: whether a step of plain gradient descent at a rate of 1
    /// would move any weight of each group. Empty if the host cannot find out.
    Movable(Vec<bool>),
    /// Answers [`Request::MeasureNorms`]: ‖w‖ of each group. Empty if the host cannot measure it.
    Norms(Vec<f64>),
    /// Answers [`Request::GoBack`].
    WentBack,
}

/// What is to be done next.
///
/// Example: [`Event`].
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Remember the model's tensors as they are. Answer with [`Event::SnapshotTaken`].
    TakeSnapshot(TensorKind),
    /// Look whether all weights are finite. Answer with [`Event::WeightsChecked`].
    CheckWeights,
    /// Measure the slope of each group: the batch's gradient along the way since a snapshot. Answer
    /// with [`Event::Slopes`].
    MeasureSlopes(Target),
    /// Update the weights at the rates that
    /// [`Engine::effective_rates`](super::Engine::effective_rates) has. Answer with
    /// [`Event::Updated`].
    Update,
    /// Clear what the base optimizer has accumulated, such as its velocity: the
    /// [`ramp`](super::Config::ramp) has ended. Answer with [`Event::OptimizerCleared`].
    ClearOptimizer,
    /// Leave the batch out: put the buffers back as they are in the snapshot. Answer with
    /// [`Event::Skipped`].
    Skip {
        /// Whether gradients that were gathered for the same step go as well.
        drop_gathered: bool,
    },
    /// Compute each group's products from the last two snapshots and the weights, then move the
    /// snapshots on. Answer with [`Event::WindowEnded`] or [`Event::WindowBroken`].
    EndWindow,
    /// Tell which groups would move at a rate of 1. Answer with [`Event::Movable`].
    TellMovable,
    /// Measure each group's norm at the last snapshot. Answer with [`Event::Norms`].
    MeasureNorms,
    /// Put weights and buffers back as they are in a snapshot, clear what the base optimizer has
    /// accumulated, and drop gathered gradients. Answer with [`Event::WentBack`].
    GoBack(Target),
    /// Nothing: the step is over.
    Done(Step),
}

/// Some of a model's tensors.
///
/// Example: [`engine`](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorKind {
    /// The tensors that are trained.
    Weights,
    /// The other tensors, such as running means.
    Buffers,
}

/// The snapshot that a rollback goes to, or that a way is measured from.
///
/// Example: [`engine`](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The last snapshot.
    Last,
    /// The snapshot before the last. After a rollback to it, it is the last one.
    BeforeLast,
}

/// How a step ended.
///
/// Example: [`decisions`](Self::decisions).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// The weights were updated.
    Made,
    /// The weights were updated, and the starting rate is still being looked for: see
    /// [`Config::ramp`](super::Config::ramp).
    Ramped {
        /// The changes of rates that came with the step: none, or one for each group.
        decisions: Vec<Adaptation>,
    },
    /// The gradients were gathered for a step to come, and the weights are where they were.
    Gathered,
    /// The batch was left out. The weights are where they were; buffers, such as running means, are
    /// those of the last snapshot, for the batch has been through the forward pass. (For
    /// [`Cause::GradientOverflow`] they are those before the batch.)
    Skipped(Cause),
    /// The weights were updated, and a window ended with it. An exact step is a window of its own.
    WindowEnded {
        /// The decision on each group's rate, in the order of the groups.
        decisions: Vec<Adaptation>,
    },
    /// The window was undone: the weights are those of the last good snapshot.
    RolledBack {
        /// Why.
        cause: Cause,
        /// The decision on each group's rate, in the order of the groups.
        decisions: Vec<Adaptation>,
    },
}

impl Step {
    /// The decisions on rates that came with this step: none, or one a group.
    ///
    /// # Example
    /// ```
    /// use tlr::{Adaptation, Outcome, Step};
    ///
    /// let decision = Adaptation::new(30, "head", 0.1, 0.2, None, Outcome::Scaled);
    /// let step = Step::WindowEnded { decisions: vec![decision] };
    /// for Adaptation { layer, from, to, outcome, .. } in step.decisions() {
    ///     assert_eq!(format!("{layer}: {from} to {to}, {outcome}"), "head: 0.1 to 0.2, scaled");
    /// }
    /// assert!(Step::Made.decisions().is_empty());
    /// ```
    pub fn decisions(&self) -> &[Adaptation] {
        match self {
            Self::WindowEnded { decisions }
            | Self::RolledBack { decisions, .. }
            | Self::Ramped { decisions } => decisions,
            Self::Made | Self::Gathered | Self::Skipped(_) => &[],
        }
    }
}
