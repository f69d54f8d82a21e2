//! Schedules: what they do to steps, directions and rates.

use dfdx::{optim::SgdConfig, prelude::*};
use support::{
    quadratic::{Quadratic, Random},
    values::{bits, gradients, largest_error, set_weights, vector, weights, Vector},
};
use tlr::{optim::Sgd, Error, Newton, NewtonConfig, Outcome, Schedule, Step, Window};

const N: usize = 6;
type Opt = Newton<Sgd<Vector<N>, f64, Cpu>>;

fn problem() -> Quadratic {
    Quadratic::random(&[1.0, 2.0, 3.0, 5.0, 8.0, 10.0], &mut Random(4))
}

fn start() -> Vector<N> {
    vector(&[3.0, -2.0, 1.0, 2.0, -1.0, 0.5])
}

fn newton(model: &Vector<N>, lr: f64, window: usize) -> Opt {
    let sgd = Sgd::new(model, SgdConfig { lr, momentum: None, weight_decay: None });
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(window).unwrap());
    Newton::new(model, sgd, config).unwrap()
}

fn step(model: &mut Vector<N>, opt: &mut Opt, problem: &Quadratic) -> Result<Step, Error> {
    let w = weights(model);
    let gradients = gradients(model, &problem.gradient(&w));
    opt.step(model, &gradients, problem.loss(&w))
}

/// An optimizer and its model.
fn made(lr: f64, window: usize) -> (Vector<N>, Opt) {
    let model = start();
    let opt = newton(&model, lr, window);
    (model, opt)
}

fn go(model: &mut Vector<N>, opt: &mut Opt, steps: usize) {
    let problem = problem();
    for _ in 0..steps {
        step(model, opt, &problem).unwrap();
    }
}

#[test]
fn a_constant_schedule_changes_no_bit() {
    let (mut plain, mut opt) = made(1e-3, 3);
    go(&mut plain, &mut opt, 40);
    let (mut model, other) = made(1e-3, 3);
    let mut other = other.schedule(Schedule::constant());
    go(&mut model, &mut other, 40);
    assert_eq!(bits(&model), bits(&plain));
    assert_eq!(other.history(), opt.history());
}

/// Within the first window the learned rate stands still: w ← w − α·s_t·g.
#[test]
fn each_step_is_made_at_the_rate_times_the_factor() {
    let (mut model, opt) = made(0.01, 10);
    let schedule = Schedule::cosine(10, 0.1).unwrap();
    let mut opt = opt.schedule(schedule.clone());
    let problem = problem();
    let mut expected = weights(&model);
    for t in 0..9 {
        let rate = 0.01 * schedule.factor(t);
        assert_eq!(opt.effective_rates(), [("model", rate)]);
        assert_eq!(opt.rates(), [("model", 0.01)]);
        let gradient = problem.gradient(&expected);
        for (w, g) in expected.iter_mut().zip(gradient) {
            *w -= rate * g;
        }
        step(&mut model, &mut opt, &problem).unwrap();
        assert_eq!(weights(&model), expected);
    }
}

/// Twice the rate at half the factor: the same steps, so the same directions.
#[test]
fn directions_are_over_the_effective_rate() {
    let products = |lr, schedule: Schedule| {
        let (mut model, opt) = made(lr, 4);
        let mut opt = opt.schedule(schedule);
        go(&mut model, &mut opt, 8);
        let products = opt.history().last().unwrap().products.unwrap();
        [products.uu, products.un, products.nn]
    };
    let expected = products(0.01, Schedule::constant());
    let found = products(0.02, Schedule::from_fn(|_| 0.5));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
    }
    // One that moves inside the window: over the mean, here of 0.2, 0.4, 0.6 and 0.8.
    let (mut model, opt) = made(0.01, 4);
    let mut opt = opt.schedule(Schedule::from_fn(|t| 0.2 * (t % 4 + 1) as f64));
    let before = weights(&model);
    go(&mut model, &mut opt, 4);
    let first = weights(&model);
    go(&mut model, &mut opt, 4);
    let then = before.iter().zip(&first).map(|(a, b)| (a - b) / (0.01 * 0.5));
    let uu: f64 = then.map(|u| u * u).sum();
    let products = opt.history().last().unwrap().products.unwrap();
    assert!((products.uu / uu - 1.0).abs() < 1e-12);
}

/// On a quadratic, where nothing but the curvature limits the rate, it must not make up for a
/// warm-up and be too large at the top of it.
#[test]
fn a_warm_up_does_not_inflate_the_rate() {
    let best = 2.0 / (1.0 + 10.0);
    let (mut model, opt) = made(1e-4, 5);
    let mut opt = opt.schedule(Schedule::warm_up(400).unwrap());
    go(&mut model, &mut opt, 400);
    let largest = opt.history().iter().map(|decision| decision.to).fold(0.0, f64::max);
    assert!(largest > best && largest < 20.0 * best, "{}", largest / best);
}

