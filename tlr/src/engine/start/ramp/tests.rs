//! Each decision of the ramp by hand, from slopes of a few numbers.
#![allow(clippy::unwrap_used, clippy::unreachable)]

mod growth;

use super::{group::GroupRamp, trial::RAISE, *};
use crate::engine::start::samples::tests::of as samples;

const FACTS: HostFacts = HostFacts { momentum: 0.0, epsilon: 1e-9 };

/// A slope along a way of length 1, of weights of norm 1. Such a way is not near the start.
fn slope(along: f64) -> Slope {
    Slope { along, moved: 1.0, gradient: 1.0, norm: 1.0, weights: 1 }
}

/// A group whose first slope is −1, for certain.
fn group(rate: f64) -> GroupRamp {
    let base = samples(&[-1.0; 8]);
    GroupRamp { silent: false, base, first: -1.0, ..GroupRamp::new(rate, false) }
}

fn at(stage: Stage, groups: Vec<GroupRamp>) -> Ramp {
    let fresh = Ramp::new(std::iter::once((1.0, false)), None).unwrap();
    // As long as the gradients of `slope`: none has exploded.
    Ramp { groups, stage, gradient: 1.0, ..fresh }
}

/// The stage in which each step is looked at, before the first.
fn growing_by_one() -> Stage {
    Stage::Growing { each: 1, looks: 0, taken: 0 }
}

/// A group that has had gradients and no slope yet.
fn unmeasured() -> GroupRamp {
    GroupRamp { silent: false, ..GroupRamp::new(1.0, false) }
}

fn growing(each: u64, looks: u64, taken: u64, groups: Vec<GroupRamp>) -> Ramp {
    at(Stage::Growing { each, looks, taken }, groups)
}

/// One more step, in the usual case.
fn see(ramp: &mut Ramp, slopes: &[Slope], loss: Option<f64>) -> Ramped {
    ramp.observe(slopes, loss, FACTS, &Safeguard::default())
}

fn rates(ramp: &Ramp) -> Vec<f64> {
    ramp.rates().collect()
}

// ---- What is kept ----

#[test]
fn stages_that_cannot_be() {
    let possible =
        |each, looks, taken| growing(each, looks, taken, vec![group(1.0)]).is_possible(1);
    assert!(possible(4, 0, 0) && possible(64, 3, 256) && possible(4, 3, 16));
    assert!(!possible(0, 0, 0) && !possible(65, 0, 0));
    assert!(!possible(4, 4, 0) && !possible(4, 3, 17));
    assert!(at(Stage::Probing, vec![group(1.0)]).is_possible(1));
    assert!(!at(Stage::Probing, vec![group(0.0)]).is_possible(1));
    let five = GroupRamp { means: vec![0.0; 5], ..group(1.0) };
    assert!(!at(Stage::Probing, vec![five]).is_possible(1));
    // Counts that no ramp comes to, and that would overflow as it goes on.
    let mut many = samples(&[]);
    many.count = u64::MAX;
    for group in [GroupRamp { base: many, ..group(1.0) }, GroupRamp { here: many, ..group(1.0) }] {
        assert!(!at(Stage::Probing, vec![group]).is_possible(1));
    }
    let fresh = || at(Stage::Probing, vec![group(1.0)]);
    assert!(!Ramp { whole: many, ..fresh() }.is_possible(1));
    assert!(!Ramp { known_at: u64::MAX, ..fresh() }.is_possible(1));
    // The batch of the last step may be skipped, and then there is one more.
    assert!(Ramp { steps: LONGEST_RAMP + 1, ..fresh() }.is_possible(1));
    assert!(!Ramp { steps: LONGEST_RAMP + 2, ..fresh() }.is_possible(1));
}

