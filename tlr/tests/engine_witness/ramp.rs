//! The ramp: the first steps find rates to start from by the slope, whatever rate is given.

use super::{bowl, noise, Paper, Run};
use tlr::{engine::*, Cause, Error};

// From any rate, of any curvature: on the bowl the way to the lowest point is one step at 1/h.
// Fails with another part of the first slope, without the trial, or if the given rate matters.
#[test]
fn the_rate_of_a_bowl_is_found_whatever_is_given() {
    for h in [1e-12, 1e-3, 1.0, 50.0, 1e12] {
        let found = [1e-12, 1e-3, 10.0, 1e30].map(|given| {
            let host = Paper::new(vec![vec![3.0, -4.0]], bowl(h));
            let mut run = Run::new(NewtonConfig::default(), given, host);
            let steps = run.ramp();
            assert!((15..=60).contains(&steps), "{h:e}, {given:e}: {steps} steps");
            // Nothing was gone back to, and no batch was left out.
            assert_eq!(run.host.log.pop().unwrap(), "clear");
            assert!(run.host.log.iter().all(|entry| entry == "slopes Last"), "{:?}", run.host.log);
            run.rates()[0]
        });
        assert!(found.iter().all(|rate| *rate == found[0]), "{h:e}: {found:?}");
        assert!((0.1..1.0).contains(&(h * found[0])), "{h:e}: {found:?}");
    }
}

// Weights that are all 0, and of 1e-9, on the way to 1.
#[test]
fn weights_that_start_at_zero() {
    for start in [0.0, 1e-9] {
        let host = Paper::new(vec![vec![start; 4]], |w, _| w.iter().map(|w| w - 1.0).collect());
        let mut run = Run::new(NewtonConfig::default(), 1e-6, host);
        assert!(run.ramp() <= 60);
        assert!((0.1..1.0).contains(&run.rates()[0]), "{start}: {:?}", run.rates());
    }
}

// Near the start, a batch without a gradient looks like the lowest point. Fails if that is
// believed.
#[test]
fn one_batch_near_the_start_does_not_end_the_ramp() {
    let found = |flat: Option<usize>| {
        let gradient =
            move |w: &[f64], batch| vec![if flat == Some(batch) { 0.0 } else { w[0] - 5.0 }];
        let mut run =
            Run::new(NewtonConfig::default(), 1e-9, Paper::new(vec![vec![1.0]], gradient));
        run.ramp();
        run.rates()[0]
    };
    let undisturbed = found(None);
    for flat in 4..12 {
        let rate = found(Some(flat));
        assert!((0.5..2.0).contains(&(rate / undisturbed)), "{flat}: {rate} for {undisturbed}");
    }
}

// A weight that is large and not learned makes every way a short one. The rate that is half-way is
// confirmed by the next one, and stays the rate that is found.
#[test]
fn a_confirmed_rate_is_the_one_that_was_half_way() {
    for still in [0.0, 1e3] {
        let bowl = |w: &[f64], _| vec![0.0, w[1] - 5.0];
        let mut run =
            Run::new(NewtonConfig::default(), 1e-9, Paper::new(vec![vec![still, 1.0]], bowl));
        run.ramp();
        // Half-way, and twice that.
        assert!((0.4..1.0).contains(&run.rates()[0]), "{still}: {:?}", run.rates());
    }
}

// Sign descent moves every weight by the rate, here half as far as gradient descent would. Of a
// thousand weights at 2, half-way is 1.
#[test]
fn steps_that_stay_long_start_lower() {
    let mut host = Paper::new(vec![vec![2.0; 1000]], bowl(1.0));
    host.signs = true;
    let mut run = Run::new(NewtonConfig::default(), 1e-6, host);
    assert!(run.ramp() <= 60);
    // The ramp's steps add up to about twice its last one.
    assert!((0.3..1.0).contains(&run.rates()[0]), "{:?}", run.rates());
}

// Gradients whose noise is ten times as long as they are: more steps, and no stop at once.
#[test]
fn noise_is_measured() {
    let noisy = |w: &[f64], batch| {
        w.iter().enumerate().map(|(i, w)| w + 10.0 * noise(batch * 100 + i)).collect()
    };
    for first in 0..5 {
        let started = |config| {
            let mut host = Paper::new(vec![vec![1.0; 50]], noisy);
            host.batch = first * 10_000;
            Run::new(config, 1e-6, host)
        };
        let mut run = started(NewtonConfig::default());
        let steps = run.ramp();
        assert!((30..2000).contains(&steps), "{steps}");
        let rate = run.rates()[0];
        assert!((1e-4..0.5).contains(&rate), "{first}: {rate:e} after {steps}");
        // A horizon does not raise the level.
        let mut told = started(NewtonConfig::default().horizon(10_000));
        assert_eq!((told.ramp(), told.rates()), (steps, run.rates()));
    }
}

