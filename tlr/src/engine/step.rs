//! The course of a step: each event leads to the next request.

use super::{
    event::{Event, Request, Step, Target, TensorKind},
    gathered::GatheredLosses,
    phase::{PendingStep, Phase, Rollback, SnapshotTrust},
    rule::RateRule,
    safeguard::LossVerdict,
    schedule::Schedule,
    Engine,
};
use crate::error::{Cause, Error};

impl<R: RateRule> Engine<R> {
    /// Reports to the engine what has happened. Returns what to do next.
    ///
    /// # Errors
    /// - [`Error::OutOfOrder`] for an event that does not answer the last request. Nothing has
    ///   changed then.
    /// - [`Error::ScheduleFactor`], [`Error::NonFiniteLoss`] for a batch that cannot be trained on.
    ///   Nothing has changed but that the step is over.
    /// - [`Error::TooManyRollbacks`], [`Error::NonFiniteWeights`], [`Error::LostWeights`] after a
    ///   way back. The step is over, and the next batch may be reported.
    ///
    /// Example: [`Event`].
    pub fn tell(&mut self, event: Event) -> Result<Request, Error> {
        let phase = std::mem::replace(&mut self.state.phase, Phase::Idle);
        if !self.has_one_each(&event) {
            return self.refuse(phase, &event);
        }
        match (phase, event) {
            (Phase::Idle, Event::Batch { loss, only_gathers }) => self.begin(loss, only_gathers),
            (Phase::TakingWeights(step), Event::SnapshotTaken) => self.judge(step, true),
            (Phase::TakingBuffers(step), Event::SnapshotTaken) => Ok(self.begun(step)),
            (Phase::Ramping(step), Event::Slopes(slopes)) => self.ramped(step, &slopes),
            (Phase::LookingBack(step), Event::Slopes(slopes)) => Ok(self.looked_back(step, slopes)),
            (Phase::Suspecting(step, cause), Event::Slopes(slopes)) => {
                Ok(self.suspected(step, cause, &slopes))
            }
            (Phase::Updating(step), Event::Updated) => Ok(self.updated(step)),
            (Phase::Clearing(decisions), Event::OptimizerCleared) => {
                Ok(Request::Done(Step::Ramped { decisions }))
            }
            (Phase::Skipping(step, cause), Event::Skipped) => Ok(self.skipped(step, cause)),
            (Phase::Checking(step, cause, guilty), Event::WeightsChecked { finite }) => {
                Ok(self.checked(step, cause, guilty, finite))
            }
            (Phase::EndingWindow(slopes), Event::WindowEnded(products)) => {
                Ok(self.window_ended(products, slopes))
            }
            (Phase::EndingWindow(_), Event::WindowBroken { tensor }) => {
                Ok(self.window_broken(tensor))
            }
            (Phase::Weighing(mut window), Event::Slopes(slopes)) if window.slopes.is_none() => {
                window.slopes = Some(slopes);
                Ok(self.weigh(window))
            }
            (Phase::Weighing(mut window), Event::Movable(movable))
                if window.slopes.is_some() && window.movable.is_none() =>
            {
                window.movable = Some(movable);
                Ok(self.weigh(window))
            }
            (Phase::Weighing(window), Event::Norms(norms)) if window.movable.is_some() => {
                Ok(self.conclude(window, &norms))
            }
            (Phase::GoingBack(rollback), Event::WentBack) => self.rolled_back(rollback),
            (Phase::Retreating { tensor }, Event::WentBack) => Err(self.retreated(tensor)),
            (phase, event) => self.refuse(phase, &event),
        }
    }

    /// Whether the list of an event has one entry for each group. It may be empty if the host
    /// cannot measure what it was asked for.
    fn has_one_each(&self, event: &Event) -> bool {
        let (listed, may_be_empty) = match event {
            Event::WindowEnded(products) => (products.len(), false),
            Event::Slopes(slopes) => (slopes.len(), true),
            Event::Movable(movable) => (movable.len(), true),
            Event::Norms(norms) => (norms.len(), true),
            _ => return true,
        };
        listed == self.groups.len() || may_be_empty && listed == 0
    }

    /// Goes on waiting in this phase, as if the event had not come.
    fn refuse(&mut self, phase: Phase, event: &Event) -> Result<Request, Error> {
        let error = Error::OutOfOrder { told: told(event), expected: phase.awaits() };
        self.state.phase = phase;
        Err(error)
    }

