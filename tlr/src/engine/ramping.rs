//! The ramp as a part of the engine: how it begins, goes on and ends. (What it decides by slopes is
//! in `start/ramp/`, which knows no engine.)

use super::{
    event::{Request, Step, Target},
    history::Outcome,
    phase::{PendingStep, Phase, Rollback},
    products::Slope,
    rule::{Proposal, RateRule},
    start::ramp::{Ramp, Ramped},
    Engine,
};
use crate::error::{Cause, Error};

impl<R> Engine<R> {
    /// A ramp from the rates as they are, if one is configured.
    pub(super) fn new_ramp(&self) -> Option<Ramp> {
        let groups = self.state.groups.iter().zip(&self.groups);
        let groups = groups.map(|(state, settings)| (state.rate, settings.fixed_rate));
        if self.config.ramp {
            let left = |horizon: u64| horizon.saturating_sub(self.state.steps);
            Ramp::new(groups, self.config.horizon.map(left))
        } else {
            None
        }
    }
}

impl<R: RateRule> Engine<R> {
    /// Goes on with the ramp, by the slopes of one more batch.
    pub(super) fn ramped(
        &mut self,
        mut step: PendingStep,
        slopes: &[Slope],
    ) -> Result<Request, Error> {
        let loss = step.gathered.mean();
        let Some(ramp) = &mut step.ramp else { return Ok(self.ask_for_update(step)) };
        if slopes.len() != self.groups.len() {
            // The host has no slopes. Training starts from the rates that it was given.
            (step.ramp, step.ends_ramp) = (None, true);
            step.factor = self.usable(self.planned_factor())?;
            return self.judge(step, false);
        }
        // A ramp breaks off by the same limits without a safeguard.
        let safeguard = self.config.safeguard.unwrap_or_default();
        let cause = match ramp.observe(slopes, loss, self.facts, &safeguard) {
            Ramped::On => return Ok(self.ask_for_update(step)),
            Ramped::TooFar if self.keeps_snapshots() => Cause::WentTooFar,
            Ramped::Done | Ramped::TooFar => {
                step.ends_ramp = true;
                return Ok(self.ask_for_update(step));
            }
            Ramped::Skip => {
                self.state.phase = Phase::Skipping(step, Cause::NonFiniteGradient);
                return Ok(Request::Skip { drop_gathered: true });
            }
            Ramped::BrokenBatch => Cause::NonFiniteGradient,
        };
        let rates_are_to_blame = cause == Cause::WentTooFar;
        Ok(self.go_back(Rollback {
            cause,
            rates_are_to_blame,
            guilty: None,
            ramp: step.ramp.filter(|_| rates_are_to_blame),
            counts_step: true,
            target: Target::Last,
            watch: step.watch,
        }))
    }

    /// Ends a step of the ramp, whose update is made. With the ramp's last step the velocity of a
    /// base optimizer is cleared: it is that of the steep beginning, and at the rate that the ramp
    /// has found it would carry the weights far beyond the lowest point. Around a normalized
    /// optimizer, as Adam, nothing is cleared: more runs failed (docs/start.md).
    pub(super) fn ramp_step_made(&mut self, ramp: Ramp, ends: bool) -> Request {
        let before = self.state.history.len();
        let rates = self.state.groups.iter().map(|group| group.rate);
        if ends || rates.ne(ramp.rates()) {
            self.take_rates(&ramp, Outcome::Ramped);
        }
        let decisions = self.decisions_since(before);
        if !ends {
            self.state.ramp = Some(ramp);
            return self.finish(1, Step::Ramped { decisions });
        }
        self.state.steps += 1;
        self.ramp_ended(&ramp, self.state.steps);
        self.leave_window();
        self.state.ramp = None;
        if ramp.follows {
            self.state.phase = Phase::Clearing(decisions);
            return Request::ClearOptimizer;
        }
        Request::Done(Step::Ramped { decisions })
    }

    /// The ramp that is broken off if this step is undone.
    pub(super) fn undone_ramp(&self, of_step: Option<Ramp>) -> Option<Ramp> {
        // A batch that is only gathered has no ramp in its step.
        of_step.or_else(|| self.state.ramp.clone()).and_then(Ramp::undone)
    }

    /// Breaks the ramp off. The host has gone back to a snapshot.
    pub(super) fn ramp_undone(&mut self, ramp: &Ramp, outcome: Outcome) {
        self.take_rates(ramp, outcome);
        self.ramp_ended(ramp, self.state.steps);
        self.state.ramp = None;
    }

    /// Notes that the ramp has ended at step `steps`, and what it has measured.
    pub(super) fn ramp_ended(&mut self, ramp: &Ramp, steps: u64) {
        self.state.level_from = steps;
        self.state.quiet = ramp.quiet;
        self.state.watch.start_from(ramp.start_loss, ramp.gradient);
        self.state.follows = ramp.follows;
        for (group, silent) in self.state.groups.iter_mut().zip(ramp.without_gradient()) {
            group.silent = silent;
        }
    }

    fn take_rates(&mut self, ramp: &Ramp, outcome: Outcome) {
        for (index, rate) in ramp.rates().enumerate() {
            self.set_rate(index, Proposal { rate, outcome }, None);
        }
    }
}
