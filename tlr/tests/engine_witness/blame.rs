//! Blame: only the group whose way explains that the loss has risen is cut.

use super::{Paper, Run};
use tlr::{engine::*, Cause};

/// Accepted windows of two steps at a level of 1, on a bowl of two groups whose rates are given.
fn steady(safeguard: Safeguard, rate: f64, h: [f64; 2]) -> Run {
    steady_but(None, safeguard, rate, h)
}

/// The same, with one group's rate fixed.
fn steady_but(fixed_rate: Option<usize>, safeguard: Safeguard, rate: f64, h: [f64; 2]) -> Run {
    // The rule leaves these rates where they are.
    let config = NewtonConfig::default().climb(None).ramp(false).settle(false).damping(1e-12);
    let config = config.safeguard(safeguard).window(Window::steps(2).unwrap());
    let gradient = move |w: &[f64], _| vec![h[0] * w[0], h[1] * w[1]];
    let host = Paper::new(vec![vec![1.0], vec![1.0]], gradient);
    let mut run = Run::with_fixed(config, rate, host, fixed_rate);
    (0..4).for_each(|_| drop(run.step(Some(1.0))));
    run
}

// The loss rises by 100 for good, while the weights hardly move: no step fails, and no rate is cut.
// Without blame the windows are undone.
#[test]
fn a_rise_that_the_way_does_not_explain_is_forgiven() {
    let mut run = steady(Safeguard::default(), 1e-6, [1.0, 1.0]);
    assert_eq!(run.step(Some(101.0)), Step::Skipped(Cause::LossExploded));
    for _ in 0..100 {
        let step = run.step(Some(101.0));
        assert!(matches!(step, Step::Made | Step::WindowEnded { .. }), "{step:?}");
    }
    assert!(run.engine.history().iter().all(|d| !matches!(d.outcome, Outcome::RolledBack(_))));
    assert!(run.host.log.iter().any(|entry| entry.starts_with("slopes")));

    let mut blamed = steady(Safeguard::default().blame(None), 1e-6, [1.0, 1.0]);
    blamed.step(Some(101.0));
    let Step::RolledBack { decisions, .. } = blamed.step(Some(101.0)) else { panic!() };
    assert!(decisions.iter().all(|decision| decision.to == 0.5 * decision.from));
    assert!(blamed.host.log.iter().all(|entry| !entry.starts_with("slopes")));
}

// A loss that is not a number has not risen: no way explains it, and none is asked for.
#[test]
fn a_loss_that_is_no_number_is_not_explained() {
    let mut run = steady(Safeguard::default(), 1e-6, [1.0, 1.0]);
    run.step(Some(1.0));
    run.host.log.clear();
    assert_eq!(run.step(Some(f64::NAN)), Step::Skipped(Cause::NonFiniteLoss));
    assert!(matches!(run.step(Some(f64::NAN)), Step::RolledBack { .. }));
    assert_eq!(run.host.log, ["skip", "back Last"]);
}

// One group has jumped over its valley and up the other side: only its rate is cut.
// Where that one's rate is fixed, the other has to be.
#[test]
fn only_the_group_that_explains_the_rise_is_cut() {
    for (fixed_rate, cuts) in [(None, [1.0, 0.5]), (Some(0), [1.0, 0.5]), (Some(1), [0.5, 1.0])] {
        let mut run = steady_but(fixed_rate, Safeguard::default(), 1e-3, [1.0, 1.0]);
        run.host.gradient = Box::new(|w, _| vec![w[0], -5e3 * w[1]]);
        run.step(Some(1.0));
        // By now the second weight has moved, and its gradient turns round.
        run.host.gradient = Box::new(|w, _| vec![w[0], 5e3 * w[1]]);
        assert_eq!(run.step(Some(1e6)), Step::Skipped(Cause::LossExploded));
        let Step::RolledBack { decisions, .. } = run.step(Some(1e6)) else { panic!() };
        let made: Vec<f64> = decisions.iter().map(|decision| decision.to / decision.from).collect();
        assert_eq!(made, cuts, "{fixed_rate:?} fixed_rate");
        assert_eq!(run.are_bound(), cuts.map(|cut| cut < 1.0), "{fixed_rate:?} fixed_rate");
    }
}