// It ends where it is. Fails with another count.
#[test]
fn the_longest_ramp() {
    let mut ramp = growing(1, 0, 0, vec![group(1.0)]);
    ramp.steps = LONGEST_RAMP - 2;
    assert_eq!(see(&mut ramp, &[slope(-1.0)], None), Ramped::On);
    assert_eq!(see(&mut ramp, &[slope(-1.0)], None), Ramped::Done);
}

// The largest ones, until rates grow.
#[test]
fn loss_and_gradient_at_the_start() {
    let mut ramp = at(Stage::Resting, vec![group(1.0)]);
    see(&mut ramp, &[Slope { gradient: 3.0, ..slope(0.0) }], Some(2.0));
    see(&mut ramp, &[slope(0.0)], Some(1.0));
    assert_eq!((ramp.gradient, ramp.start_loss), (3.0, Some(2.0)));
    ramp.stage = Stage::Growing { each: 9, looks: 0, taken: 0 };
    see(&mut ramp, &[Slope { gradient: 9.0, ..slope(-1.0) }], Some(2.5));
    assert_eq!((ramp.gradient, ramp.start_loss), (3.0, Some(2.0)));
}

#[test]
fn groups_that_are_silent() {
    let groups = vec![group(1.0), GroupRamp::new(1.0, false), GroupRamp::new(1.0, true)];
    let ramp = at(Stage::Probing, groups);
    assert_eq!(ramp.without_gradient().collect::<Vec<_>>(), [false, true, false]);
}

// ---- The trial ----

// A ten-thousandth of the norm, or two roundings, over the gradient; a group's with a fixed rate
// does not count.
#[test]
fn the_trial_rate() {
    let tried = |epsilon| {
        let mut ramp = at(Stage::Resting, vec![group(1.0), GroupRamp::new(7.0, true)]);
        let slopes = [Slope { gradient: 4.0, norm: 2.0, ..slope(0.0) }, slope(9.0)];
        ramp.observe(&slopes, None, HostFacts { momentum: 0.0, epsilon }, &Safeguard::default());
        rates(&ramp)
    };
    assert_eq!(tried(1e-9), [0.5e-4, 7.0]);
    assert_eq!(tried(1e-3), [1e-3, 7.0]);
}

// It is enough to move half of the way. Steps follow the gradients if they have moved by nine
// tenths of what descent would have moved them, or with momentum by half.
#[test]
fn a_trial_that_moves_far_enough() {
    let tried = |moved: f64, momentum| {
        let mut ramp = at(Stage::Resting, vec![group(1.0)]);
        let facts = HostFacts { momentum, epsilon: 1e-9 };
        ramp.observe(&[slope(0.0)], None, facts, &Safeguard::default());
        assert_eq!(rates(&ramp), [1e-4]);
        ramp.observe(&[Slope { moved, ..slope(0.0) }], None, facts, &Safeguard::default());
        // The rate is given in ten-thousandths.
        (ramp.stage == Stage::Probing, ramp.follows, (rates(&ramp)[0] * 1e6).round() / 100.0)
    };
    assert_eq!(tried(0.25e-4, 0.0), (false, false, 4.0));
    assert_eq!(tried(0.0, 0.0), (false, false, RAISE));
    assert_eq!(tried(0.5e-4, 0.0), (true, false, 2.0));
    assert_eq!(tried(0.8e-4, 0.0), (true, false, 1.25));
    assert!(tried(0.8e-4, 0.9).1 && tried(1e-4, 0.0).1);
    assert!(!tried(1.2e-4, 0.9).1);
}

// ---- Probes ----

/// Probes whose slopes depend on their number, from 1, until rates grow; how many, and the ramp.
fn probe(of: impl Fn(u64) -> Vec<Slope>) -> (u64, Ramp) {
    let mut ramp = at(Stage::Probing, vec![GroupRamp::new(1.0, false); of(1).len()]);
    ramp.follows = true;
    for count in 1.. {
        assert!(see(&mut ramp, &of(count), None) == Ramped::On && count <= 200);
        if ramp.stage != Stage::Probing {
            return (count, ramp);
        }
    }
    unreachable!("probes end");
}

