//! Each decision of the ramp by hand, from slopes of a few numbers.
#![allow(clippy::unwrap_used, clippy::unreachable)]

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

// ---- Growth ----

// A rise of more than half of the first loss, a quarter of which the slopes explain: by hand,
// around both limits.
#[test]
fn a_loss_that_has_exploded() {
    let exploded = |loss, along| {
        let mut ramp = growing(9, 0, 0, vec![group(1.0)]);
        ramp.start_loss = Some(2.0);
        see(&mut ramp, &[slope(along)], Some(loss)) == Ramped::TooFar
    };
    assert!(!exploded(3.0, 2.0) && exploded(3.1, 2.0));
    assert!(!exploded(2.5, 2.0) && exploded(3.5, 2.0));
    assert!(exploded(4.0, 0.5) && !exploded(4.0, 0.4));
    assert!(!exploded(4.0, 0.2) && !exploded(4.0, -2.0));
}

// Without a loss: a gradient of more than three times the largest at the start, where the way leads
// uphill by more than three tenths of it. By hand, around both limits.
#[test]
fn a_gradient_that_has_exploded() {
    let exploded = |gradient, along, safeguard: Safeguard| {
        let mut ramp = growing(9, 0, 0, vec![group(1.0)]);
        ramp.gradient = 2.0;
        let slopes = [Slope { gradient, ..slope(along) }];
        let ramped = ramp.observe(&slopes, None, FACTS, &safeguard);
        (ramped == Ramped::TooFar).then(|| rates(&ramp)[0])
    };
    let usual = Safeguard::default();
    assert_eq!(exploded(7.0, 2.2, usual), Some(0.25));
    assert_eq!([exploded(6.0, 6.0, usual), exploded(7.0, 2.0, usual)], [None; 2]);
    assert_eq!(exploded(7.0, -7.0, usual), None);
    assert_eq!(exploded(7.0, 2.2, usual.blame(None)), None);
}

// The safeguard's limits are the ramp's. By hand: losses up to thrice the first do not explode, and
// without blame a rise that no way explains is one all the same, of all groups.
#[test]
fn the_safeguard_limits_explosions() {
    let seen = |safeguard: Safeguard, loss, along| {
        let mut ramp = growing(9, 0, 0, vec![group(1.0), group(1.0)]);
        ramp.start_loss = Some(2.0);
        let slopes = [slope(along), slope(-1.0)];
        let ramped = ramp.observe(&slopes, Some(loss), FACTS, &safeguard);
        (ramped == Ramped::TooFar, rates(&ramp))
    };
    let thrice = Safeguard::default().explosion(3.0);
    assert!(!seen(thrice, 6.0, 9.0).0 && seen(thrice, 6.1, 9.0).0);
    let without = Safeguard::default().blame(None);
    assert_eq!(seen(without, 3.1, -1.0), (true, vec![0.25, 0.25]));
    assert!(!seen(without, 3.0, 9.0).0);
}

// A group with a fixed rate is not to blame. Fails if its share of the rise acquits the others.
#[test]
fn a_fixed_rate_does_not_hide_the_others() {
    let fixed = GroupRamp { silent: false, ..GroupRamp::new(3.0, true) };
    let mut ramp = growing(9, 0, 0, vec![group(8.0), fixed]);
    ramp.start_loss = Some(1.0);
    assert_eq!(see(&mut ramp, &[slope(0.5), slope(9.0)], Some(3.0)), Ramped::TooFar);
    assert_eq!(rates(&ramp), [2.0, 3.0]);
}

// Groups that explain a quarter as much as the largest go back to a quarter of their rates. The
// others take the largest of theirs. One with a fixed rate stays.
#[test]
fn who_is_to_blame_for_an_explosion() {
    let mut groups: Vec<_> = [8.0, 4.0, 16.0, 32.0].map(group).into();
    groups.push(GroupRamp { silent: false, ..GroupRamp::new(3.0, true) });
    let mut ramp = growing(9, 0, 0, groups);
    ramp.start_loss = Some(1.0);
    let slopes = [2.0, 0.5, 0.4, -1.0, 2.0].map(slope);
    assert_eq!(see(&mut ramp, &slopes, Some(3.0)), Ramped::TooFar);
    assert_eq!(rates(&ramp), [2.0, 1.0, 2.0, 2.0, 3.0]);
}

