//! Training without a loss: the slope says whether a window has gone too far.

use super::{bowl, Paper, Run};
use tlr::{engine::*, Cause};

// A rate at which the bowl is jumped out of, told by no loss: the weights come back, and the rate
// is cut until they stay. Without the witness they are gone.
#[test]
fn without_a_loss_the_slope_is_the_witness() {
    let run = |safeguard: Option<Safeguard>| {
        let config = NewtonConfig::default().climb(None).ramp(false).settle(false);
        // The rule never lowers this rate.
        let config = config.damping(1e-9).safeguard(safeguard);
        let config = config.window(Window::steps(5).unwrap());
        let host = Paper::new(vec![vec![1.0, 1.0]], bowl(1.0));
        let mut run = Run::new(config, 3.0, host);
        (0..200).for_each(|_| drop(run.step(None)));
        run
    };
    let watched = run(Some(Safeguard::default()));
    assert!(watched.host.w[0][0].abs() < 1.0, "{:?}", watched.host.w);
    assert!(watched.rates()[0] < 2.0);
    let causes = watched.engine.history().iter().map(|decision| decision.outcome);
    assert!(causes.clone().any(|cause| cause == Outcome::RolledBack(Cause::WentTooFar)));
    assert!(run(None).host.w[0][0].abs() > 1e50);
}

// Not only at the end of a window: one of a thousand steps comes back within a few of its first.
// Fails if the ways on the way are not looked at, or if they are with a loss.
#[test]
fn without_a_loss_a_window_is_looked_at_on_its_way() {
    let run = |loss: Option<f64>| {
        let config = NewtonConfig::default().ramp(false).window(Window::steps(1000).unwrap());
        let mut run = Run::new(config, 3.0, Paper::new(vec![vec![1.0, 1.0]], bowl(1.0)));
        (0..40).for_each(|_| drop(run.step(loss)));
        run
    };
    let watched = run(None);
    assert!(watched.host.w[0][0].abs() < 10.0, "{:?}", watched.host.w);
    assert!(watched.rates()[0] < 2.0);
    assert!(run(Some(1.0)).host.log.is_empty());
}

// Weights or gradients that are no numbers come back at the next look, and not only at the window's
// end. The first time a batch is to blame, after windows that were good; then the rates are. Fails
// if such slopes say nothing.
#[test]
fn without_a_loss_what_is_no_number_is_seen_at_the_next_look() {
    for broken in [f64::NAN, f64::INFINITY] {
        let gradient = move |w: &[f64], batch| match batch {
            30.. => vec![broken],
            _ => vec![w[0]],
        };
        let config = NewtonConfig::default().climb(None).ramp(false).settle(false).damping(1e-9);
        let config = config.window(Window::steps(20).unwrap());
        let mut run = Run::new(config, 0.01, Paper::new(vec![vec![1.0]], gradient));
        (0..44).for_each(|_| drop(run.step(None)));
        let undone = |decision: &&Adaptation| matches!(decision.outcome, Outcome::RolledBack(_));
        let decisions: Vec<_> = run.engine.history().iter().filter(undone).collect();
        let [first, second, ..] = decisions[..] else { panic!("{broken}: {decisions:?}") };
        assert!(first.step <= 34 && first.to == first.from, "{broken}: {first:?}");
        assert!(second.to < second.from, "{broken}: {second:?}");
    }
}

// Where a loss is told it is the witness, though the slopes of a window's end are known. Fails if
// they undo the window.
#[test]
fn with_a_loss_the_slope_undoes_nothing() {
    let config = NewtonConfig::default().climb(None).ramp(false).damping(1e-9);
    let config = config.window(Window::steps(5).unwrap());
    let mut run = Run::new(config, 3.0, Paper::new(vec![vec![1.0, 1.0]], bowl(1.0)));
    (0..10).for_each(|_| drop(run.step(Some(1.0))));
    assert!(run.host.log.contains(&"slopes Last".to_owned()));
    let undone = |decision: &Adaptation| matches!(decision.outcome, Outcome::RolledBack(_));
    assert!(!run.engine.history().iter().any(undone));
}

// Windows of one step have no way of their own: that of the window before is looked at. Fails
// without it; the rule is kept from lowering the rate.
#[test]
fn without_a_loss_windows_of_one_step_are_looked_at() {
    let config = NewtonConfig::default().climb(None).ramp(false).damping(1e-9);
    let config = config.window(Window::steps(1).unwrap());
    let mut run = Run::new(config, 3.0, Paper::new(vec![vec![1.0, 1.0]], bowl(1.0)));
    (0..200).for_each(|_| drop(run.step(None)));
    assert!(run.host.w[0][0].abs() < 10.0, "{:?}", run.host.w);
    assert!(run.host.log.contains(&"slopes BeforeLast".to_owned()));
}

// Weights that are thrown far out, to where there is no gradient, come back. Fails if only
// gradients tell.
#[test]
fn without_a_loss_a_way_out_of_all_gradients_is_too_far() {
    let config = NewtonConfig::default().ramp(false).settle(false);
    let config = config.window(Window::steps(4).unwrap());
    // A slope that ends.
    let gradient = |w: &[f64], _| vec![if w[0].abs() < 2.0 { 1.0 } else { 0.0 }];
    let mut run = Run::new(config, 50.0, Paper::new(vec![vec![1.0]], gradient));
    (0..3).for_each(|_| assert_eq!(run.step(None), Step::Made));
    assert!(matches!(run.step(None), Step::RolledBack { cause: Cause::WentTooFar, .. }));
    assert_eq!(run.host.w, [[1.0]]);
    assert_eq!(run.rates(), [5.0]);
}

// Three windows in a row that go uphill, to gradients that grow by a half: the third is undone,
// whether or not another group stands still, of which the engine asks whether it could move. Fails
// if a window's slopes are weighed once more after the answer.
#[test]
fn without_a_loss_a_group_that_stands_still_hides_no_way_uphill() {
    let undone = |w: Vec<Vec<f64>>| {
        let config = NewtonConfig::default().ramp(false).settle(false).damping(1e-9);
        let config = config.window(Window::steps(4).unwrap());
        // From side to side, a tenth further each time. The second group has no gradient.
        let gradient = |w: &[f64], _| [w[0], 0.0][..w.len()].to_vec();
        let mut run = Run::new(config, 2.1, Paper::new(w, gradient));
        let is_undone = |step: &Step| matches!(step, Step::RolledBack { .. });
        let steps: Vec<_> = (0..24).map(|_| run.step(None)).collect();
        steps.iter().position(is_undone).map(|index| index + 1)
    };
    assert_eq!(undone(vec![vec![1.0]]), Some(12));
    assert_eq!(undone(vec![vec![1.0], vec![1.0]]), Some(12));
}
