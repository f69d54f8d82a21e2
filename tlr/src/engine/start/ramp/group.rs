//! The search for one group's starting rate.

use crate::engine::{
    exact,
    rule::{bounded, RATES},
    start::samples::Samples,
};
use serde::{Deserialize, Serialize};

/// The most steps between two looks at the slopes of a rate.
pub(super) const MOST_STEPS: u64 = 64;

/// How far the search for one group's rate is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupRamp {
    #[serde(with = "exact")]
    pub(super) rate: f64,
    /// What the rate was last multiplied by.
    #[serde(with = "exact")]
    pub(super) raised: f64,
    /// Its rate stays where training starts.
    pub(super) frozen: bool,
    /// It has had no gradient, and keeps its rate.
    pub(super) silent: bool,
    /// Its first slope is lost in noise, while that of all groups together is not.
    pub(super) faint: bool,
    /// Its rate is found, or frozen.
    pub(super) done: bool,
    /// It has gone as far as it may.
    pub(super) is_far: bool,
    /// It seemed half-way at the rate before, so near the start that noise is likelier: the rate at
    /// which it would be done.
    #[serde(with = "exact::option")]
    pub(super) doubted: Option<f64>,
    /// The slopes on the straight piece.
    pub(super) base: Samples,
    /// The slopes at this rate.
    pub(super) here: Samples,
    /// b: the first slope, as far as it is known.
    #[serde(with = "exact")]
    pub(super) first: f64,
    /// The mean slopes of up to four rates, the last one last.
    #[serde(with = "exact::list")]
    pub(super) means: Vec<f64>,
}

/// What the slopes of one rate say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
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
    pub(super) fn new(rate: f64, frozen: bool) -> Self {
        Self {
            rate,
            raised: 1.0,
            frozen,
            silent: true,
            faint: false,
            done: frozen,
            is_far: false,
            doubted: None,
            base: Samples::default(),
            here: Samples::default(),
            first: 0.0,
            means: Vec::new(),
        }
    }

    pub(super) fn is_possible(&self) -> bool {
        RATES.contains(&self.rate) && self.means.len() <= 4
    }

    /// Whether its rate is looked for.
    pub(super) fn is_moving(&self) -> bool {
        !self.done && !self.silent
    }

    /// Whether its own slope says where it is done.
    pub(super) fn is_judged(&self) -> bool {
        !self.silent && !self.faint && self.base.count > 0
    }

    /// The number of steps whose mean slope has half of the first slope for two standard errors.
    pub(super) fn steps_a_look(&self) -> u64 {
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

    /// The standard error of the mean slope at this rate. A few slopes tell little of their noise.
    fn error(&self) -> f64 {
        let deviation = self.here.deviation().max(self.base.deviation());
        deviation / (self.here.count.max(1) as f64).sqrt()
    }

    pub(super) fn look(&self) -> Look {
        let Samples { count, mean, .. } = self.here;
        if count == 0 {
            return Look::Silent;
        }
        let error = self.error();
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

    pub(super) fn raise(&mut self, by: f64) {
        (self.rate, self.raised) = (bounded(by * self.rate), by);
        self.here = Samples::default();
    }

    pub(super) fn go_on(&mut self, by: f64) {
        let straight = self.look() == Look::Straight;
        self.doubted = None;
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

    /// Goes on to the next rate, which has to confirm that this one is half-way.
    pub(super) fn doubt(&mut self) {
        let crossing = self.crossing();
        self.go_on(2.0);
        self.doubted = Some(crossing);
    }

    /// The rate where the slope crosses half of the first one, between the last rate and this one:
    /// the way has grown as the rate has.
    fn crossing(&self) -> f64 {
        let (before, here) = (self.means.last().copied().unwrap_or(self.first), self.here.mean);
        let part = ((0.5 * self.first - before) / (here - before)).clamp(0.0, 1.0);
        let part = if part.is_finite() { part } else { 1.0 };
        self.rate * (1.0 + part * (self.raised - 1.0)) / self.raised
    }

    /// Whether the way is as steep up as it was down.
    pub(super) fn is_uphill(&self) -> bool {
        self.here.mean - 2.0 * self.error() > -self.first && self.first < 0.0
    }

    /// The group is done, at `level` times the rate that is half-way. The answer is whether the way
    /// leads uphill. Then it is that rate itself.
    pub(super) fn stop(&mut self, level: f64) -> bool {
        let (half_way, uphill) =
            (self.doubted.unwrap_or_else(|| self.crossing()), self.is_uphill());
        self.rate = bounded(if uphill { half_way } else { level * half_way });
        self.done = true;
        uphill
    }

    pub(super) fn retreat(&mut self) {
        self.rate = bounded(0.25 * self.rate);
        self.done = true;
    }
}
