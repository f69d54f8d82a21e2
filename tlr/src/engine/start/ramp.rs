//! The starting rate, found by the slope. See [`Config::ramp`](crate::engine::Config::ramp).

use super::samples::Samples;
use crate::engine::{
    exact,
    products::Slope,
    rule::{bounded, RATES},
    Numbers,
};
use serde::{Deserialize, Serialize};

/// The first steps move the weights by this part of their norm.
const FIRST_WAY: f64 = 1e-6;
/// A trial rate whose step is lost in rounding is raised by this.
const RAISE: f64 = 30.0;
/// The steps that measure the first slope: at least, and at most.
const PROBES: std::ops::RangeInclusive<u64> = 8..=200;
/// Groups whose slopes are lost in noise are waited for so many times as long as all groups as one.
const PATIENCE: u64 = 4;
/// The most steps between two looks at the slopes of a rate.
const MOST_STEPS: u64 = 64;
/// The most looks at the slopes of one rate.
const LOOKS: u64 = 4;
/// While no group's way is longer than this part of its norm, rates grow twice as fast.
const NEAR: f64 = 1e-3;
/// The longest way: this many times the weights' norm, or the norm of as many weights of size 1.
const LONGEST_WAY: f64 = 10.0;
/// The rate to train at, in rates at which the ramp's way is half of that to the lowest point: for
/// steps that are as long as the gradients and grow shorter with them. The ramp has gone about twice
/// as far as one step at its last rate, so one such step goes half of the way.
const FOLLOWING: f64 = 2.0;
/// The same for steps that stay long, as around Adam, and for gradients that hardly agree. (Both by
/// training: see docs/start.md.)
const NORMALIZED: f64 = 1.0;
/// Gradient descent moves the weights by this part of its gradients' lengths, times the rate: less
/// where gradients disagree.
const LEAST_FOLLOWED: f64 = 0.5;
/// And no further, but for rounding.
const MOST_FOLLOWED: f64 = 1.05;
/// The ramp ends where it is after so many steps.
const LONGEST_RAMP: u64 = 4000;

/// Rates that double until the slope says that the way is half of that to the lowest point.
///
/// 1. **Trial.** The gradient's norm and the number of weights tell a rate at which no usual
///    optimizer moves the weights by more than a millionth of their norm, or by a few roundings.
///    It is corrected by how far they have moved.
/// 2. **Probes.** Steps at this rate measure the first slope b and its noise σ: until b is four
///    standard errors below 0. From then on ⌈(2σ/b)²⌉ steps tell half of b from all of it.
/// 3. **Doublings.** So many steps at each rate, and their mean slope m. Below ¾·b the way is still
///    straight, and b is measured better. Above ½·b, by two standard errors, the group is done. Its
///    rate is the one at which m crosses ½·b.
///
/// All groups double together, and each is done by its own slope. A group whose slope is lost in
/// noise takes the largest of the others' rates. A group without a gradient keeps its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ramp {
    groups: Vec<GroupRamp>,
    stage: Stage,
    steps: u64,
    /// The last batch's slopes were not numbers.
    doubted: bool,
    /// How far the weights would have moved in the trial steps by gradient descent with this
    /// momentum, if all gradients had the same direction.
    #[serde(with = "exact")]
    expected: f64,
    /// What is left of the gradients' lengths in its momentum.
    #[serde(with = "exact")]
    velocity: f64,
    /// The slopes of all groups as one, while the first slope is measured.
    whole: Samples,
    /// The number of them that first told the slope from noise. 0 until then.
    known_at: u64,
    /// Whether they have moved about that far.
    pub(crate) follows: bool,
    /// The largest norm of the gradients while the weights had hardly moved.
    #[serde(with = "exact")]
    pub(crate) gradient: f64,
    /// The largest loss while the weights had hardly moved.
    #[serde(with = "exact::option")]
    pub(crate) start: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// The weights have not moved.
    Resting,
    /// A rate is looked for at which they move far enough to be noticed.
    Trying,
    Probing,
    Doubling {
        /// The steps between two looks.
        each: u64,
        /// The looks at this rate so far.
        looks: u64,
        /// The steps at this rate so far.
        taken: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupRamp {
    #[serde(with = "exact")]
    rate: f64,
    /// What the rate was last multiplied by.
    #[serde(with = "exact")]
    raised: f64,
    /// Its rate stays where training starts.
    frozen: bool,
    /// It has had no gradient, and keeps its rate.
    silent: bool,
    /// Its first slope is lost in noise, while that of all groups together is not.
    faint: bool,
    /// Its rate is found, or frozen.
    done: bool,
    /// It has gone as far as it may.
    is_far: bool,
    /// The slopes on the straight piece.
    base: Samples,
    /// The slopes at this rate.
    here: Samples,
    /// b: the first slope, as far as it is known.
    #[serde(with = "exact")]
    first: f64,
    /// The mean slopes of up to four rates, the last one last.
    means: Vec<f64>,
}

/// What a ramp comes to with one more slope of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ramped {
    /// It goes on.
    On,
    /// The rates are found.
    Done,
    /// The rates are found, and the weights have gone too far.
    TooFar,
    /// A gradient is not a number, for the first time in a row. The batch may be to blame.
    Skip,
    /// The same again, and the weights have not moved.
    BrokenBatch,
}

