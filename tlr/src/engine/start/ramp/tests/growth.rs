//! How rates grow, and where they stop.

use super::*;

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

// Half-way, at the rate of 1: training starts at twice that, or at 1.4 times around momentum, whose
// velocity is cleared; where steps stay long, at 1.
#[test]
fn the_level_above_half_way() {
    let after = |follows, momentum| {
        let mut ramp = Ramp { follows, ..growing(1, 0, 0, vec![group(1.0)]) };
        let facts = HostFacts { momentum, ..FACTS };
        assert_eq!(ramp.observe(&[slope(-0.4)], None, facts, &Safeguard::default()), Ramped::Done);
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
