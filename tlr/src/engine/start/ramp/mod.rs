//! The starting rate, found by the slope. See [`Config::ramp`](crate::engine::Config::ramp).

mod explosion;
mod group;
mod limits;
#[cfg(test)]
mod tests;
mod trial;

use super::samples::Samples;
use crate::engine::{exact, host_facts::HostFacts, products::Slope, safeguard::Safeguard};
use group::{GroupRamp, Look, MOST_STEPS_A_LOOK};
use limits::{averaged_by_a_step, most_probes, most_steps_a_look, LEAST_PROBES};
use serde::{Deserialize, Serialize};

/// If the slope of all groups together stood out from noise after n probes, the ramp waits for a
/// noisy group until it has made up to this many times n probes.
const PATIENCE: u64 = 4;
/// The most looks at the slopes of one rate.
const LOOKS: u64 = 4;
/// While no group's way is longer than this times its weights' norm, rates grow twice as fast.
const NEAR: f64 = 1e-3;
/// While no way is longer than this times the norm, a group that seems half-way may only have seen
/// noise: the next rate has to confirm it. A group whose first slope is lost in noise is not judged
/// at all so near the start.
const SUSPECT: f64 = 0.01;
/// Training starts at this many times the rate at which the ramp is half-way to the lowest point,
/// if steps are proportional to the gradients. (Found by experiment: docs/start.md.)
const LEVEL_IF_FOLLOWING: f64 = 2.0;
/// The same factor if the base optimizer has momentum, whose velocity is cleared then.
const LEVEL_WITH_MOMENTUM: f64 = 1.4;
/// The same factor if steps stay long, as around Adam, or if gradients hardly agree.
const LEVEL_IF_NORMALIZED: f64 = 1.0;
/// After this many steps the ramp ends, at the rates that it has reached.
const LONGEST_RAMP: u64 = 4000;

/// Rates grow until the slope has fallen to half of the first one: half-way down, on a parabola.
/// Deviation from the paper, which has no ramp.
///
/// 1. **Trial.** The gradient's norm and the number of weights give a rate at which neither
///    gradient descent nor sign descent moves the weights by more than a ten-thousandth of their
///    norm (or two units of rounding, if that is more). It is corrected by how far they have moved.
/// 2. **Probes.** Steps at this rate measure the first slope b and its noise σ: at least six, and
///    until b is four standard errors below 0. From then on n = ⌈(2σ/b)²⌉ steps are enough to tell
///    half of b from all of it. If training is known to be short, the probes and n are limited.
/// 3. **Growth.** n steps are made at each rate, and m is their mean slope. Near the start rates
///    grow fourfold, then twofold. If m is below ¾·b, or could be by one standard error, the way is
///    still straight, and b is measured better. If m is above ½·b, by three standard errors or
///    after four looks, the group is done. Its rate is the one at which m crosses ½·b, between the
///    last two. Near the start the next rate has to confirm that.
///
/// All groups grow together, and each is done by its own slope. A group whose slope is lost in
/// noise takes the largest of the others' rates. A group without a gradient keeps its own rate, or
/// takes that one if its own is larger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ramp {
    groups: Vec<GroupRamp>,
    stage: Stage,
    steps: u64,
    /// The steps that training had left when the ramp began, if that is known.
    horizon: Option<u64>,
    /// The last batch's slopes were not numbers.
    last_was_broken: bool,
    /// How far the weights would have moved in the trial steps by gradient descent with this
    /// momentum, if all gradients had the same direction.
    #[serde(with = "exact")]
    expected: f64,
    /// The momentum of `expected`: the decaying sum of the gradients' norms so far.
    #[serde(with = "exact")]
    velocity: f64,
    /// The slopes of all groups as one, while the first slope is measured.
    whole: Samples,
    /// The number of slopes at which `whole` first stood out from noise. 0 until then.
    known_at: u64,
    /// Whether steps are as long as the gradients: the weights have moved about as far as
    /// `expected`.
    pub(crate) follows: bool,
    /// Whether noise is little: one step is enough to tell half of the first slope from all of it,
    /// or around Adam as many as one of its steps averages.
    pub(crate) quiet: bool,
    /// The largest norm of the gradients while the weights had hardly moved.
    #[serde(with = "exact")]
    pub(crate) gradient: f64,
    /// The largest loss while the weights had hardly moved.
    #[serde(with = "exact::option")]
    pub(crate) start_loss: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// The weights have not moved.
    Resting,
    /// A rate is looked for at which the weights move far enough to be noticed.
    Trying,
    Probing,
    Growing {
        /// The steps between two looks.
        each: u64,
        /// The looks at this rate so far.
        looks: u64,
        /// The steps at this rate so far.
        taken: u64,
    },
}

/// What follows from one more slope of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ramped {
    /// The ramp goes on.
    On,
    /// The rates are found.
    Done,
    /// The rates are found, and the weights have gone too far.
    TooFar,
    /// A gradient is not a number, for the first time in a row. The batch may be to blame.
    Skip,
    /// A gradient is not a number, for the second time in a row, and the weights have not moved.
    BrokenBatch,
}

