//! The search for one group's starting rate.

use crate::engine::{
    exact,
    rule::{bounded, RATES},
    start::samples::Samples,
};
use serde::{Deserialize, Serialize};

/// The most steps between two looks at the slopes of a rate.
pub(super) const MOST_STEPS_A_LOOK: u64 = 64;

/// A way is straight while its slope is above this part of the first one.
const STRAIGHT: f64 = 0.75;
/// A way is half-way to the lowest point, on a parabola, where its slope is this part of the first
/// one.
const HALF: f64 = 0.5;
/// A slope counts as half of the first one, or less, if it is so by this many standard errors.
const HALF_ERRORS: f64 = 3.0;
/// A way counts as uphill if its slope is so by this many standard errors.
const UPHILL_ERRORS: f64 = 2.0;
/// What a rate is multiplied by if all that is known of it is that it is too large.
const RETREAT: f64 = 0.25;

/// How far the search for one group's rate is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupRamp {
    #[serde(with = "exact")]
    pub(super) rate: f64,
    /// What the rate was last multiplied by.
    #[serde(with = "exact")]
    pub(super) raised: f64,
    /// The group's rate stays where training starts.
    pub(super) fixed: bool,
    /// The group has had no gradient, so its rate does not grow. (A group with a fixed rate is not
    /// asked.)
    pub(super) silent: bool,
    /// The group's first slope is lost in noise, while another group's is not.
    pub(super) faint: bool,
    /// The group's rate is found, or fixed.
    pub(super) done: bool,
    /// The group has moved further than is ever needed: see `Slope::is_far_out`.
    pub(super) is_far: bool,
    /// The rate at which the group seemed half-way, if that was so near the start that it may be
    /// noise. The next look confirms the rate or drops it.
    #[serde(with = "exact::option")]
    pub(super) unconfirmed: Option<f64>,
    /// The slopes on the straight piece.
    pub(super) base: Samples,
    /// The slopes at this rate.
    pub(super) here: Samples,
    /// b: the first slope, by all measurements so far.
    #[serde(with = "exact")]
    pub(super) first: f64,
    /// The mean slopes of up to four rates, the last one last.
    #[serde(with = "exact::list")]
    pub(super) means: Vec<f64>,
}

/// What the slopes of one rate say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There are no slopes: the group does not move.
    Silent,
    /// The way is as steep as at its beginning, or steeper.
    Straight,
    /// The way is less steep than at its beginning, by less than half.
    Bending,
    /// The way seems half as steep or less, which may be noise.
    Doubtful,
    /// The way is half as steep as at its beginning, or less.
    HalfWay,
}

impl GroupRamp {
    pub(super) fn new(rate: f64, fixed: bool) -> Self {
        Self {
            rate,
            raised: 1.0,
            fixed,
            silent: true,
            faint: false,
            done: fixed,
            is_far: false,
            unconfirmed: None,
            base: Samples::default(),
            here: Samples::default(),
            first: 0.0,
            means: Vec::new(),
        }
    }

    /// Whether a group can have been in this state, after `most` steps at most.
    pub(super) fn is_possible(&self, most: u64) -> bool {
        RATES.contains(&self.rate)
            && self.unconfirmed.is_none_or(|rate| rate > 0.0 && rate.is_finite())
            && (1.0..=f64::MAX).contains(&self.raised)
            && self.means.len() <= 4
            && self.base.count <= most
            && self.here.count <= most
    }

    /// Whether the group's rate is still looked for.
    pub(super) fn is_moving(&self) -> bool {
        !self.done && !self.silent
    }

    /// Whether the group's own slope decides when it is done.
    pub(super) fn is_judged(&self) -> bool {
        !self.silent && !self.faint && self.base.count > 0
    }

    /// The number of steps for which two standard errors of the mean slope are half of the first
    /// slope, at most [`MOST_STEPS_A_LOOK`].
    pub(super) fn steps_a_look(&self) -> u64 {
        if self.base.count == 0 {
            return 1;
        }
        let steps = (2.0 * self.base.deviation() / self.first).powi(2).ceil();
        // Infinite or NaN if there is no slope.
        if steps <= MOST_STEPS_A_LOOK as f64 {
            (steps as u64).max(1)
        } else {
            MOST_STEPS_A_LOOK
        }
    }

