//! The one trait through which an engine's driver sees weights, and that driver.

use super::{
    event::{Event, Request, Step, Target, TensorKind},
    products::{Slope, WindowProducts},
    rule::RateRule,
    Engine,
};
use crate::error::Error;

/// Has the weights, the gradients and the base optimizer, and does what an [`Engine`] decides.
///
/// A method that fails leaves the weights as they were before it.
///
/// Copy the buffers when the host is made, and again before each forward pass while
/// [`Engine::lacks_snapshot`] is true. [`skip`](Self::skip) and [`go_back`](Self::go_back) need the
/// copy, and may be asked for before the first [`take_snapshot`](Self::take_snapshot) of the
/// buffers.
///
/// Example: [`engine`](super).
pub trait Host {
    /// What can go wrong, such as a device that runs out of memory.
    type Error;

    /// Remembers the model's tensors of one kind as they are.
    ///
    /// # Errors
    /// The host's own.
    fn take_snapshot(&mut self, kind: TensorKind) -> Result<(), Self::Error>;

    /// Updates the weights, each group at its rate. Or only gathers the gradients, if that is what
    /// the base optimizer does with them.
    ///
    /// # Errors
    /// The host's own.
    fn update(&mut self, rates: &[f64]) -> Result<(), Self::Error>;

    /// Leaves the batch out: the buffers, which the forward pass may have changed, are put back as
    /// they are in the snapshot. With `drop_gathered`, gathered gradients go as well.
    ///
    /// # Errors
    /// The host's own.
    fn skip(&mut self, drop_gathered: bool) -> Result<(), Self::Error>;

    /// Computes the products of each group, and then moves the snapshots on. If a weight is not
    /// finite, the last snapshot stays. In the first window after a start, a rollback or a restart
    /// there is no snapshot before the last: [`WindowProducts::across`] may be any number then.
    ///
    /// # Errors
    /// The host's own. The last snapshot is as it was then; the one before may be lost.
    fn end_window(&mut self) -> Result<WindowEnd, Self::Error>;

    /// Whether all weights are finite.
    ///
    /// # Errors
    /// The host's own.
    fn weights_are_finite(&mut self) -> Result<bool, Self::Error>;

    /// The slope of each group: the batch's gradient along the way since a snapshot. The gradient
    /// is that of the loss, before the base optimizer clips it or adds a decay to it. By default it
    /// is empty: the host cannot measure it. Then there is no ramp, and every rise of the loss is
    /// blamed on all rates.
    ///
    /// # Errors
    /// The host's own.
    fn slopes(&mut self, _since: Target) -> Result<Vec<Slope>, Self::Error> {
        Ok(Vec::new())
    }

    /// Whether a step of plain gradient descent at a rate of 1 would move any weight of each group.
    /// Empty if the host cannot find out, which is the default.
    ///
    /// # Errors
    /// The host's own.
    fn movable(&mut self) -> Result<Vec<bool>, Self::Error> {
        Ok(Vec::new())
    }

    /// ‖w‖ of each group at the last snapshot. Empty if the host cannot measure it, which is the
    /// default.
    ///
    /// # Errors
    /// The host's own.
    fn norms(&mut self) -> Result<Vec<f64>, Self::Error> {
        Ok(Vec::new())
    }

    /// Clears what the base optimizer has accumulated, such as its velocity. The weights stay. By
    /// default it does nothing, as for an optimizer that accumulates nothing.
    ///
    /// # Errors
    /// The host's own. Training goes on with what the optimizer has.
    fn clear_optimizer(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Puts weights and buffers back as they are in a snapshot, clears what the base optimizer has
    /// accumulated, and drops gathered gradients.
    ///
    /// # Errors
    /// The host's own. Weights and snapshots are as they were then.
    fn go_back(&mut self, target: Target) -> Result<(), Self::Error>;
}

/// The host's answer at the end of a window.
///
/// Example: [`engine`](super).
#[derive(Clone, Debug, PartialEq)]
pub enum WindowEnd {
    /// The products of each group. The snapshots have moved on.
    Products(Vec<WindowProducts>),
    /// A weight is not finite. The last snapshot is as it was; the one before may be lost.
    Broken {
        /// The first such tensor.
        tensor: String,
    },
}

/// Why a step was not finished.
///
/// # Example
/// ```
/// use tlr::engine::StepError;
///
/// let error = StepError::Host { error: tlr::Error::NothingToTrain, step_made: true };
/// assert!(error.to_string().ends_with(": the step itself was made"));
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StepError<E> {
    /// The engine has given up.
    #[error(transparent)]
    Engine(Error),
    /// The host has failed.
    #[error("{error}{}", if *.step_made { ": the step itself was made" } else { "" })]
    Host {
        /// What went wrong.
        #[source]
        error: E,
        /// Whether it went wrong at the end of a window, after the update.
        step_made: bool,
    },
}

/// Makes one step: asks the engine what to do and has the host do it, until the step is over.
///
/// A step that had begun and was not finished is given up first, as by [`Engine::host_failed`]: a
/// host may have panicked in it, or the engine's state may have been saved within it.
///
/// # Errors
/// [`StepError::Engine`] with an error of [`Engine::tell`]; [`StepError::Host`] with one of the
/// host's. The next step can be driven all the same.
///
/// Example: [`engine`](super).
pub fn drive<R: RateRule, H: Host>(
    engine: &mut Engine<R>,
    host: &mut H,
    loss: Option<f64>,
    only_gathers: bool,
) -> Result<Step, StepError<H::Error>> {
    drive_any(engine, host, loss, only_gathers)
}

/// [`drive`], compiled once for all hosts with the same errors.
fn drive_any<R: RateRule, E>(
    engine: &mut Engine<R>,
    host: &mut dyn Host<Error = E>,
    loss: Option<f64>,
    only_gathers: bool,
) -> Result<Step, StepError<E>> {
    if engine.state().is_within_step() {
        engine.host_failed();
    }
    let mut event = Event::Batch { loss, only_gathers };
    loop {
        let done = match engine.tell(event).map_err(StepError::Engine)? {
            Request::Done(step) => return Ok(step),
            Request::TakeSnapshot(kind) => host.take_snapshot(kind).map(|()| Event::SnapshotTaken),
            Request::CheckWeights => {
                host.weights_are_finite().map(|finite| Event::WeightsChecked { finite })
            }
            Request::MeasureSlopes(since) => host.slopes(since).map(Event::Slopes),
            Request::Update => host.update(engine.effective_rates()).map(|()| Event::Updated),
            Request::ClearOptimizer => host.clear_optimizer().map(|()| Event::OptimizerCleared),
            Request::Skip { drop_gathered } => host.skip(drop_gathered).map(|()| Event::Skipped),
            Request::EndWindow => host.end_window().map(|end| match end {
                WindowEnd::Products(products) => Event::WindowEnded(products),
                WindowEnd::Broken { tensor } => Event::WindowBroken { tensor },
            }),
            Request::TellMovable => host.movable().map(Event::Movable),
            Request::MeasureNorms => host.norms().map(Event::Norms),
            Request::GoBack(target) => host.go_back(target).map(|()| Event::WentBack),
        };
        event = match done {
            Ok(event) => event,
            Err(error) => return Err(StepError::Host { error, step_made: engine.host_failed() }),
        };
    }
}