impl Ramp {
    /// Makes a ramp for groups with these rates, some of them fixed. None if all are fixed.
    /// `horizon` is the number of steps that training has left, if that is known.
    pub(crate) fn new(
        groups: impl Iterator<Item = (f64, bool)>,
        horizon: Option<u64>,
    ) -> Option<Self> {
        let groups: Vec<_> = groups.map(|(rate, fixed)| GroupRamp::new(rate, fixed)).collect();
        let any = groups.iter().any(|group| !group.done);
        any.then(|| Self {
            groups,
            stage: Stage::Resting,
            steps: 0,
            horizon,
            last_was_broken: false,
            expected: 0.0,
            velocity: 0.0,
            whole: Samples::default(),
            known_at: 0,
            follows: false,
            quiet: false,
            gradient: 0.0,
            start_loss: None,
        })
    }

    /// The rate of each group.
    pub(crate) fn rates(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.groups.iter().map(|group| group.rate)
    }

    /// Whether an engine with this number of groups can have been in this state.
    pub(crate) fn is_possible(&self, groups: usize) -> bool {
        // One more while the last step is under way: its batch may yet be skipped.
        let most = LONGEST_RAMP + 1;
        self.groups.len() == groups
            && self.steps <= most
            && self.whole.count <= most
            && self.known_at <= most
            && self.groups.iter().all(|group| group.is_possible(most))
            && match self.stage {
                Stage::Growing { each, looks, taken } => {
                    (1..=MOST_STEPS_A_LOOK).contains(&each)
                        && looks < LOOKS
                        && taken <= each * LOOKS
                }
                _ => true,
            }
    }

    /// Takes the slopes and the loss of the next step's batch.
    pub(crate) fn observe(
        &mut self,
        slopes: &[Slope],
        loss: Option<f64>,
        facts: HostFacts,
        safeguard: &Safeguard,
    ) -> Ramped {
        self.steps += 1;
        self.admit_new_groups(slopes);
        // The sum of finite numbers may be infinite.
        let all = self.total(slopes);
        if !slopes.iter().all(Slope::is_finite) || !all.is_finite() {
            return self.broken_batch();
        }
        self.last_was_broken = false;
        let ramped = match self.stage {
            // There is nothing to learn from a batch without a gradient.
            Stage::Resting | Stage::Trying if all.gradient == 0.0 => Ramped::On,
            Stage::Resting => self.rest(&all, facts),
            Stage::Trying => self.try_rate(&all, facts),
            Stage::Probing => self.probe(slopes, &all, facts),
            Stage::Growing { each, looks, taken } => {
                if self.has_exploded(slopes, loss, safeguard) {
                    return self.give_up(slopes, safeguard);
                }
                self.grow(slopes, each, looks, taken + 1, facts.momentum)
            }
        };
        if !matches!(self.stage, Stage::Growing { .. }) {
            self.gradient = self.gradient.max(all.gradient);
            self.start_loss = [self.start_loss, loss].into_iter().flatten().reduce(f64::max);
        }
        match ramped {
            Ramped::On if self.steps >= LONGEST_RAMP => Ramped::Done,
            ramped => ramped,
        }
    }

    /// Lets groups that have their first gradient join the others.
    fn admit_new_groups(&mut self, slopes: &[Slope]) {
        let common = self.moving().map(|group| group.rate).reduce(f64::max);
        let groups = self.groups.iter_mut().zip(slopes).filter(|(group, _)| !group.fixed);
        for (group, _) in groups
            .filter(|(group, slope)| group.silent && slope.gradient > 0.0 && slope.is_finite())
        {
            group.silent = false;
            group.rate = common.unwrap_or(group.rate);
        }
    }

    /// Decides what follows if a gradient or a weight is not a number.
    fn broken_batch(&mut self) -> Ramped {
        if !std::mem::replace(&mut self.last_was_broken, true) {
            Ramped::Skip
        } else if self.stage == Stage::Resting {
            Ramped::BrokenBatch
        } else {
            self.retreat();
            Ramped::TooFar
        }
    }

    /// Whether it has seen a gradient.
    pub(crate) fn has_begun(&self) -> bool {
        self.stage != Stage::Resting
    }

    /// The ramp, broken off because its weights or losses are not numbers. None if the weights have
    /// not moved.
    pub(crate) fn undone(mut self) -> Option<Self> {
        self.retreat();
        self.has_begun().then_some(self)
    }

    /// Lowers all rates: all that is known of them is that they are too large.
    fn retreat(&mut self) {
        self.groups.iter_mut().filter(|group| !group.silent).for_each(GroupRamp::retreat);
    }