// One group is a thousand times as steep as the other. The third has no gradient, and keeps its
// rate.
#[test]
fn each_group_by_its_own_slope() {
    let gradient = |w: &[f64], _| vec![w[0], w[1], 1e3 * w[2], 1e3 * w[3], 0.0];
    let w = vec![vec![1.0, 2.0], vec![1.0, 2.0], vec![1.0]];
    let mut run = Run::new(NewtonConfig::default(), 1e-3, Paper::new(w, gradient));
    assert!(run.ramp() <= 60);
    let [flat, steep, silent] = run.rates()[..] else { panic!() };
    assert!((0.1..1.0).contains(&flat) && (0.1..1.0).contains(&(1e3 * steep)), "{flat} {steep}");
    assert_eq!(silent, 1e-3);
    // It does not keep a rate that is above all others.
    let gradient = |w: &[f64], _| vec![w[0], 0.0];
    let w = vec![vec![1.0], vec![1.0]];
    let mut run = Run::new(NewtonConfig::default(), 1e3, Paper::new(w, gradient));
    run.ramp();
    assert_eq!(run.rates()[0], run.rates()[1]);
}

// The first batches have no gradient at all: nothing moves, and then the rate is found as ever.
// Fails where the given rate is taken for one that was found.
#[test]
fn a_start_without_a_gradient() {
    let late = |w: &[f64], batch| vec![if batch < 3 { 0.0 } else { w[0] }];
    let found = [1e-9, 1e9].map(|given| {
        let host = Paper::new(vec![vec![2.0]], late);
        let mut run = Run::new(NewtonConfig::default(), given, host);
        (0..3).for_each(|_| assert!(matches!(run.step(None), Step::Ramped { .. })));
        assert_eq!((run.rates()[0], run.host.w[0][0]), (given, 2.0));
        run.ramp();
        run.rates()[0]
    });
    assert!(found[0] == found[1] && (0.1..1.0).contains(&found[0]), "{found:?}");
}

// A group whose gradient comes late starts at the largest of the others' rates, with its first
// window that has one. A fixed rate (here 10) does not count.
#[test]
fn a_late_group_starts_where_the_others_are() {
    let gradient =
        |w: &[f64], batch| vec![w[0] - 5.0, if batch < 60 { 0.0 } else { w[1] }, w[2] - 2.0];
    for given in [1e-9, 10.0] {
        for (window, loss) in [(5, None), (1, None), (5, Some(1.0)), (1, Some(1.0))] {
            let config = NewtonConfig::default().window(Window::steps(window).unwrap());
            let host = Paper::new(vec![vec![1.0], vec![1.0], vec![1.0]], gradient);
            let mut run = Run::with_fixed(config, given, host, Some(2));
            run.ramp();
            let silent = run.rates()[1];
            assert_eq!(silent, given.min(run.rates()[0]));
            while run.host.batch < 60 {
                run.step(loss);
                assert_eq!((run.rates()[1], run.host.w[1][0]), (silent, 1.0));
            }
            let mut rates = vec![run.rates()];
            while run.host.batch < 70 {
                run.step(loss);
                rates.push(run.rates());
            }
            let started = rates.iter().map(|rates| rates[1]).find(|rate| *rate != silent).unwrap();
            let took = |rates: &Vec<f64>| rates[0] == started;
            assert!(given == 10.0 || rates.iter().any(took), "{window}: {rates:?}");
            assert!(rates.iter().all(|rates| rates[1] < 5.0), "{window}: {rates:?}");
        }
    }
}

// Its decay moves a group without a gradient: its rate stays, and it loses what its rate takes.
#[test]
fn decay_does_not_eat_what_has_no_gradient() {
    let gradient = |w: &[f64], _| vec![w[0] - 5.0, 0.0];
    let config = NewtonConfig::default().window(Window::steps(5).unwrap());
    let mut host = Paper::new(vec![vec![1.0], vec![1.0]], gradient);
    host.decay = 5e-4;
    let mut run = Run::new(config, 1e-3, host);
    (0..500).for_each(|_| drop(run.step(None)));
    assert_eq!(run.rates()[1], 1e-3);
    let constant = (1.0 - 1e-3 * 5e-4_f64).powi(500);
    assert!((run.host.w[1][0] - constant).abs() < 1e-12);
}

