//! What the slope at the end of a window says: whether a rate settles, rises, or follows the
//! horizon.

use super::{bowl, Paper, Run};
use tlr::engine::*;

// Steps of one length jump over the lowest point and back: the rate settles, and only where it may.
#[test]
fn a_rate_settles_where_windows_end_uphill() {
    let run = |on: bool, loss: Option<f64>| {
        let config = NewtonConfig::default().ramp(false).settle(on);
        let mut host = Paper::new(vec![vec![1.0, 0.7, 0.4]], bowl(1.0));
        host.signs = true;
        let mut run = Run::new(config.window(Window::steps(5).unwrap()), 0.3, host);
        (0..200).for_each(|_| drop(run.step(loss)));
        let mut outcomes = run.engine.history().iter().map(|decision| decision.outcome);
        (outcomes.any(|outcome| outcome == Outcome::Settled), run.rates()[0])
    };
    for loss in [Some(1.0), None] {
        let (settled, rate) = run(true, loss);
        assert!(settled && rate < 0.1, "{rate}");
        assert!(!run(false, loss).0);
    }
}

// What is learned is the level. The rate rises to it after the end of the ramp, and falls evenly at
// the end, no further once the horizon is reached. Fails with another shape.
#[test]
fn the_horizon_begins_where_the_ramp_ends() {
    let config = NewtonConfig::default().window(Window::steps(1000).unwrap());
    let mut run = Run::new(config, 1e-3, Paper::new(vec![vec![2.0]], bowl(1.0)));
    let ramp = run.ramp() as u64;
    let config = config.horizon(ramp + 10);
    let mut told = Run::new(config, 1e-3, Paper::new(vec![vec![2.0]], bowl(1.0)));
    assert_eq!(told.ramp() as u64, ramp);
    let level = run.rates()[0];
    assert_eq!(told.rates(), [level]);
    for factor in [0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0] {
        let before = told.host.w[0][0];
        assert!((told.engine.factor() - factor).abs() < 1e-12);
        told.step(None);
        let rate = 1.0 - told.host.w[0][0] / before;
        assert!((rate / level - factor).abs() < 1e-9);
    }
    assert_eq!(told.rates(), [level]);
}

// Two windows agree, but the loss does not fall along their way: here a decay without a gradient to
// speak of. The rate stays where it is; with a gradient along the way it rises.
#[test]
fn a_rate_rises_only_where_the_loss_falls() {
    let run = |gradient: fn(&[f64], usize) -> Vec<f64>| {
        let config = NewtonConfig::default().ramp(false).settle(false).safeguard(None);
        let mut host = Paper::new(vec![vec![1.0, 0.0]], gradient);
        host.decay = 1.0;
        let mut run = Run::new(config.window(Window::steps(2).unwrap()), 1e-4, host);
        (0..20).for_each(|_| drop(run.step(None)));
        (run.rates()[0], run.engine.history().last().unwrap().outcome)
    };
    let across = |_: &[f64], batch| vec![0.0, if batch % 2 == 0 { 1e-3 } else { -1e-3 }];
    let kept = Outcome::Kept(KeptBecause::NotDownhill);
    assert_eq!(run(across), (1e-4, kept));
    assert!(run(|w, _| vec![w[0], 0.0]).0 > 1e-3);
}