    /// Measures the first slope.
    fn probe(&mut self, slopes: &[Slope], all: &Slope, facts: HostFacts) -> Ramped {
        self.whole.extend(all.per_length());
        for (group, slope) in self.groups.iter_mut().zip(slopes).filter(|(g, _)| g.is_moving()) {
            group.base.extend(slope.per_length());
        }
        let count = self.whole.count;
        if self.known_at == 0 && count >= LEAST_PROBES && self.whole.is_below_zero() {
            self.known_at = count;
        }
        let known = |group: &GroupRamp| !group.is_moving() || group.base.is_below_zero();
        let waits = !self.groups.iter().all(known)
            && (self.known_at == 0 || count < PATIENCE * self.known_at);
        if count >= most_probes(self.horizon) || !waits && count >= LEAST_PROBES {
            let mut moving = self.groups.iter().filter(|group| group.is_moving());
            let any_known = moving.any(|group| group.base.is_below_zero());
            for group in self.groups.iter_mut().filter(|group| group.is_moving()) {
                group.first = group.base.mean.min(0.0);
                group.faint = any_known && !group.base.is_below_zero();
            }
            let judged = self.groups.iter().filter(|group| group.is_moving() && !group.faint);
            let needed = judged.map(GroupRamp::steps_a_look).max().unwrap_or(1);
            let each = needed.min(most_steps_a_look(self.horizon));
            self.stage = Stage::Growing { each, looks: 0, taken: 0 };
            self.moving().for_each(|group| group.raise(4.0));
            self.follows &= self.still_follows(all.moved);
            let momentum = if self.follows { 0.0 } else { facts.momentum };
            self.quiet = needed <= averaged_by_a_step(momentum);
        }
        self.expect(all.gradient, facts.momentum);
        Ramped::On
    }

    /// Looks at the slopes of this rate, and raises it.
    fn grow(
        &mut self,
        slopes: &[Slope],
        each: u64,
        looks: u64,
        taken: u64,
        momentum: f64,
    ) -> Ramped {
        for (group, slope) in self.groups.iter_mut().zip(slopes).filter(|(g, _)| g.is_moving()) {
            group.is_far = slope.is_far_out();
            group.here.extend(slope.per_length());
        }
        self.stage = Stage::Growing { each, looks, taken };
        if taken < each * (looks + 1) {
            return Ramped::On;
        }
        let doubtful = self.moving().any(|group| !group.faint && group.look() == Look::Doubtful);
        if doubtful && looks + 1 < LOOKS {
            self.stage = Stage::Growing { each, looks: looks + 1, taken };
            return Ramped::On;
        }
        let mut too_far = false;
        let within = |part: f64| slopes.iter().all(|slope| slope.moved <= part * slope.size());
        let near = within(NEAR);
        let suspect = within(SUSPECT);
        let by = if near { 4.0 } else { 2.0 };
        let level = self.level(momentum);
        for group in self.moving() {
            match group.look() {
                Look::HalfWay if group.faint && !suspect => too_far |= group.stop(level),
                Look::Silent => group.raise(by),
                _ if group.faint => group.raise(by),
                Look::Straight | Look::Bending if !group.is_far => group.go_on(by),
                _ if group.unconfirmed.is_none()
                    && suspect
                    && !group.is_far
                    && !group.is_uphill() =>
                {
                    group.ask_again();
                }
                _ => too_far |= group.stop(level),
            }
        }
        self.stage = Stage::Growing { each, looks: 0, taken: 0 };
        let over = self.groups.iter().all(|group| group.done || !group.is_judged());
        if !over && !too_far {
            return Ramped::On;
        }
        self.settle_rest();
        if too_far {
            Ramped::TooFar
        } else {
            Ramped::Done
        }
    }

    /// Training starts at this many times the rate at which a group is half-way.
    fn level(&self, momentum: f64) -> f64 {
        match self.follows {
            true if momentum > 0.0 => LEVEL_WITH_MOMENTUM,
            true => LEVEL_IF_FOLLOWING,
            false => LEVEL_IF_NORMALIZED,
        }
    }

    /// Groups that could not be judged take the largest of the others' rates. A group without a
    /// gradient takes the smaller of its own rate and that.
    fn settle_rest(&mut self) {
        let found = self.groups.iter().filter(|group| group.done && !group.fixed);
        let Some(largest) = found.map(|group| group.rate).reduce(f64::max) else { return };
        for group in self.groups.iter_mut().filter(|group| !group.done) {
            group.rate = if group.silent { largest.min(group.rate) } else { largest };
        }
    }

    /// For each group, whether it has had no gradient.
    pub(crate) fn without_gradient(&self) -> impl Iterator<Item = bool> + '_ {
        self.groups.iter().map(|group| group.silent && !group.fixed)
    }

    /// The groups whose rates are still looked for.
    fn moving(&mut self) -> impl Iterator<Item = &mut GroupRamp> {
        self.groups.iter_mut().filter(|group| group.is_moving())
    }

    /// The slope of all groups that have had a gradient, as if they were one.
    fn total(&self, slopes: &[Slope]) -> Slope {
        let moving = self.groups.iter().zip(slopes).filter(|(group, _)| !group.silent);
        moving.map(|(_, slope)| *slope).sum()
    }
}