    /// Ends the step because the host could not do what it was asked for. Returns whether the
    /// weights have been updated all the same, because the host failed at the end of a window.
    ///
    /// If the host failed before the update, nothing has changed, and the next batch may follow. If
    /// it failed to end a window, the next step ends the window. If the window has ended and only
    /// some evidence on it is missing, it is judged without that evidence.
    ///
    /// Example: [`State::is_within_step`](super::State::is_within_step).
    pub fn host_failed(&mut self) -> bool {
        match std::mem::replace(&mut self.state.phase, Phase::Idle) {
            Phase::EndingWindow(_) => {
                // Nothing is known any more of the snapshot before the last: neither a direction
                // nor a rollback may use it.
                self.forget_directions();
                self.state.snapshot = SnapshotTrust::Good;
                self.count(1);
                true
            }
            Phase::Weighing(window) => {
                self.conclude(window, &[]);
                true
            }
            Phase::Clearing(_) => true,
            Phase::GoingBack(Rollback { counts_step: false, .. }) | Phase::Retreating { .. } => {
                // The snapshots have moved on, and no rate was decided on the window that led here:
                // the direction of the window before it is not the one before the next.
                self.forget_directions();
                self.count(1);
                true
            }
            _ => false,
        }
    }

    /// Reports that the gradients gathered for the step to come are gone: the next batch is the
    /// first of its step.
    ///
    /// # Example
    /// ```
    /// use tlr::engine::*;
    ///
    /// let group = Group { name: "model".into(), fixed_rate: false, rate: 0.1 };
    /// let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
    /// let mut engine = Engine::new(NewtonConfig::default(), vec![group], facts)?;
    /// engine.gathered_gradients_lost(); // none were gathered yet
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn gathered_gradients_lost(&mut self) {
        self.state.gathered = GatheredLosses::default();
    }

    /// Begins a step.
    fn begin(&mut self, loss: Option<f64>, only_gathers: bool) -> Result<Request, Error> {
        let state = &self.state;
        let step = PendingStep {
            gathered: state.gathered.with(loss),
            only_gathers,
            factor: self.usable(self.factor())?,
            watch: state.watch.clone(),
            snapshot: state.snapshot,
            ramp: if only_gathers { None } else { state.ramp.clone() },
            slopes: None,
            ends_ramp: false,
        };
        if state.snapshot == SnapshotTrust::Missing {
            self.state.phase = Phase::TakingWeights(step);
            return Ok(Request::TakeSnapshot(TensorKind::Weights));
        }
        self.judge(step, false)
    }

    /// Judges the loss. `takes_snapshot`: the weights' snapshot was taken in this step, and that of
    /// the buffers is still to come.
    pub(super) fn judge(
        &mut self,
        mut step: PendingStep,
        takes_snapshot: bool,
    ) -> Result<Request, Error> {
        if takes_snapshot {
            step.snapshot = SnapshotTrust::Good;
        }
        if let Some(loss) = step.gathered.mean() {
            match self.inspect(&mut step, loss)? {
                LossVerdict::Bad(cause) if self.may_be_innocent(cause) => {
                    self.state.phase = Phase::Suspecting(step, cause);
                    return Ok(Request::MeasureSlopes(self.way_back()));
                }
                LossVerdict::Bad(cause) => return Ok(self.check(step, cause, None)),
                LossVerdict::Skip(cause) => {
                    self.state.phase = Phase::Skipping(step, cause);
                    return Ok(Request::Skip { drop_gathered: loss.is_finite() });
                }
                LossVerdict::Good if self.state.position == 0 && !step.only_gathers => {
                    step.snapshot = SnapshotTrust::Good;
                }
                LossVerdict::Good | LossVerdict::Doubtful => (),
            }
        }
        if takes_snapshot {
            self.state.phase = Phase::TakingBuffers(step);
            return Ok(Request::TakeSnapshot(TensorKind::Buffers));
        }
        Ok(self.begun(step))
    }

    /// Goes on with a step whose loss was judged: by slopes, or by the update at once.
    fn begun(&mut self, step: PendingStep) -> Request {
        if step.ramp.is_some() {
            self.state.phase = Phase::Ramping(step);
            return Request::MeasureSlopes(Target::Last);
        }
        if self.looks_back(&step) {
            self.state.phase = Phase::LookingBack(step);
            return Request::MeasureSlopes(self.way_to_look_at());
        }
        self.ask_for_update(step)
    }

    pub(super) fn check(
        &mut self,
        step: PendingStep,
        cause: Cause,
        guilty: Option<Vec<bool>>,
    ) -> Request {
        self.state.phase = Phase::Checking(step, cause, guilty);
        Request::CheckWeights
    }

    fn inspect(&self, step: &mut PendingStep, loss: f64) -> Result<LossVerdict, Error> {
        match &self.config.safeguard {
            Some(_) if step.only_gathers || step.ramp.is_some() => {
                Ok(step.watch.inspect_gathered(loss))
            }
            Some(safeguard) => Ok(step.watch.inspect(loss, self.window, safeguard)),
            None if loss.is_finite() => Ok(LossVerdict::Good),
            None => Err(Error::NonFiniteLoss { step: self.state.steps + 1, loss }),
        }
    }

    pub(super) fn ask_for_update(&mut self, step: PendingStep) -> Request {
        self.set_effective_rates(&step);
        self.state.phase = Phase::Updating(step);
        Request::Update
    }