// A valley that ends at a cliff: behind it the slope is as steep up as it was down. The weights go
// back to the start.
#[test]
fn too_far_is_gone_back_from() {
    let gradient = |w: &[f64], _| vec![if w[0] > 1.0 - 1e-3 { 1.0 } else { -1e3 }];
    for given in [1e-9, 10.0] {
        let mut run =
            Run::new(NewtonConfig::default(), given, Paper::new(vec![vec![2.0]], gradient));
        let mut undone = None;
        for _ in 0..100 {
            if let Step::RolledBack { cause, decisions } = run.step(None) {
                undone = Some((cause, decisions[0].from > decisions[0].to));
                break;
            }
        }
        assert_eq!(undone, Some((Cause::WentTooFar, true)));
        assert_eq!(run.host.w, [[2.0]]);
        // And it does not ramp again.
        run.host.log.clear();
        run.step(None);
        assert!(run.host.log.is_empty());
    }
}

// From sketches there is no way back: the ramp ends where it is, with rates below what went too
// far.
#[test]
fn too_far_without_snapshots_is_the_end_of_the_ramp() {
    let gradient = |w: &[f64], _| vec![if w[0] > 1.0 - 1e-3 { 1.0 } else { -1e3 }];
    let config = NewtonConfig::default().safeguard(None).sketch(64);
    let mut run = Run::new(config, 1e-3, Paper::new(vec![vec![2.0]], gradient));
    run.ramp();
    assert!(run.host.log.iter().all(|entry| !entry.starts_with("back")), "{:?}", run.host.log);
    let largest = run.engine.history().iter().map(|decision| decision.from).fold(0.0, f64::max);
    assert!(run.rates()[0] < largest);
}

// One gradient that is not a number is left out. At the start, two are the batches' fault; later
// the weights go back.
#[test]
fn gradients_that_are_no_numbers() {
    let broken_at = |from: usize, to: usize| {
        let gradient =
            move |w: &[f64], batch| vec![if (from..to).contains(&batch) { f64::NAN } else { w[0] }];
        Run::new(NewtonConfig::default(), 1e-3, Paper::new(vec![vec![2.0]], gradient))
    };
    let mut run = broken_at(0, 1);
    assert_eq!(run.step(None), Step::Skipped(Cause::NonFiniteGradient));
    run.ramp();
    assert!((0.1..1.0).contains(&run.rates()[0]));

    let mut run = broken_at(0, 2);
    run.step(None);
    let undone = run.step(None);
    assert!(matches!(undone, Step::RolledBack { cause: Cause::NonFiniteGradient, .. }));
    assert_eq!(run.rates(), [1e-3]);
    run.ramp();
    assert!((0.1..1.0).contains(&run.rates()[0]));

    let mut run = broken_at(12, 14);
    (0..12).for_each(|_| drop(run.step(None)));
    let before = run.rates()[0];
    assert_eq!(run.step(None), Step::Skipped(Cause::NonFiniteGradient));
    assert!(matches!(run.step(None), Step::RolledBack { cause: Cause::WentTooFar, .. }));
    assert_eq!((run.rates()[0], run.host.w[0][0]), (before / 4.0, 2.0));
    assert_eq!(run.are_bound(), [false], "what a ramp has undone may be tried again");

    // Rates that are fixed, or whose group has had no gradient, have led nowhere.
    let gradient = |w: &[f64], batch| {
        let broken = (12..14).contains(&batch);
        vec![if broken { f64::NAN } else { w[0] }, w[1], 0.0]
    };
    let host = Paper::new(vec![vec![2.0], vec![2.0], vec![2.0]], gradient);
    let mut run = Run::with_fixed(NewtonConfig::default(), 1e-3, host, Some(1));
    (0..12).for_each(|_| drop(run.step(None)));
    let before = run.rates();
    (0..2).for_each(|_| drop(run.step(None)));
    assert_eq!(run.rates(), [before[0] / 4.0, before[1], before[2]]);
}