impl Ramp {
    /// None if all rates stay where they are.
    pub(crate) fn new(groups: impl Iterator<Item = (f64, bool)>) -> Option<Self> {
        let groups: Vec<_> = groups.map(|(rate, frozen)| GroupRamp::new(rate, frozen)).collect();
        let any = groups.iter().any(|group| !group.done);
        any.then(|| Self {
            groups,
            stage: Stage::Resting,
            steps: 0,
            doubted: false,
            expected: 0.0,
            velocity: 0.0,
            whole: Samples::default(),
            known_at: 0,
            follows: false,
            gradient: 0.0,
            start: None,
        })
    }

    /// The rate of each group.
    pub(crate) fn rates(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.groups.iter().map(|group| group.rate)
    }

    /// Whether an engine with so many groups can have been in this state.
    pub(crate) fn is_possible(&self, groups: usize) -> bool {
        self.groups.len() == groups
            && self.steps <= LONGEST_RAMP
            && self.groups.iter().all(GroupRamp::is_possible)
            && match self.stage {
                Stage::Doubling { each, looks, taken } => {
                    (1..=MOST_STEPS).contains(&each) && looks < LOOKS && taken <= each * LOOKS
                }
                _ => true,
            }
    }

    /// One more step is about to be made, of a batch with these slopes and this loss. `spacing` is
    /// the distance between 1 and the next number.
    pub(crate) fn observe(
        &mut self,
        slopes: &[Slope],
        loss: Option<f64>,
        numbers: Numbers,
    ) -> Ramped {
        self.steps += 1;
        if !slopes.iter().all(Slope::is_finite) {
            return self.doubt();
        }
        self.doubted = false;
        self.listen(slopes);
        let ramped = match self.stage {
            Stage::Resting => self.rest(slopes, numbers),
            Stage::Trying => self.try_rate(slopes, numbers),
            Stage::Probing => self.probe(slopes, numbers),
            Stage::Doubling { each, looks, taken } => {
                if self.has_exploded(slopes, loss) {
                    return self.give_up(slopes);
                }
                self.double(slopes, each, looks, taken + 1)
            }
        };
        if !matches!(self.stage, Stage::Doubling { .. }) {
            self.gradient = self.gradient.max(self.total(slopes).gradient);
            self.start = [self.start, loss].into_iter().flatten().reduce(f64::max);
        }
        match ramped {
            Ramped::On if self.steps >= LONGEST_RAMP => Ramped::Done,
            ramped => ramped,
        }
    }

    /// A group that has its first gradient joins the others.
    fn listen(&mut self, slopes: &[Slope]) {
        let common = self.moving().map(|group| group.rate).reduce(f64::max);
        let groups = self.groups.iter_mut().zip(slopes).filter(|(group, _)| !group.frozen);
        for (group, _) in groups.filter(|(group, slope)| group.silent && slope.gradient > 0.0) {
            group.silent = false;
            group.rate = common.unwrap_or(group.rate);
        }
    }

