//! Tests of `Watch`, on losses and slopes written by hand.

use super::*;

/// A way of length 1, and a gradient of this length that leads along it so far.
fn slope(along: f64, gradient: f64) -> Slope {
    Slope { along, moved: 1.0, gradient, norm: 1.0, weights: 1 }
}

fn watch() -> Watch {
    let mut watch = Watch::default();
    watch.start_from(None, 1.0);
    watch
}

// Fails with another number of windows, and if gradients that are as long, or a way that is not
// steep enough, count.
#[test]
fn three_windows_uphill_to_longer_gradients_are_too_many() {
    let after = |slopes: [(f64, f64); 4]| {
        let mut watch = watch();
        slopes.map(|(along, gradient)| watch.record_uphill(&[slope(along, gradient)]))
    };
    let none = [false; 4];
    assert_eq!(after([(1.0, 1.0), (1.0, 1.1), (1.0, 1.2), (1.0, 1.3)])[..3], [false, false, true]);
    assert_eq!(after([(1.0, 1.0), (1.0, 1.1), (1.0, 1.1), (1.0, 1.2)]), none);
    assert_eq!(after([(1.0, 1.0), (1.0, 1.1), (0.36, 1.2), (1.0, 1.3)]), none);
    // After that, windows are counted anew.
    assert!(!after([(1.0, 1.0), (1.0, 1.1), (1.0, 1.2), (1.0, 1.3)])[3]);
}

// Three times as long as the longest before. Fails with another factor, or if equality counts.
#[test]
fn gradients_that_have_exploded() {
    let mut watch = watch();
    assert!(!watch.has_gone_too_far(&slope(3.0, 3.0)));
    assert!(watch.has_gone_too_far(&slope(3.1, 3.1)));
    assert!(!watch.has_gone_too_far(&slope(0.9, 3.1)));
    assert!(!watch.record_uphill(&[slope(-1.0, 2.0)]));
    assert!(!watch.has_gone_too_far(&slope(6.0, 6.0)));
    assert!(watch.has_gone_too_far(&slope(6.1, 6.1)));
    // Three tenths of the way times the gradient are uphill.
    let way = |along| Slope { moved: 2.0, ..slope(along, 20.0) };
    assert!(!watch.has_gone_too_far(&way(11.9)) && watch.has_gone_too_far(&way(12.1)));
    // A sum that is no number says nothing.
    assert!(!watch.record_uphill(&[slope(f64::NAN, 9.0)]));
}

// The sum of two of them is infinite, and their mean is not. Fails if the sum is taken for a rise.
#[test]
fn huge_losses_that_do_not_rise_are_good() {
    let safeguard = Safeguard::default();
    let mut watch = watch();
    for _ in 0..3 {
        assert_eq!(watch.inspect(1e308, 10, &safeguard), LossVerdict::Good);
        watch.record(1e308);
    }
}

// Where nothing may rise, losses that stay equal are good, the last of the window too. Fails if
// their mean is rounded up, as the mean of 0.1, 0.1 and 0.1 is where their sum is divided by 3.
#[test]
fn equal_losses_are_good_without_tolerance() {
    let safeguard = Safeguard { tolerance: 0.0, standard_errors: 0.0, ..Safeguard::default() };
    for loss in [0.1, -0.1, 0.7, f64::MIN, f64::MAX] {
        let mut watch = watch();
        for step in 0..200 {
            assert_eq!(watch.inspect(loss, 3, &safeguard), LossVerdict::Good, "{loss}, {step}");
            watch.record(loss);
            if step % 3 == 2 {
                watch.accept(Some(&safeguard));
            }
        }
    }
}

// By hand. A loss at the snapshot is counted by `inspect`, one on the way by `forgive`, and after
// good windows neither moves the reference. Fails with another sign, or if one counts twice.
#[test]
fn a_forgiven_loss_is_part_of_the_first_reference() {
    let safeguard = Safeguard::default();
    let mut watch = watch();
    watch.inspect(2.0, 10, &safeguard);
    watch.forgive(4.0);
    assert_eq!(watch.rise(5.0), 3.0);
    watch.record(2.0);
    watch.forgive(4.0);
    assert_eq!(watch.rise(5.0), 2.0);
    watch.accept(Some(&safeguard));
    watch.roll_back(&safeguard, true);
    watch.inspect(2.0, 10, &safeguard);
    watch.record(2.0);
    watch.forgive(8.0);
    assert_eq!(watch.rise(5.0), 3.0);
}

fn losses(all: &[f64]) -> Losses {
    let mut losses = Losses::default();
    all.iter().for_each(|loss| losses.push(*loss));
    losses
}

// Three losses at the snapshot agree on a level above the ceiling: it is the ceiling from then on,
// with the window's noise on top. Fails with another sum, or if a level at the ceiling counts.
#[test]
fn an_agreed_level_raises_the_ceiling() {
    let safeguard = Safeguard::default();
    let after = |level: f64| {
        let mut watch = Watch {
            ceiling: Some(2.0),
            at_snapshot: vec![level, level + 1.0, level + 2.0],
            accepted: Some(losses(&[1.0])),
            window: losses(&[5.0, 6.0, 5.0, 6.0, 5.0]),
            ..Watch::default()
        };
        watch.accept(Some(&safeguard));
        watch.ceiling
    };
    // A deviation of √(4/(2·4)).
    assert_eq!(after(5.0), Some(5.0 + safeguard.standard_errors * 0.5f64.sqrt()));
    assert_eq!(after(2.0), Some(2.0));
}

// What was seen at one snapshot says nothing of the one before.
#[test]
fn a_rollback_further_back_forgets_the_losses_at_the_snapshot() {
    let mut watch = Watch { at_snapshot: vec![1.0; 3], origin: losses(&[1.0]), ..Watch::default() };
    assert_eq!(watch.level_at_snapshot(), 1.0);
    watch.new_snapshot();
    assert_eq!((watch.level_at_snapshot(), watch.origin.count), (f64::NEG_INFINITY, 0));
}

// A ramp that has seen no gradient. Fails if the first one after it has exploded.
#[test]
fn a_gradient_of_zero_is_no_measure() {
    let mut watch = Watch::default();
    watch.start_from(None, 0.0);
    assert!(!watch.has_gone_too_far(&slope(1.0, 1.0)));
}