// `each` steps are made at each rate. Fails one step early or late.
#[test]
fn a_rate_is_looked_at_after_its_steps() {
    let after = |looks, taken| {
        let mut ramp = growing(2, looks, taken, vec![group(1.0)]);
        see(&mut ramp, &[slope(-1.0)], None);
        rates(&ramp)[0]
    };
    assert_eq!([after(0, 0), after(0, 1), after(1, 2), after(1, 3)], [1.0, 2.0, 1.0, 2.0]);
}

/// With one more slope of −0.3 a group that may be half-way, or not: −0.4 with an error of 0.1.
fn doubtful() -> GroupRamp {
    GroupRamp { here: samples(&[-0.5]), ..group(1.0) }
}

// A doubtful group is looked at again. After the fourth look it counts as half-way.
#[test]
fn doubt_is_looked_at_four_times() {
    let after = |looks| {
        let mut ramp = growing(1, looks, looks, vec![doubtful()]);
        see(&mut ramp, &[slope(-0.3)], None);
        (ramp.stage, ramp.groups[0].done)
    };
    let stage = |looks, taken| Stage::Growing { each: 1, looks, taken };
    assert_eq!(after(0), (stage(1, 1), false));
    assert_eq!(after(2), (stage(3, 3), false));
    assert_eq!(after(3), (stage(0, 0), true));
}

// Rates grow fourfold within a thousandth of the norm, and twofold beyond.
#[test]
fn rates_grow_faster_near_the_start() {
    let after = |moved: f64| {
        let mut ramp = growing(1, 0, 0, vec![group(1.0)]);
        see(&mut ramp, &[Slope { along: -moved, moved, norm: 4.0, ..slope(0.0) }], None);
        rates(&ramp)[0]
    };
    assert_eq!((after(0.003), after(0.005)), (4.0, 2.0));
}

// A group that has not moved says nothing. A group whose slope is faint says only that it is
// half-way or uphill, and near the start not even that: one noisy slope of a faint group would end
// the ramp of all.
#[test]
fn groups_that_say_nothing_grow_with_the_others() {
    let at = |way: f64, along: f64| Slope { along: along * way, moved: way, ..slope(0.0) };
    let (near, far) = (|along| at(1e-4, along), |along| at(0.02, along));
    let still = Slope { moved: 0.0, ..slope(0.0) };
    let faint = |group: GroupRamp| GroupRamp { faint: true, ..group };
    let after = |first: GroupRamp, of| {
        let mut ramp = growing(1, 3, 3, vec![first, group(1.0)]);
        let ramped = see(&mut ramp, &[of, near(-1.0)], None);
        let group = &ramp.groups[0];
        (ramped, group.rate, group.done)
    };
    assert_eq!(after(group(1.0), still), (Ramped::On, 4.0, false));
    assert_eq!(after(faint(doubtful()), near(-0.3)), (Ramped::On, 4.0, false));
    for along in [-0.4, 2.0] {
        assert_eq!(after(faint(group(1.0)), near(along)), (Ramped::On, 4.0, false), "{along}");
    }
    // Half-way: the rate where the slope crosses half of the first, which is the rate before.
    let half_way = after(faint(group(1.0)), far(-0.4));
    assert_eq!((half_way.0, half_way.2), (Ramped::On, true));
    // As steep up as it was down.
    for (first, of) in [(faint(group(1.0)), far(2.0)), (group(1.0), near(2.0))] {
        let uphill = after(first, of);
        assert_eq!((uphill.0, uphill.2), (Ramped::TooFar, true));
    }
}

// Half-way, by one slope of half of the first: at the rate of 1, of which training starts at twice,
// or at 1.4 times around momentum, whose velocity is cleared; where steps stay long, at 1.
#[test]
fn the_level_above_half_way() {
    let after = |follows, momentum| {
        let mut ramp = Ramp { follows, ..growing(1, 0, 0, vec![group(1.0)]) };
        let facts = HostFacts { momentum, ..FACTS };
        assert_eq!(ramp.observe(&[slope(-0.5)], None, facts, &Safeguard::default()), Ramped::Done);
        rates(&ramp)[0]
    };
    assert_eq!([after(true, 0.0), after(true, 0.9)], [2.0, 1.4]);
    assert_eq!([after(false, 0.0), after(false, 0.9)], [1.0, 1.0]);
}

// Ten times as long as the weights is far enough, however straight the way.
#[test]
fn a_way_far_out_ends_the_ramp() {
    let after = |moved: f64| {
        let mut ramp = growing(1, 0, 0, vec![group(1.0)]);
        see(&mut ramp, &[Slope { along: -moved, moved, ..slope(0.0) }], None)
    };
    assert_eq!((after(10.0), after(10.1)), (Ramped::On, Ramped::Done));
}