// Two losses in a row that are not numbers undo the ramp, and a loss that explodes where the way
// explains it. One that the way does not explain is nothing to it.
#[test]
fn losses_on_the_ramp() {
    let run = || {
        let mut run =
            Run::new(NewtonConfig::default(), 1e-3, Paper::new(vec![vec![2.0]], bowl(1.0)));
        (0..16).for_each(|_| drop(run.step(Some(2.0))));
        run
    };
    let undo = |broken: &mut Run| {
        assert_eq!(broken.step(Some(f64::NAN)), Step::Skipped(Cause::NonFiniteLoss));
        let undone = broken.step(Some(f64::NAN));
        assert!(matches!(undone, Step::RolledBack { cause: Cause::NonFiniteLoss, .. }));
        assert_eq!(broken.host.w, [[2.0]]);
    };
    let mut broken = run();
    let before = broken.rates()[0];
    undo(&mut broken);
    // The ramp is over, with rates below what led there.
    assert_eq!(broken.rates(), [before / 4.0]);
    assert_eq!(broken.step(Some(2.0)), Step::Made);
    // So it is where both batches were to be gathered for a step.
    let mut gathering = run();
    assert_eq!(gathering.gather(Some(f64::NAN)), Step::Skipped(Cause::NonFiniteLoss));
    assert!(matches!(gathering.gather(Some(f64::NAN)), Step::RolledBack { .. }));
    assert_eq!((gathering.host.w[0][0], gathering.rates()), (2.0, vec![before / 4.0]));
    assert_eq!(gathering.step(Some(2.0)), Step::Made);
    // At the start there is nothing to undo.
    let host = Paper::new(vec![vec![2.0]], bowl(1.0));
    let mut broken = Run::new(NewtonConfig::default(), 1e-3, host);
    undo(&mut broken);
    assert_eq!(broken.rates(), [1e-3]);
    assert!(matches!(broken.step(Some(2.0)), Step::Ramped { .. }));
    let mut risen = run();
    assert!(matches!(risen.step(Some(1e9)), Step::Ramped { .. }));
}

// The steps of the ramp are in the history, and the schedule and the window wait for its end.
#[test]
fn the_ramp_is_told() {
    let config = NewtonConfig::default().window(Window::steps(3).unwrap());
    let mut run = Run::new(config, 1e-3, Paper::new(vec![vec![2.0]], bowl(1.0)));
    run.engine.set_schedule(Some(Schedule::from_fn(|_| 1e-9)));
    assert_eq!(run.engine.factor(), 1.0);
    let steps = run.ramp();
    assert_eq!(run.engine.factor(), 1e-9);
    assert!((0.1..1.0).contains(&run.rates()[0]));
    let history = run.engine.take_history();
    assert!(history.iter().all(|decision| decision.outcome == Outcome::Ramped));
    assert_eq!((history[0].from, history[0].step), (1e-3, 0));
    assert_eq!(history.last().unwrap().to, run.rates()[0]);
    assert_eq!(run.engine.steps(), steps as u64);
    (0..2).for_each(|_| assert_eq!(run.step(None), Step::Made));
    assert!(matches!(run.step(None), Step::WindowEnded { .. }));
    // From the start again.
    run.engine.reset();
    assert!(matches!(run.step(None), Step::Ramped { .. }));
}

// The ramp goes by the limits of the default safeguard if there is none. Fails if gradients that
// are no numbers are trained on, or are an error at once; or if they are left out for ever.
#[test]
fn without_a_safeguard_the_ramp_keeps_its_own() {
    let config = NewtonConfig::default().safeguard(None);
    let host = Paper::new(vec![vec![1.0]], |_, _| vec![f64::NAN]);
    let mut run = Run::new(config, 0.1, host);
    let mut step = || drive(&mut run.engine, &mut run.host, Some(1.0), false);
    assert_eq!(step(), Ok(Step::Skipped(Cause::NonFiniteGradient)));
    let back = |step| matches!(step, Ok(Step::RolledBack { cause: Cause::NonFiniteGradient, .. }));
    assert!((0..19).all(|_| back(step())));
    let error = Error::TooManyRollbacks { count: 20, step: 21, cause: Cause::NonFiniteGradient };
    assert_eq!(step(), Err(StepError::Engine(error)));
    assert_eq!(run.host.w, [[1.0]]);
    // Without a ramp there is nothing of this: the weights are lost.
    let config = NewtonConfig::default().safeguard(None).ramp(false);
    let host = Paper::new(vec![vec![1.0]], |_, _| vec![f64::NAN]);
    let mut run = Run::new(config, 0.1, host);
    assert_eq!(run.step(Some(1.0)), Step::Made);
    assert!(run.host.w[0][0].is_nan());
}