    /// A gradient is not a number, or a weight.
    fn doubt(&mut self) -> Ramped {
        if !std::mem::replace(&mut self.doubted, true) {
            Ramped::Skip
        } else if self.stage == Stage::Resting {
            Ramped::BrokenBatch
        } else {
            self.retreat();
            Ramped::TooFar
        }
    }

    /// The ramp, broken off because its weights or losses are not numbers. None if the weights have
    /// not moved.
    pub(crate) fn undone(mut self) -> Option<Self> {
        self.retreat();
        (self.stage != Stage::Resting).then_some(self)
    }

    /// Nothing is known but that the rates are too large.
    fn retreat(&mut self) {
        self.groups.iter_mut().filter(|g| !g.frozen && !g.silent).for_each(GroupRamp::retreat);
    }

    /// Chooses the trial rate.
    fn rest(&mut self, slopes: &[Slope], numbers: Numbers) -> Ramped {
        let all = self.total(slopes);
        let rate = bounded(
            first_way(&all, numbers.spacing) / all.gradient.max((all.weights as f64).sqrt()),
        );
        self.moving().for_each(|group| group.rate = rate);
        self.expect(all.gradient, numbers.momentum);
        self.stage = Stage::Trying;
        Ramped::On
    }

    /// Corrects the trial rate by how far the weights have moved.
    fn try_rate(&mut self, slopes: &[Slope], numbers: Numbers) -> Ramped {
        let all = self.total(slopes);
        if !all.is_finite() {
            return self.doubt();
        }
        let way = first_way(&all, numbers.spacing);
        if all.gradient == 0.0 {
            return Ramped::On;
        }
        let by = if all.moved > 0.0 { (way / all.moved).min(RAISE) } else { RAISE };
        self.moving().for_each(|group| group.rate = bounded(by * group.rate));
        if all.moved >= way / 2.0 {
            let least = if numbers.momentum > 0.0 { LEAST_FOLLOWED } else { 0.9 };
            self.follows = self.follows(all.moved, least);
            self.stage = Stage::Probing;
        }
        self.expect(all.gradient, numbers.momentum);
        Ramped::On
    }

    /// Whether the weights have moved about as far as gradient descent would have moved them.
    fn follows(&self, moved: f64, least: f64) -> bool {
        (least..=MOST_FOLLOWED).contains(&(moved / self.expected))
    }

    /// One more step is about to be made.
    fn expect(&mut self, gradient: f64, momentum: f64) {
        let rate = self.moving().next().map_or(0.0, |group| group.rate);
        self.velocity = momentum * self.velocity + gradient;
        self.expected += rate * self.velocity;
    }

    /// Measures the first slope.
    fn probe(&mut self, slopes: &[Slope], numbers: Numbers) -> Ramped {
        let all = self.total(slopes);
        self.whole.extend(all.per_length());
        for (group, slope) in self.groups.iter_mut().zip(slopes).filter(|(g, _)| g.is_moving()) {
            group.base.extend(slope.per_length());
        }
        let (count, known) = (self.whole.count, self.whole.is_below_zero());
        if known && self.known_at == 0 {
            self.known_at = count;
        }
        let all_known = self.groups.iter().all(|g| !g.is_moving() || g.base.is_below_zero());
        let patient = self.known_at == 0 || !all_known && count < PATIENCE * self.known_at;
        if count >= *PROBES.end() || !patient && count >= *PROBES.start() {
            for group in self.groups.iter_mut().filter(|group| group.is_moving()) {
                group.first = group.base.mean.min(0.0);
                group.faint = self.known_at > 0 && !group.base.is_below_zero();
            }
            let judged = self.groups.iter().filter(|group| group.is_moving() && !group.faint);
            let each = judged.map(GroupRamp::steps_a_look).max().unwrap_or(1);
            self.stage = Stage::Doubling { each, looks: 0, taken: 0 };
            self.moving().for_each(|group| group.raise(4.0));
            self.follows &= self.follows(all.moved, LEAST_FOLLOWED);
        }
        self.expect(all.gradient, numbers.momentum);
        Ramped::On
    }

