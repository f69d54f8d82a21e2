//! A loss that explodes is skipped once, and undoes the window if the next one does, too.

use super::{default, rolled_back, Model, Run, RATE};
use dfdx::{optim::*, prelude::*};
use support::values::{bits, gradients};
use tlr::Cause::{LossExploded, LossIncreased, NonFiniteLoss, NonFiniteWeights};

// 1.5 times the first loss passes, a hair more does not. Fails with another factor or another
// reference, or with `cut` in place of `first_cut`.
#[test]
fn explosion_before_any_window_is_accepted() {
    let mut run = default(4);
    let start = bits(&run.model);
    run.accept(&[2.0, 3.0]);
    assert_ne!(bits(&run.model), start);
    assert_eq!(run.explode(3.0 + 1e-9), rolled_back(LossExploded));
    assert_eq!(bits(&run.model), start);
    assert_eq!(run.rate(), RATE * 0.1);
}

// The reference is the largest of the first loss and those of the last accepted window. Fails with
// the mean in place of the largest, or without the first loss.
#[test]
fn explosion_after_an_accepted_window() {
    for (window, below, above) in [([1.0, 1.2], 1.79, 1.81), ([1.0, 0.4], 1.49, 1.51)] {
        let mut run = default(4);
        run.accept(&[window, window].concat());
        run.accept(&[0.1, below]);
        assert_eq!(run.explode(above), rolled_back(LossExploded));
        assert_eq!(run.rate(), RATE * 0.5);
    }
}

// The losses of a window do not tell of its end. Where the very next loss explodes, that end was
// bad: back to the snapshot before. Fails without the step back.
#[test]
fn first_loss_after_a_window_goes_back_two() {
    let mut run = default(2);
    let start = bits(&run.model);
    run.accept(&[1.0, 0.9]);
    assert_ne!(bits(&run.model), start);
    assert_eq!(run.explode(10.0), rolled_back(LossExploded));
    assert_eq!(bits(&run.model), start);
    assert_eq!(run.rate(), RATE * 0.5);
}

// Once a loss has been seen at a window's end, that end is where a rollback goes. Fails if the step
// back is taken always.
#[test]
fn a_seen_snapshot_is_kept() {
    let mut run = default(3);
    run.accept(&[1.0, 0.9, 0.8]);
    let snapshot = bits(&run.model);
    run.accept(&[0.7]);
    assert_eq!(run.explode(10.0), rolled_back(LossExploded));
    assert_eq!(bits(&run.model), snapshot);
}

// A single one is skipped, as if it had not been; the second in a row undoes the window, even if
// they are the very first losses. Fails if the first is trained on or undoes, or if any two do.
#[test]
fn losses_that_are_not_finite() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut run = default(3);
        let start = bits(&run.model);
        assert_eq!(run.feed(bad), None);
        assert_eq!(run.feed(bad), rolled_back(NonFiniteLoss));
        assert_eq!((bits(&run.model), run.rate()), (start.clone(), RATE));
        run.accept(&[1.0]);
        let moved = bits(&run.model);
        assert_eq!((run.feed(bad), bits(&run.model)), (None, moved));
        run.accept(&[1.0]);
        assert_eq!(run.feed(bad), None);
        assert_eq!(run.feed(bad), rolled_back(NonFiniteLoss));
        assert_eq!((bits(&run.model), run.rate()), (start, RATE * 0.1));
        assert_eq!(run.newton.steps(), 7);
        run.accept(&[1.0, 0.9]);
    }
}

// One loss that alone makes a window hopeless, far above the recent ones though not above those of
// the start: the batch is skipped; the second in a row undoes the window. Fails if the first does,
// or if it is compared with the start.
#[test]
fn one_loss_that_sinks_a_window_is_skipped() {
    let mut run = default(4);
    run.accept(&[10.0, 1.0, 1.0, 1.0]);
    run.accept(&[1.0; 4]);
    run.accept(&[1.0]);
    for _ in 0..3 {
        let before = bits(&run.model);
        assert_eq!((run.feed(9.0), bits(&run.model)), (None, before));
        run.accept(&[1.0, 1.0, 1.0, 1.0]);
    }
    assert_eq!(run.explode(9.0), rolled_back(LossIncreased));
    assert_eq!(run.rate(), RATE * 0.5);
}

// A gradient that is not finite behind losses that are: the window is undone, and the rate stays,
// once. The second in a row is no accident. Fails if the first is cut, or if none is.
#[test]
fn a_broken_gradient_is_not_the_rates_fault() {
    let mut run = default(4);
    let broken = |run: &mut Run<Sgd<Model, f64, Cpu>>| {
        let here = gradients(&run.model, &[f64::NAN, 1.0]);
        run.newton.step(&mut run.model, &here, 1.0).unwrap();
    };
    run.accept(&[1.0; 5]);
    let rate = run.rate();
    broken(&mut run);
    // Noticed by the losses after it, or else at the end of the window.
    assert_eq!(run.explode(9.0), rolled_back(NonFiniteWeights));
    assert_eq!(run.rate(), rate);
    broken(&mut run);
    run.accept(&[1.0, 1.0]);
    assert_eq!(run.feed(1.0), rolled_back(NonFiniteWeights));
    assert_eq!(run.rate(), rate * 0.5);
    run.accept(&[1.0; 4]);
    broken(&mut run);
    run.accept(&[1.0, 1.0]);
    assert_eq!(run.feed(1.0), rolled_back(NonFiniteWeights));
    assert_eq!(run.rate(), rate * 0.5);
}