fn noise(count: u64) -> f64 {
    if count.is_multiple_of(2) {
        0.01
    } else {
        -0.01
    }
}

// Six are enough for a slope without noise. A group whose slope is lost in noise is waited for
// four times as long as all groups took, and is faint then. If all is noise, no group is.
#[test]
fn probes_until_the_first_slope_is_known() {
    let (count, ramp) = probe(|_| vec![slope(-1.0)]);
    assert_eq!((count, ramp.known_at, ramp.groups[0].faint), (6, 6, false));
    assert_eq!(
        (rates(&ramp), ramp.stage),
        (vec![4.0], Stage::Growing { each: 1, looks: 0, taken: 0 })
    );
    let (count, ramp) = probe(|count| vec![slope(-1.0), slope(noise(count))]);
    assert_eq!((count, ramp.known_at), (24, 6));
    assert_eq!(ramp.groups.iter().map(|group| group.faint).collect::<Vec<_>>(), [false, true]);
    // A faint one is not what the looks wait for.
    assert!(ramp.quiet);
    let (count, ramp) = probe(|count| vec![slope(noise(count))]);
    assert_eq!((count, ramp.known_at, ramp.groups[0].faint), (200, 0, false));
    assert_eq!(ramp.stage, Stage::Growing { each: MOST_STEPS_A_LOOK, looks: 0, taken: 0 });
}

// Of a hundred steps, eight at most are probes, and a look takes one. The slope is noise all the
// same.
#[test]
fn a_short_training_does_not_wait_for_noise() {
    let mut ramp = Ramp { horizon: Some(100), ..at(Stage::Probing, vec![unmeasured()]) };
    for count in 1..=8 {
        assert_eq!(ramp.stage, Stage::Probing);
        see(&mut ramp, &[slope(noise(count))], None);
    }
    assert_eq!(ramp.stage, growing_by_one());
    assert!(!ramp.quiet);
}

// By hand: slopes around −1 with a deviation of σ need ⌈4σ²⌉ steps. A step of Adam averages 19,
// where steps follow the gradients one has to be enough.
#[test]
fn noise_that_a_step_averages_is_little() {
    let quiet = |steps: f64, follows, momentum| {
        let off = (steps * 7.0 / 32.0).sqrt();
        let mut ramp = Ramp { horizon: Some(100), ..at(Stage::Probing, vec![unmeasured()]) };
        (ramp.follows, ramp.expected) = (follows, if follows { 1.0 } else { 9.0 });
        let facts = HostFacts { momentum, ..FACTS };
        for count in 0..8 {
            let along = if count % 2 == 0 { off - 1.0 } else { -off - 1.0 };
            let slopes = [Slope { gradient: 0.0, ..slope(along) }];
            ramp.observe(&slopes, None, facts, &Safeguard::default());
        }
        assert_eq!((ramp.stage, ramp.follows), (growing_by_one(), follows));
        ramp.quiet
    };
    assert!(quiet(18.5, false, 0.9) && !quiet(19.5, false, 0.9));
    assert!(quiet(0.5, false, 0.0) && !quiet(1.5, false, 0.0));
    assert!(quiet(0.5, true, 0.9) && !quiet(1.5, true, 0.9));
}

// Weights that have moved a hundredth of what descent would have moved them do not follow.
#[test]
fn steps_that_stop_following() {
    let after = |moved: f64| {
        let mut ramp = at(Stage::Probing, vec![group(1.0)]);
        (ramp.follows, ramp.expected) = (true, 1.0);
        for _ in 0..8 {
            see(&mut ramp, &[Slope { along: -moved, moved, gradient: 0.0, ..slope(0.0) }], None);
        }
        assert!(matches!(ramp.stage, Stage::Growing { .. }));
        ramp.follows
    };
    assert!(after(1.0) && !after(0.01));
}