    fn updated(&mut self, step: PendingStep) -> Request {
        let state = &mut self.state;
        state.watch = step.watch;
        state.snapshot = step.snapshot;
        if step.only_gathers {
            state.gathered = step.gathered;
            return self.finish(0, Step::Gathered);
        }
        state.gathered = GatheredLosses::default();
        if let Some(ramp) = step.ramp {
            return self.ramp_step_made(ramp, step.ends_ramp);
        }
        if step.ends_ramp {
            state.ramp = None;
        }
        state.position += 1;
        state.factors += step.factor;
        if let Some(loss) = step.gathered.mean() {
            state.watch.record(loss);
        }
        if state.position < self.window {
            return self.finish(1, Step::Made);
        }
        state.steps += 1;
        state.phase = Phase::EndingWindow(step.slopes);
        Request::EndWindow
    }

    fn skipped(&mut self, step: PendingStep, cause: Cause) -> Request {
        let state = &mut self.state;
        state.watch = step.watch;
        if step.ramp.is_some() {
            state.ramp = step.ramp;
        }
        if cause != Cause::NonFiniteLoss {
            state.gathered = GatheredLosses::default();
        }
        // If other batches are gathered for the same step, a later batch takes the place of this
        // one.
        let counts = !step.only_gathers && state.gathered.is_empty();
        self.finish(u64::from(counts), Step::Skipped(cause))
    }

    /// A window that the losses speak against is undone, whether its weights are finite or not.
    fn checked(
        &mut self,
        step: PendingStep,
        cause: Cause,
        guilty: Option<Vec<bool>>,
        finite: bool,
    ) -> Request {
        let mut watch = step.watch;
        let unconfirmed = self.state.snapshot == SnapshotTrust::Unconfirmed;
        if unconfirmed {
            // These losses were seen at the last snapshot, and the rollback goes to the one before
            // it.
            watch.new_snapshot();
        }
        // If no step was made since the snapshot, no rate is to blame.
        let ramp = self.undone_ramp(step.ramp);
        let moved = self.state.position > 0 || unconfirmed || ramp.is_some();
        let (cause, rates_are_to_blame) = match finite {
            true => (cause, moved),
            false => (Cause::NonFiniteWeights, !watch.forgives_broken_weights()),
        };
        let target = self.way_back();
        self.go_back(Rollback {
            cause,
            rates_are_to_blame,
            guilty: if finite { guilty } else { None },
            ramp,
            counts_step: true,
            target,
            watch,
        })
    }

    /// Undoes a window at whose end a weight is not finite. Its losses were finite, so a gradient
    /// was not. Once in a row of rollbacks, and after accepted windows, the batch is to blame.
    /// Otherwise the rates are to blame.
    fn window_broken(&mut self, tensor: String) -> Request {
        // The snapshot before the last may be lost.
        self.forget_directions();
        self.state.snapshot = SnapshotTrust::Good;
        if self.config.safeguard.is_none() {
            self.state.phase = Phase::Retreating { tensor };
            return Request::GoBack(Target::Last);
        }
        let watch = self.state.watch.clone();
        self.go_back(Rollback {
            cause: Cause::NonFiniteWeights,
            rates_are_to_blame: !watch.forgives_broken_weights(),
            guilty: None,
            ramp: None,
            counts_step: false,
            target: Target::Last,
            watch,
        })
    }

    pub(super) fn go_back(&mut self, rollback: Rollback) -> Request {
        let target = rollback.target;
        self.state.phase = Phase::GoingBack(rollback);
        Request::GoBack(target)
    }

    /// Ends the step, which counts as `steps` optimizer steps.
    pub(super) fn finish(&mut self, steps: u64, step: Step) -> Request {
        self.state.steps += steps;
        self.count(steps);
        Request::Done(step)
    }

    /// Begins a new window if the schedule restarts here. `steps` steps have just been counted. The
    /// ramp measures its ways from one snapshot, and keeps it.
    pub(super) fn count(&mut self, steps: u64) {
        let restarts = |schedule: &Schedule| schedule.restarts_at(self.state.steps);
        let has_effect = steps > 0 && self.state.ramp.is_none();
        if has_effect && self.schedule.as_ref().is_some_and(restarts) {
            self.leave_window();
        }
    }

    /// The factor of the step that is being made, if a rate can be multiplied by it.
    pub(super) fn usable(&self, factor: f64) -> Result<f64, Error> {
        if factor >= 0.0 && factor.is_finite() {
            Ok(factor)
        } else {
            Err(Error::ScheduleFactor { step: self.state.steps + 1, factor })
        }
    }
}

fn told(event: &Event) -> &'static str {
    match event {
        Event::Batch { .. } => "a batch",
        Event::SnapshotTaken => "a snapshot",
        Event::WeightsChecked { .. } => "a check of the weights",
        Event::Slopes(_) => "slopes",
        Event::Updated => "an update",
        Event::OptimizerCleared => "a cleared optimizer",
        Event::Skipped => "a batch left out",
        Event::WindowEnded(_) => "a window's products",
        Event::WindowBroken { .. } => "a broken window",
        Event::Movable(_) => "which groups would move",
        Event::Norms(_) => "norms",
        Event::WentBack => "a way back",
    }
}
