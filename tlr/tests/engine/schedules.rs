//! Schedules: what the engine makes of a factor on the learned rate.

use super::{along, close, guarded, plain, run, still, RATE};
use tlr::{engine::*, Error};

#[test]
fn a_schedule_multiplies_the_rate_and_its_mean_divides_the_direction() {
    let mut run = run(&plain(2).damping(1.0), &[false]);
    run.engine
        .set_schedule(Some(Schedule::from_fn(|step| if step % 2 == 0 { 0.25 } else { 0.75 })));
    run.step(1.0);
    assert_eq!(run.host.rates, [0.25 * RATE]);
    assert_eq!((run.engine.factor(), run.rate()), (0.75, RATE));
    run.host.windows = [vec![still(16.0)], vec![along(4.0, 2.0)]].into();
    run.steps(&[1.0; 3]);
    // At a mean of 1/2 throughout: the Newton point is twice the rate, and half of the way is gone.
    close(run.rate(), RATE * 1.5);
    let products = run.engine.history().last().unwrap().products.unwrap();
    assert_eq!((products.uu, products.un, products.nn), (256.0, 128.0, 64.0));
    for bad in [f64::NAN, f64::INFINITY, -0.1] {
        let schedule = Schedule::from_fn(move |_| bad);
        assert_eq!(format!("{schedule:?}"), "Schedule(Function(Function))");
        run.engine.set_schedule(Some(schedule));
        let failed = run.batch(1.0, false);
        assert!(matches!(failed, Err(StepError::Engine(Error::ScheduleFactor { step: 5, .. }))));
    }
}

#[test]
fn where_a_schedule_restarts_a_window_begins() {
    let mut run = run(&plain(2), &[false]);
    run.engine.set_schedule(Some(Schedule::warm_restarts(3, 1, 0.0).unwrap()));
    run.steps(&[1.0; 3]);
    run.log();
    // A batch that is only gathered is no step, and does not restart it once more.
    run.batch(1.0, true).unwrap();
    assert_eq!(run.log(), "snapshot Weights; snapshot Buffers; update");
    run.step(1.0);
    assert_eq!(run.log(), "update");
    run.step(1.0);
    assert_eq!(run.engine.history().last().unwrap().outcome, Outcome::WarmingUp);
}

// A host without slopes ends the ramp in its first step. Fails if that step is made without the
// schedule, if a factor that is no number is let through, or if a host that fails ends the ramp.
#[test]
fn without_slopes_the_first_step_is_the_schedules() {
    let config = plain(2).ramp(true);
    let mut run = run(&config, &[false]);
    run.engine.set_schedule(Some(Schedule::from_fn(|step| if step == 0 { 0.25 } else { 0.75 })));
    let before = run.engine.state().clone();
    run.host.fails_at = Some("update");
    assert!(matches!(run.batch(1.0, false), Err(StepError::Host { step_made: false, .. })));
    assert_eq!(*run.engine.state(), before);
    run.host.fails_at = None;
    run.step(1.0);
    assert_eq!((run.host.rates[0], run.engine.factor()), (0.25 * RATE, 0.75));
    run.step(1.0);
    assert_eq!(run.host.rates, [0.75 * RATE]);

    let mut bad = self::run(&config, &[false]);
    bad.engine.set_schedule(Some(Schedule::from_fn(|_| f64::NAN)));
    let failed = bad.batch(1.0, false);
    assert!(matches!(failed, Err(StepError::Engine(Error::ScheduleFactor { step: 1, .. }))));
}

// Three losses of 1.2, each at another snapshot: a schedule restarts in between, before a window
// has ended. Fails if they count as three at one snapshot, which would lift the limit to 1.2.
#[test]
fn losses_at_several_snapshots_are_no_level() {
    let mut run = run(&guarded(3), &[false]);
    run.steps(&[1.0; 3]);
    run.engine.set_schedule(Some(Schedule::warm_restarts(2, 1, 0.5).unwrap()));
    run.step(1.0);
    run.steps(&[1.2, 0.1, 1.2, 0.1, 1.2, 0.1]);
    assert_eq!(run.engine.steps(), 10);
    run.engine.set_schedule(None);
    assert!(matches!(run.steps(&[1.25; 3]), Step::RolledBack { .. }));
}
