//! A cut after good windows is on probation: the rate comes back if the next window is accepted.

use super::{by_losses_alone, default, guarded, rolled_back, two_layers, Model, Run, RATE};
use dfdx::{optim::*, prelude::*};
use support::values::{gradients, vector};
use tlr::{
    Cause::{LossExploded, LossIncreased},
    Newton, Outcome, Safeguard, TunableOptimizer, Window,
};

/// Windows of two steps, and so many of them accepted.
fn trusted(windows: usize) -> Run<Sgd<Model, f64, Cpu>> {
    let mut run = default(2);
    (0..windows).for_each(|_| run.accept(&[1.0, 1.0]));
    run
}

/// A window whose mean rises.
fn rise<Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>>(run: &mut Run<Opt>) {
    assert_eq!(run.feed(1.2), None);
    assert_eq!(run.feed(1.2), rolled_back(LossIncreased));
}

// A rate that has made five good windows may not be to blame for a bad one: if the next is good, it
// is what it was. Fails if a cut stays, if the rate comes back without a good window, or only in
// part.
#[test]
fn a_cut_is_on_probation_after_good_windows() {
    let mut run = trusted(5);
    rise(&mut run);
    assert_eq!(run.rate(), RATE * 0.5);
    assert_eq!(run.feed(1.0), None);
    assert_eq!(run.feed(1.0), Some(Outcome::CutReverted));
    assert_eq!(run.rate(), RATE);
}

// The derivatives ahead say what the rate should be, whatever it was. Fails if the rate of before a
// cut takes the place of the one that an exact step has found.
#[test]
fn an_exact_step_ends_probation() {
    let mut run = trusted(5);
    rise(&mut run);
    let here = gradients(&run.model, &[1.0, -2.0]);
    let ahead = |model: &mut Model| gradients(model, &[0.5, -1.0]);
    run.newton.step_lookahead(&mut run.model, &here, ahead).unwrap();
    let found = run.rate();
    assert!(found != RATE && found != RATE * 0.5, "{found}");
    assert_eq!((run.feed(1.0), run.feed(1.0)), (None, Some(Outcome::WarmingUp)));
    assert_eq!(run.rate(), found);
}

// Fails with less trust or more, if trust outlives a rollback, if a second cut is on probation too,
// or if what was to be regained outlives one.
#[test]
fn other_cuts_are_final() {
    let mut early = trusted(4);
    rise(&mut early);
    early.accept(&[1.0, 1.0]);
    assert_eq!(early.rate(), RATE * 0.5);

    let mut again = trusted(5);
    rise(&mut again);
    rise(&mut again);
    again.accept(&[1.0, 1.0]);
    assert_eq!(again.rate(), RATE * 0.5 * 0.25);

    let mut soon = trusted(5);
    rise(&mut soon);
    (0..4).for_each(|_| soon.accept(&[1.0, 1.0]));
    assert_eq!(soon.rate(), RATE);
    rise(&mut soon);
    soon.accept(&[1.0, 1.0]);
    assert_eq!(soon.rate(), RATE * 0.5);

    // Not bad luck.
    let mut explosion = trusted(5);
    assert_eq!(explosion.explode(10.0), rolled_back(LossExploded));
    explosion.accept(&[1.0, 1.0]);
    assert_eq!(explosion.rate(), RATE * 0.5);

    let never = Safeguard::default().blame(None).trust(usize::MAX);
    let mut run = guarded(2, never);
    (0..9).for_each(|_| run.accept(&[1.0, 1.0]));
    rise(&mut run);
    run.accept(&[1.0, 1.0]);
    assert_eq!(run.rate(), RATE * 0.5);
}

// A rate that has just risen is to blame, and others are not. Fails without the comparison with the
// window before, or if it is not a layer's own.
#[test]
fn a_rate_that_has_just_risen_does_not_come_back() {
    let (mut model, mut newton) = two_layers();
    let mut step = |gradient: [f64; 2], loss| {
        let here = gradients(&model, &gradient);
        newton.step(&mut model, &here, loss).unwrap();
        let rates: Vec<f64> = newton.rates().iter().map(|(_, rate)| *rate).collect();
        rates
    };
    (0..5).for_each(|_| drop(step([1.0, 1.0], 1.0)));
    // ρ = 0.8, so that the point is 5: the first layer's rate goes to 0.67 + 0.33·5 of itself.
    let before = step([0.8, 1.0], 1.0);
    assert!(before[0] > 1.25 * RATE && before[1] == RATE, "{before:?}");
    assert_eq!(step([1.0, 1.0], 1.2), [before[0] * 0.5, RATE * 0.5]);
    assert_eq!(step([1.0, 1.0], 1.0), [before[0] * 0.5, RATE]);
}

// Fails if a checkpoint forgets what is to be regained, or how many windows have been good.
#[test]
fn probation_outlives_the_process() {
    let make = || {
        let model = vector(&[1.0, 2.0]);
        let config = SgdConfig { lr: RATE, ..Default::default() };
        let sgd = tlr::optim::Sgd::new(&model, config);
        let config = by_losses_alone().climb(None).window(Window::steps(2).unwrap());
        Run { newton: Newton::new(&model, sgd, config).unwrap(), model }
    };
    let resumed = |run: &mut Run<_>| {
        let checkpoint = run.newton.checkpoint(&run.model).unwrap();
        let mut other = make();
        other.newton.resume(&mut other.model, &checkpoint).unwrap();
        other
    };
    let mut run = make();
    (0..4).for_each(|_| run.accept(&[1.0, 1.0]));
    let mut run = resumed(&mut run);
    run.accept(&[1.0, 1.0]);
    rise(&mut run);
    let mut run = resumed(&mut run);
    run.accept(&[1.0, 1.0]);
    assert_eq!(run.rate(), RATE);
}