    /// Whether the loss has exploded, and the way explains it: on a convex piece a rise is no more
    /// than ⟨g,s⟩.
    fn has_exploded(&self, slopes: &[Slope], loss: Option<f64>) -> bool {
        let (Some(loss), Some(start)) = (loss, self.start) else { return false };
        let rise = loss - start;
        let explained: f64 = slopes.iter().map(|slope| slope.along.max(0.0)).sum();
        rise > 0.5 * start.abs() && explained >= 0.25 * rise
    }

    fn give_up(&mut self, slopes: &[Slope]) -> Ramped {
        let largest = slopes.iter().map(|slope| slope.along).fold(0.0, f64::max);
        for (group, slope) in self.groups.iter_mut().zip(slopes).filter(|(group, _)| !group.frozen)
        {
            if slope.along > 0.0 && slope.along >= 0.25 * largest {
                group.retreat();
            }
        }
        self.settle_rest();
        Ramped::TooFar
    }

    /// Looks at the slopes of this rate, and doubles it.
    fn double(&mut self, slopes: &[Slope], each: u64, looks: u64, taken: u64) -> Ramped {
        for (group, slope) in self.groups.iter_mut().zip(slopes).filter(|(g, _)| g.is_moving()) {
            let longest = LONGEST_WAY * slope.norm.max((slope.weights as f64).sqrt());
            group.is_far = slope.moved > longest;
            group.here.extend(slope.per_length());
        }
        self.stage = Stage::Doubling { each, looks, taken };
        if taken < each * (looks + 1) {
            return Ramped::On;
        }
        let doubtful = self.moving().any(|group| !group.faint && group.look() == Look::Doubtful);
        if doubtful && looks + 1 < LOOKS {
            self.stage = Stage::Doubling { each, looks: looks + 1, taken };
            return Ramped::On;
        }
        let mut too_far = false;
        let near = slopes.iter().all(|slope| slope.moved <= NEAR * slope.size());
        let by = if near { 4.0 } else { 2.0 };
        let level = if self.follows { FOLLOWING } else { NORMALIZED };
        for group in self.moving() {
            match group.look() {
                Look::HalfWay if group.faint => too_far |= group.stop(level),
                _ if group.faint => group.raise(by),
                Look::Silent => group.raise(by),
                Look::Straight | Look::Bending if !group.is_far => group.go_on(by),
                _ => too_far |= group.stop(level),
            }
        }
        self.stage = Stage::Doubling { each, looks: 0, taken: 0 };
        let over = self.groups.iter().all(|group| group.done || !group.is_judged());
        match (over, too_far) {
            (false, false) => Ramped::On,
            (_, too_far) => {
                self.settle_rest();
                if too_far {
                    Ramped::TooFar
                } else {
                    Ramped::Done
                }
            }
        }
    }

    /// Groups that could not be judged take the largest of the others' rates. One that has had no
    /// gradient keeps its own, if that is less.
    fn settle_rest(&mut self) {
        let found = self.groups.iter().filter(|group| group.done && !group.frozen);
        let Some(largest) = found.map(|group| group.rate).reduce(f64::max) else { return };
        for group in self.groups.iter_mut().filter(|group| !group.done) {
            group.rate = if group.silent { largest.min(group.rate) } else { largest };
        }
    }

    /// For each group, whether it has had no gradient.
    pub(crate) fn silent(&self) -> impl Iterator<Item = bool> + '_ {
        self.groups.iter().map(|group| group.silent)
    }

    /// The groups whose rates are looked for.
    fn moving(&mut self) -> impl Iterator<Item = &mut GroupRamp> {
        self.groups.iter_mut().filter(|group| group.is_moving())
    }

    /// The slope of all groups whose rates are looked for, as if they were one.
    fn total(&self, slopes: &[Slope]) -> Slope {
        let moving =
            self.groups.iter().zip(slopes).filter(|(group, _)| !group.frozen && !group.silent);
        moving.map(|(_, slope)| *slope).sum()
    }
}