    /// The standard error of the mean slope at this rate. A few slopes say little of their noise,
    /// so it is taken to be at least that of the slopes on the straight piece.
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
        if mean - error < STRAIGHT * self.first {
            Look::Straight
        } else if mean < HALF * self.first {
            Look::Bending
        } else if mean - HALF_ERRORS * error > HALF * self.first {
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
        self.unconfirmed = None;
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
    pub(super) fn ask_again(&mut self) {
        let crossing = self.crossing();
        self.go_on(2.0);
        self.unconfirmed = Some(crossing);
    }

    /// The rate at which the slope is half of the first one: between the last rate and this one, by
    /// linear interpolation.
    fn crossing(&self) -> f64 {
        let (before, here) = (self.means.last().copied().unwrap_or(self.first), self.here.mean);
        let part = ((HALF * self.first - before) / (here - before)).clamp(0.0, 1.0);
        let part = if part.is_finite() { part } else { 1.0 };
        self.rate * (1.0 + part * (self.raised - 1.0)) / self.raised
    }

    /// Whether the way is as steep up as it was down.
    pub(super) fn is_uphill(&self) -> bool {
        self.here.mean - UPHILL_ERRORS * self.error() > -self.first && self.first < 0.0
    }

    /// Ends the group's search. Returns whether the way leads uphill. The rate is then the
    /// one that is half-way; otherwise it is `level` times that one.
    pub(super) fn stop(&mut self, level: f64) -> bool {
        let (half_way, uphill) =
            (self.unconfirmed.unwrap_or_else(|| self.crossing()), self.is_uphill());
        self.rate = bounded(if uphill { half_way } else { level * half_way });
        self.done = true;
        uphill
    }

    pub(super) fn retreat(&mut self) {
        self.rate = bounded(RETREAT * self.rate);
        self.done = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::start::samples::tests::of as samples;

    /// A group at a rate of 4, raised twofold, whose first slope is −2 for certain, with these
    /// slopes here.
    fn group(here: &[f64]) -> GroupRamp {
        GroupRamp {
            silent: false,
            raised: 2.0,
            first: -2.0,
            base: samples(&[-2.0; 8]),
            here: samples(here),
            ..GroupRamp::new(4.0, false)
        }
    }

    #[test]
    fn states_that_cannot_be() {
        assert!(GroupRamp { means: vec![0.0; 4], ..group(&[]) }.is_possible(8));
        assert!(!GroupRamp { means: vec![0.0; 5], ..group(&[]) }.is_possible(8));
        assert!(!GroupRamp { rate: 0.0, ..group(&[]) }.is_possible(8));
        let confirmed = |rate| GroupRamp { unconfirmed: Some(rate), ..group(&[]) }.is_possible(8);
        assert!(confirmed(1e-31) && confirmed(2.0));
        assert!([0.0, -1.0, f64::INFINITY, f64::NAN].iter().all(|rate| !confirmed(*rate)));
        let raised = |by| GroupRamp { raised: by, ..group(&[]) }.is_possible(8);
        assert!(raised(1.0) && raised(4.0));
        assert!([0.5, f64::INFINITY, f64::NAN].iter().all(|by| !raised(*by)));
        assert!(!group(&[]).is_possible(7) && !group(&[0.0; 9]).is_possible(8));
    }

    // A group is judged by its own slope if it has one and noise does not hide it.
    #[test]
    fn groups_that_are_judged() {
        assert!(group(&[]).is_judged());
        assert!(!GroupRamp { silent: true, ..group(&[]) }.is_judged());
        assert!(!GroupRamp { faint: true, ..group(&[]) }.is_judged());
        assert!(!GroupRamp { base: Samples::default(), ..group(&[]) }.is_judged());
    }

    // 0 and −3 have a deviation of √4.5, so that (2σ/b)² is 18/b².
    #[test]
    fn steps_that_tell_half_from_all() {
        let steps = |first, base: &[f64]| {
            GroupRamp { first, base: samples(base), ..group(&[]) }.steps_a_look()
        };
        assert_eq!(steps(-1.1, &[0.0, -3.0]), 15);
        assert_eq!([steps(-0.1, &[0.0, -3.0]), steps(0.0, &[0.0, -3.0])], [MOST_STEPS_A_LOOK; 2]);
        assert_eq!([steps(-1.0, &[-1.0; 8]), steps(-1.0, &[])], [1; 2]);
        assert_eq!(steps(0.0, &[0.0; 8]), MOST_STEPS_A_LOOK);
    }

    // Slopes around the limits of three quarters and a half of the first one, without noise and
    // with an error of 0.1. Four slopes with a deviation of 0.2 have this error, here or at the
    // base.
    #[test]
    fn what_a_slope_says() {
        use Look::{Bending, Doubtful, HalfWay, Silent, Straight};
        assert_eq!(group(&[]).look(), Silent);
        let exact = [-1.52, -1.5, -1.02, -1.0, -0.98].map(|mean| group(&[mean]).look());
        assert_eq!(exact, [Straight, Bending, Bending, Doubtful, HalfWay]);
        let off = 0.2 * 0.75f64.sqrt();
        let noisy = |mean| group(&[mean - off, mean + off, mean - off, mean + off]).look();
        assert_eq!([-1.42, -1.38, -0.72, -0.68].map(noisy), [Straight, Bending, Doubtful, HalfWay]);
        let base = samples(&[-2.0 - off, -2.0 + off, -2.0 - off, -2.0 + off]);
        let noisy = |mean| GroupRamp { base, ..group(&[mean; 4]) }.look();
        assert_eq!([-1.42, -1.38, -0.72, -0.68].map(noisy), [Straight, Bending, Doubtful, HalfWay]);
    }

    // A straight way measures the first slope better, and one that steepens for three rates is
    // followed. One that bends does neither.
    #[test]
    fn a_way_that_goes_on() {
        let mut bending = group(&[-1.2]);
        bending.unconfirmed = Some(1.0);
        bending.go_on(4.0);
        assert_eq!((bending.rate, bending.raised, bending.first), (16.0, 4.0, -2.0));
        assert_eq!((bending.means, bending.here.count, bending.unconfirmed), (vec![-1.2], 0, None));
        assert_eq!(bending.base.count, 8);

        let mut straight = group(&[]);
        let mut firsts = Vec::new();
        for mean in [-2.9, -3.8, -5.0, -6.0, -7.0] {
            straight.here = samples(&[mean]);
            straight.go_on(1.0);
            firsts.push(straight.first);
        }
        let whole: [f64; 2] = [-18.9 / 9.0, -22.7 / 10.0];
        // Then the mean of three and of the last four.
        let expected = [whole[0], whole[1], -11.7 / 3.0, -17.7 / 4.0, -21.8 / 4.0];
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
        assert!(firsts.iter().zip(&expected).all(close), "{firsts:?}");
        assert_eq!((straight.means, straight.base.count), (vec![-3.8, -5.0, -6.0, -7.0], 13));
        let mut level = GroupRamp { first: 0.0, base: samples(&[1.0]), ..group(&[-0.1]) };
        level.go_on(1.0);
        assert_eq!(level.first, 0.0);
    }

    // The slope is −2 or −1.5 at a rate of 2, and this one at 4. The crossing is where it is −1.
    #[test]
    fn where_the_slope_is_half_of_the_first() {
        assert_eq!(group(&[0.0]).crossing(), 3.0);
        assert_eq!(GroupRamp { raised: 4.0, ..group(&[0.0]) }.crossing(), 2.5);
        assert_eq!(GroupRamp { means: vec![-9.0, -1.5], ..group(&[0.5]) }.crossing(), 2.5);
        // The crossing is never outside of the two rates. It is the last rate if only one slope is
        // known.
        assert_eq!(GroupRamp { means: vec![-0.5], ..group(&[0.0]) }.crossing(), 2.0);
        assert_eq!(group(&[-1.5]).crossing(), 4.0);
        assert_eq!(GroupRamp { means: vec![-1.0], ..group(&[-1.0]) }.crossing(), 4.0);
    }

    // A way leads uphill if it is as steep as the first slope, by two standard errors (here of
    // 0.1).
    #[test]
    fn a_way_uphill() {
        assert!(!group(&[2.0]).is_uphill() && group(&[2.01]).is_uphill());
        let off = 0.2 * 0.75f64.sqrt();
        let noisy = |mean| group(&[mean - off, mean + off, mean - off, mean + off]);
        assert!(!noisy(2.19).is_uphill() && noisy(2.21).is_uphill());
        assert!(!GroupRamp { first: 0.0, ..group(&[1.0]) }.is_uphill());
    }

    // The rate is `level` times the crossing, and no more than the crossing if the way leads
    // uphill.
    #[test]
    fn a_rate_that_is_found() {
        let mut found = group(&[0.0]);
        assert!(!found.stop(2.0) && found.done);
        assert_eq!(found.rate, 6.0);
        let mut uphill = group(&[3.0]);
        assert!(uphill.stop(2.0) && uphill.done);
        assert_eq!(uphill.rate, 4.0 * (1.0 + 0.2) / 2.0);
        // What the rate before had found counts.
        let mut unsure = group(&[0.0]);
        unsure.ask_again();
        assert_eq!((unsure.rate, unsure.raised, unsure.unconfirmed), (8.0, 2.0, Some(3.0)));
        unsure.here = samples(&[0.0]);
        unsure.stop(2.0);
        assert_eq!(unsure.rate, 6.0);
        let mut back = group(&[]);
        back.retreat();
        assert_eq!((back.rate, back.done), (1.0, true));
    }
}