/// A new window at the restart, and no decision from directions on both sides of it.
#[test]
fn a_restart_drops_the_direction() {
    let (mut model, opt) = made(1e-3, 4);
    let mut opt = opt.schedule(Schedule::warm_restarts(10, 1, 0.1).unwrap());
    go(&mut model, &mut opt, 30);
    let found: Vec<_> = opt
        .history()
        .iter()
        .map(|decision| (decision.step, decision.outcome == Outcome::WarmingUp))
        .collect();
    assert_eq!(found, [(4, true), (8, false), (14, true), (18, false), (24, true), (28, false)]);
}

#[test]
fn factors_that_are_none_change_nothing() {
    for bad in [f64::NAN, f64::INFINITY, -0.5] {
        let (mut model, opt) = made(0.01, 4);
        let mut opt = opt.schedule(Schedule::from_fn(move |t| if t == 3 { bad } else { 1.0 }));
        go(&mut model, &mut opt, 3);
        let before = bits(&model);
        let error = step(&mut model, &mut opt, &problem()).unwrap_err();
        assert!(matches!(error, Error::ScheduleFactor { step: 4, .. }), "{error}");
        assert_eq!((bits(&model), opt.steps()), (before, 3));
        assert_eq!(opt.rates(), [("model", 0.01)]);
    }
}

/// Down to 0 nothing moves and nothing is learned, and the rate is still there.
#[test]
fn a_factor_of_zero_is_no_division_by_it() {
    let (mut model, opt) = made(0.01, 2);
    let mut opt = opt.schedule(Schedule::from_fn(|_| 0.0));
    let before = weights(&model);
    go(&mut model, &mut opt, 8);
    let moved = largest_error(&weights(&model), &before);
    assert!(moved < 1e-25, "{moved}");
    assert_eq!(opt.rates(), [("model", 0.01)]);
    let last = opt.history().last().unwrap();
    assert!(matches!(last.outcome, Outcome::Kept(_)), "{}", last.outcome);
}

/// Inside a window and between restarts.
#[test]
fn it_goes_on_after_a_resume_to_the_bit() {
    let schedule =
        || Schedule::warm_restarts(7, 2, 0.0).unwrap().times(Schedule::warm_up(9).unwrap());
    for at in [0, 3, 6, 7, 8, 20, 23] {
        let (mut straight, opt) = made(1e-3, 3);
        let mut opt = opt.schedule(schedule());
        go(&mut straight, &mut opt, at);
        let checkpoint = opt.checkpoint(&straight).unwrap();
        let (mut resumed, again) = made(5.0, 3);
        let mut again = again.schedule(schedule());
        set_weights(&mut resumed, &[1.0; N]);
        again.resume(&mut resumed, &checkpoint).unwrap();
        go(&mut straight, &mut opt, 30);
        go(&mut resumed, &mut again, 30);
        assert_eq!(again.checkpoint(&resumed).unwrap(), opt.checkpoint(&straight).unwrap());

        let (mut other, mut plain) = made(1e-3, 3);
        let refused = plain.resume(&mut other, &checkpoint).unwrap_err();
        assert!(refused.to_string().contains("schedule"), "{refused}");
    }
}

/// The ramp measures from one snapshot, whatever the schedule does meanwhile. Fails if a restart
/// takes another.
#[test]
fn a_restart_within_the_ramp_changes_no_bit() {
    let ramped = |schedule: Option<Schedule>| {
        let mut model = start();
        let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
        let mut opt: Opt = Newton::new(&model, sgd, NewtonConfig::default()).unwrap();
        if let Some(schedule) = schedule {
            opt = opt.schedule(schedule);
        }
        let mut steps = 0;
        while let Step::Ramped { .. } = step(&mut model, &mut opt, &problem()).unwrap() {
            steps += 1;
            assert!(steps < 100);
        }
        (steps, opt.history().to_vec(), bits(&model))
    };
    let plain = ramped(None);
    assert!(plain.0 > 12, "{}", plain.0);
    // The step behind the ramp is the schedule's.
    let (steps, history, _) = ramped(Some(Schedule::warm_restarts(3, 1, 0.0).unwrap()));
    assert_eq!((steps, history), (plain.0, plain.1));
}

/// An exact step ends the ramp, and the horizon counts from there. Fails if it counts from the
/// first step.
#[test]
fn the_horizon_counts_from_an_exact_step_that_ends_the_ramp() {
    let mut model = start();
    let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    let mut opt: Opt = Newton::new(&model, sgd, NewtonConfig::default().horizon(104)).unwrap();
    let problem = problem();
    for _ in 0..3 {
        step(&mut model, &mut opt, &problem).unwrap();
    }
    let here = gradients(&model, &problem.gradient(&weights(&model)));
    opt.step_lookahead(&mut model, &here, |ahead| {
        gradients(ahead, &problem.gradient(&weights(ahead)))
    })
    .unwrap();
    assert_eq!(opt.factor(), 1.0);
    for _ in 0..50 {
        step(&mut model, &mut opt, &problem).unwrap();
    }
    assert_eq!(opt.factor(), 0.5); // what the ramp saw in three steps is not enough to stay up
}