/// How far the first steps go: see [`FIRST_WAY`]. In half precision a few roundings are more.
fn first_way(all: &Slope, spacing: f64) -> f64 {
    FIRST_WAY.max(2.0 * spacing) * all.size()
}

/// What the slopes of one rate say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// There are none: the group does not move.
    Silent,
    /// The way is as steep as at its beginning, or steeper.
    Straight,
    /// It is less steep, by less than half.
    Bending,
    /// It seems half as steep or less, which may be noise.
    Doubtful,
    /// It is half as steep or less.
    HalfWay,
}

impl GroupRamp {
    fn new(rate: f64, frozen: bool) -> Self {
        Self {
            rate,
            raised: 1.0,
            frozen,
            silent: true,
            faint: false,
            done: frozen,
            is_far: false,
            base: Samples::default(),
            here: Samples::default(),
            first: 0.0,
            means: Vec::new(),
        }
    }

    fn is_possible(&self) -> bool {
        RATES.contains(&self.rate) && self.means.len() <= 4
    }

    /// Whether its rate is looked for.
    fn is_moving(&self) -> bool {
        !self.done && !self.silent
    }

    /// Whether its own slope says where it is done.
    fn is_judged(&self) -> bool {
        !self.silent && !self.faint && self.base.count > 0
    }

    /// The number of steps whose mean slope has half of the first slope for two standard errors.
    fn steps_a_look(&self) -> u64 {
        if self.base.count == 0 {
            return 1;
        }
        let steps = (2.0 * self.base.deviation() / self.first).powi(2).ceil();
        // Infinite or NaN where there is no slope.
        if steps <= MOST_STEPS as f64 {
            (steps as u64).max(1)
        } else {
            MOST_STEPS
        }
    }

    fn look(&self) -> Look {
        let Samples { count, mean, .. } = self.here;
        if count == 0 {
            return Look::Silent;
        }
        // A few slopes tell little of their noise.
        let deviation = self.here.deviation().max(self.base.deviation());
        let error = deviation / (count as f64).sqrt();
        if mean - error < 0.75 * self.first {
            Look::Straight
        } else if mean < 0.5 * self.first {
            Look::Bending
        } else if mean - 3.0 * error > 0.5 * self.first {
            Look::HalfWay
        } else {
            Look::Doubtful
        }
    }

    fn raise(&mut self, by: f64) {
        (self.rate, self.raised) = (bounded(by * self.rate), by);
        self.here = Samples::default();
    }

    fn go_on(&mut self, by: f64) {
        let straight = self.look() == Look::Straight;
        if self.means.len() == 4 {
            self.means.remove(0);
        }
        self.means.push(self.here.mean);
        if straight {
            self.base.merge(&self.here);
            // A slope that steepens by itself, as in a recurrent network, is followed.
            let recent = self.means.iter().sum::<f64>() / self.means.len() as f64;
            let recent = if self.means.len() >= 3 { recent } else { 0.0 };
            self.first = self.base.mean.min(recent).min(0.0);
        }
        self.raise(by);
    }

    /// The group is done, at the rate where the slope crosses half of the first one. The answer is
    /// whether the way is as steep up as it was down.
    fn stop(&mut self, level: f64) -> bool {
        let (before, here) = (self.means.last().copied().unwrap_or(self.first), self.here.mean);
        // The way has grown as the rate has.
        let part = ((0.5 * self.first - before) / (here - before)).clamp(0.0, 1.0);
        let part = if part.is_finite() { part } else { 1.0 };
        let crossing = self.rate * (1.0 + part * (self.raised - 1.0)) / self.raised;
        self.rate = bounded(level * crossing);
        self.done = true;
        here > -self.first && self.first < 0.0
    }

    fn retreat(&mut self) {
        self.rate = bounded(0.25 * self.rate);
        self.done = true;
    }
}
