//! The course of a step: what the host is asked for, in which order, and what happens where it
//! fails.

use super::{along, guarded, plain, run, still, Run, RATE};
use tlr::{engine::*, Cause, Error};

#[test]
fn a_window_begins_with_a_snapshot_and_ends_with_one() {
    let mut run = run(&plain(2), &[false]);
    assert_eq!(run.step(1.0), Step::Made);
    assert_eq!(run.log(), "snapshot Weights; snapshot Buffers; update");
    let Step::WindowEnded { decisions } = run.step(1.0) else { panic!("no end") };
    assert_eq!(run.log(), "update; end");
    assert_eq!((decisions.len(), run.engine.window()), (1, 2));
    assert_eq!((decisions[0].step, decisions[0].outcome), (2, Outcome::WarmingUp));
    assert_eq!(run.engine.history(), decisions);
    assert_eq!(run.step(1.0), Step::Made);
    assert_eq!((run.log().as_str(), run.engine.steps()), ("update", 3));
}

#[test]
fn without_a_safeguard_a_bad_loss_is_an_error_before_anything_moves() {
    let mut run = run(&plain(2), &[false]);
    run.step(1.0);
    run.log();
    let state = run.engine.state().clone();
    let Err(StepError::Engine(error)) = run.batch(f64::NAN, false) else { panic!("no error") };
    assert!(matches!(error, Error::NonFiniteLoss { step: 2, .. }), "{error}");
    assert_eq!((run.log().as_str(), run.engine.state()), ("", &state));
    assert!(matches!(run.step(1e300), Step::WindowEnded { .. }));
}

#[test]
fn broken_weights_without_a_safeguard() {
    for (sketch, lost) in [(None, false), (Some(64), true)] {
        let mut run = run(&plain(1).sketch(sketch), &[false]);
        run.host.broken = true;
        let Err(StepError::Engine(error)) = run.batch(1.0, false) else { panic!("no error") };
        assert_eq!(run.log(), "snapshot Weights; snapshot Buffers; update; end; back Last");
        match error {
            Error::LostWeights { step: 1, tensor } => assert!(lost && tensor == "w"),
            Error::NonFiniteWeights { step: 1, tensor } => assert!(!lost && tensor == "w"),
            error => panic!("{error}"),
        }
        run.host.broken = false;
        assert!(matches!(run.step(1.0), Step::WindowEnded { .. }));
        assert_eq!(run.engine.steps(), 2);
    }
}

#[test]
fn gathered_batches_are_one_step_with_their_mean_loss() {
    let mut run = run(&guarded(4), &[false]);
    assert_eq!(run.batch(1.0, true).unwrap(), Step::Gathered);
    assert_eq!((run.engine.steps(), run.log().contains("update")), (0, true));
    // Their mean, as it is kept.
    let mean = |run: &Run<NewtonRule>| {
        serde_json::to_value(run.engine.state()).unwrap()["gathered"]["mean"].as_f64().unwrap()
    };
    let mut other = self::run(&guarded(4), &[false]);
    for (loss, expected) in [(2.0, 2.0), (4.0, 3.0), (9.0, 5.0), (-3.0, 3.0)] {
        other.batch(loss, true).unwrap();
        assert_eq!(mean(&other), expected);
    }
    // To the bit: another way to write this mean is off by one last place.
    let mut rounded = self::run(&guarded(4), &[false]);
    [0.1, 1.3].iter().for_each(|loss| drop(rounded.batch(*loss, true).unwrap()));
    assert_eq!(mean(&rounded), 0.1 + (1.3 - 0.1) / 2.0);
    // Of numbers whose difference overflows.
    let mut extreme = self::run(&guarded(4), &[false]);
    for (loss, expected) in [(1.5e308, 1.5e308), (-1.5e308, 0.0), (1.2e308, 0.4e308)] {
        extreme.batch(loss, true).unwrap();
        assert!((mean(&extreme) - expected).abs() < 1e293);
    }
    // A broken batch among others is no step, and neither is one that would have completed it.
    other.batch(f64::NAN, false).unwrap();
    assert_eq!(other.engine.steps(), 0);
    // A broken batch is left out, and the step is still to come.
    assert_eq!(run.batch(f64::NAN, true).unwrap(), Step::Skipped(Cause::NonFiniteLoss));
    assert_eq!((run.engine.steps(), run.log().as_str()), (0, "skip"));
    assert_eq!(run.batch(1.2, false).unwrap(), Step::Made);
    assert_eq!(run.engine.steps(), 1);
    // The level is 1.1. A mean of 1.66 is above 1.5 times that: it takes what was gathered with it.
    run.batch(1.0, true).unwrap();
    run.log();
    assert_eq!(run.batch(2.32, false).unwrap(), Step::Skipped(Cause::LossExploded));
    assert_eq!((run.engine.steps(), run.log().as_str()), (2, "skip, drop"));
    assert_eq!(run.batch(1.64, false).unwrap(), Step::Made);
    // Lost gradients take their losses with them. A gathered loss is only looked at for being a
    // number.
    assert_eq!(run.batch(1e9, true).unwrap(), Step::Gathered);
    run.engine.gathered_gradients_lost();
    assert_eq!(run.batch(1.1, false).unwrap(), Step::Made);
}

// Batches with a loss and without one make one step. A broken one that would have completed it is
// replaced by the next, whatever was gathered before had a loss or not. Fails if only losses are
// counted, or if a batch without a loss has a say in the mean.
#[test]
fn gathered_batches_without_a_loss_count_as_batches() {
    let mut run = run(&guarded(4), &[false]);
    let gathered = |run: &mut Run<NewtonRule>, loss| {
        let step = drive(&mut run.engine, &mut run.host, loss, true).unwrap();
        assert_eq!((step, run.engine.steps()), (Step::Gathered, 0));
        serde_json::to_value(run.engine.state()).unwrap()["gathered"]["mean"].as_f64().unwrap()
    };
    assert_eq!(gathered(&mut run, None), 0.0);
    assert_eq!(run.step(f64::NAN), Step::Skipped(Cause::NonFiniteLoss));
    assert_eq!(run.engine.steps(), 0);
    let means = [Some(2.0), None, Some(4.0)].map(|loss| gathered(&mut run, loss));
    assert_eq!(means, [2.0, 2.0, 3.0]);
    assert_eq!((run.step(3.0), run.engine.steps()), (Step::Made, 1));
    // With nothing gathered, a broken batch is a step.
    assert_eq!(run.step(f64::NAN), Step::Skipped(Cause::NonFiniteLoss));
    assert_eq!(run.engine.steps(), 2);
}

#[test]
fn a_host_that_fails_before_the_update_leaves_all_as_it_was() {
    for (fails_at, losses, bad) in [
        ("snapshot Weights", &[][..], 1.0),
        ("snapshot Buffers", &[], 1.0),
        ("update", &[], 1.0),
        ("update", &[1.0], 1.0),
        ("skip", &[1.0], f64::NAN),
        ("check", &[1.0, f64::NAN], f64::NAN),
        ("back", &[1.0, f64::NAN], f64::NAN),
    ] {
        let mut failing = run(&guarded(3), &[false]);
        losses.iter().for_each(|loss| drop(failing.step(*loss)));
        let state = failing.engine.state().clone();
        failing.host.fails_at = Some(fails_at);
        let Err(StepError::Host { error, step_made: false }) = failing.batch(bad, false) else {
            panic!("{fails_at}");
        };
        assert!(error.starts_with(fails_at));
        assert_eq!(failing.engine.state(), &state, "{fails_at}");
        failing.host.fails_at = None;
        failing.batch(bad, false).unwrap();
    }
}

// Fails where a rollback goes to a snapshot that is lost.
#[test]
fn after_a_window_that_could_not_end_only_the_last_snapshot_is_left() {
    let mut run = run(&guarded(2), &[false]);
    run.steps(&[1.0, 1.0, 1.15]);
    run.host.fails_at = Some("end");
    drop(run.batch(0.5, false));
    run.host.fails_at = None;
    run.step(1e9);
    run.log();
    run.step(1e9);
    assert_eq!(run.log(), "check; back Last");
    // And after a window whose weights were broken.
    let mut broken = self::run(&guarded(2), &[false]);
    broken.steps(&[1.0, 1.0, 1.15]);
    (broken.host.broken, broken.host.fails_at) = (true, Some("back"));
    drop(broken.batch(0.5, false));
    (broken.host.broken, broken.host.fails_at) = (false, None);
    broken.step(1e9);
    broken.log();
    broken.step(1e9);
    assert_eq!(broken.log(), "check; back Last");
}

// Without a loss, a window ends far out, and the host cannot go back. Fails if the next decision is
// made with the direction of the window before that one.
#[test]
fn a_way_back_that_failed_leaves_no_direction() {
    let mut run = run(&guarded(4), &[false]);
    let batch = |run: &mut Run<NewtonRule>| drive(&mut run.engine, &mut run.host, None, false);
    (0..4).for_each(|_| drop(batch(&mut run).unwrap()));
    let far = Slope { along: 1.0, moved: 1e3, gradient: 1.0, norm: 1.0, weights: 1 };
    (run.host.slopes, run.host.fails_at) = (vec![far], Some("back"));
    (0..3).for_each(|_| assert_eq!(batch(&mut run).unwrap(), Step::Made));
    let failed = batch(&mut run);
    assert!(matches!(failed, Err(StepError::Host { step_made: true, .. })), "{failed:?}");
    (run.host.slopes, run.host.fails_at) = (vec![Slope { along: -0.05, moved: 0.1, ..far }], None);
    (0..4).for_each(|_| drop(batch(&mut run).unwrap()));
    let outcomes: Vec<_> = run.engine.history().iter().map(|decision| decision.outcome).collect();
    assert_eq!(outcomes, [Outcome::WarmingUp; 2]);
}

#[test]
fn a_step_that_was_left_in_the_middle_is_given_up() {
    let mut run = run(&guarded(4), &[false]);
    run.step(1.0);
    let state = run.engine.state().clone();
    run.engine.tell(Event::Batch { loss: Some(1.0), only_gathers: false }).unwrap();
    assert!(run.engine.state().is_within_step());
    assert_eq!(run.step(1.0), Step::Made);
    run.engine.resume(state).unwrap();
    assert_eq!((run.step(1.0), run.engine.steps()), (Step::Made, 2));
}

// Fails where the place in the window stays for good, and where products that nobody knows are
// used.
#[test]
fn a_window_that_cannot_end_ends_with_the_next_step() {
    let mut run = run(&plain(1), &[false]);
    run.window(still(1.0));
    run.host.fails_at = Some("end");
    let failed = run.batch(1.0, false);
    assert!(matches!(failed, Err(StepError::Host { step_made: true, .. })), "{failed:?}");
    assert_eq!((run.engine.steps(), run.engine.history().len()), (2, 1));
    run.host.fails_at = None;
    assert_eq!(run.window(along(1.0, 0.5)).1, Outcome::WarmingUp);
    assert_eq!((run.engine.steps(), run.engine.history().len()), (3, 2));
    assert_eq!(run.window(along(0.5, 0.25)).1, Outcome::Scaled);
}

#[test]
fn a_window_whose_evidence_fails_is_judged_without() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.host.fails_at = Some("norms");
    let failed = run.batch(1.0, false);
    assert!(matches!(failed, Err(StepError::Host { step_made: true, .. })), "{failed:?}");
    let [decision] = run.engine.history() else { panic!("one decision") };
    assert_eq!(decision.outcome, Outcome::WarmingUp);
    run.host.fails_at = None;
    assert!(matches!(run.step(1.0), Step::WindowEnded { .. }));
}

#[test]
fn a_way_back_that_fails_after_the_update_says_so() {
    for config in [plain(1), guarded(1)] {
        let mut run = run(&config, &[false]);
        (run.host.broken, run.host.fails_at) = (true, Some("back"));
        let failed = run.batch(1.0, false);
        assert!(matches!(failed, Err(StepError::Host { step_made: true, .. })), "{failed:?}");
        // The next step finds the weights as they are, and tries again.
        run.host.fails_at = None;
        drop(run.batch(1.0, false));
        assert!(run.log().ends_with("update; end; back Last"));
    }
}

#[test]
fn the_evidence_is_told_in_order() {
    let facts = HostFacts { momentum: 0.0, epsilon: 1e-3 };
    let groups = vec![Group { name: "w".into(), fixed_rate: false, rate: RATE }];
    let mut engine = Engine::new(plain(1).climb(0.8), groups, facts).unwrap();
    for event in [
        Event::Batch { loss: None, only_gathers: false },
        Event::SnapshotTaken,
        Event::SnapshotTaken,
        Event::Updated,
    ] {
        engine.tell(event).unwrap();
    }
    assert_eq!(engine.tell(Event::WindowEnded(vec![still(0.0)])), Ok(Request::TellMovable));
    let error = engine.tell(Event::Norms(vec![])).unwrap_err();
    assert!(error.to_string().contains("waits for which groups would move"), "{error}");
    assert_eq!(engine.tell(Event::Movable(vec![])), Ok(Request::MeasureNorms));
    let error = engine.tell(Event::Movable(vec![])).unwrap_err();
    assert!(error.to_string().contains("waits for norms"), "{error}");
    assert!(matches!(engine.tell(Event::Norms(vec![])), Ok(Request::Done(_))));
}

/// A host that can tell nothing but what it must.
struct Least;

impl Host for Least {
    type Error = ();

    fn take_snapshot(&mut self, _kind: TensorKind) -> Result<(), ()> {
        Ok(())
    }

    fn update(&mut self, _rates: &[f64]) -> Result<(), ()> {
        Ok(())
    }

    fn skip(&mut self, _drop_gathered: bool) -> Result<(), ()> {
        Ok(())
    }

    fn end_window(&mut self) -> Result<WindowEnd, ()> {
        Ok(WindowEnd::Products(vec![still(0.0)]))
    }

    fn weights_are_finite(&mut self) -> Result<bool, ()> {
        Ok(true)
    }

    fn go_back(&mut self, _target: Target) -> Result<(), ()> {
        Ok(())
    }
}

#[test]
fn a_host_need_not_tell_what_it_cannot() {
    assert_eq!((Least.movable(), Least.norms()), (Ok(vec![]), Ok(vec![])));
    assert_eq!(Least.slopes(Target::Last), Ok(vec![]));
    assert_eq!(Least.clear_optimizer(), Ok(()));
    let mut run = run(&plain(1).climb(0.8), &[false]);
    let step = drive(&mut run.engine, &mut Least, None, false).unwrap();
    assert_eq!(step.decisions()[0].outcome, Outcome::Kept(KeptBecause::NoGradient));
    assert_eq!(run.engine.take_history(), step.decisions());
    assert!(run.engine.history().is_empty() && Step::Made.decisions().is_empty());
}

// A host's author can hand either on by `?`. Fails if one of them has no words of its own.
#[test]
fn why_a_step_was_not_finished_has_words() {
    let words = |step_made| {
        let error = std::io::Error::other("no memory");
        let error: Box<dyn std::error::Error> = Box::new(StepError::Host { error, step_made });
        assert_eq!(error.source().unwrap().to_string(), "no memory");
        error.to_string()
    };
    assert_eq!(words(false), "no memory");
    assert_eq!(words(true), "no memory: the step itself was made");
    let engine = StepError::<String>::Engine(Error::NothingToTrain).to_string();
    assert_eq!(engine, Error::NothingToTrain.to_string());
}

#[test]
fn events_out_of_order_change_nothing() {
    let facts = HostFacts { momentum: 0.0, epsilon: 1e-3 };
    let groups = vec![Group { name: "w".into(), fixed_rate: false, rate: RATE }];
    let mut engine = Engine::new(guarded(1), groups, facts).unwrap();
    let refused = |engine: &mut Engine<NewtonRule>, event: Event, words: &str| {
        let state = engine.state().clone();
        let error = engine.tell(event).unwrap_err();
        assert!(matches!(error, Error::OutOfOrder { .. }) && error.to_string().contains(words));
        assert_eq!(engine.state(), &state);
    };
    refused(&mut engine, Event::Updated, "an update and waits for a batch");
    engine.tell(Event::Batch { loss: Some(1.0), only_gathers: false }).unwrap();
    refused(&mut engine, Event::Skipped, "waits for a snapshot");
    assert!(engine.state().is_within_step());
    engine.tell(Event::SnapshotTaken).unwrap();
    engine.tell(Event::SnapshotTaken).unwrap();
    refused(&mut engine, Event::SnapshotTaken, "a snapshot and waits for an update");
    engine.tell(Event::Updated).unwrap();
    // As many products as there are groups.
    refused(&mut engine, Event::WindowEnded(vec![still(1.0); 2]), "products of each group");
    engine.tell(Event::WindowEnded(vec![still(1.0)])).unwrap();
    assert!(!engine.state().is_within_step());
    // A window that agrees is weighed: slopes are asked for once, then norms.
    let groups = vec![Group { name: "w".into(), fixed_rate: false, rate: RATE }];
    let mut engine = Engine::new(plain(1).climb(0.8), groups, facts).unwrap();
    let batch = || Event::Batch { loss: None, only_gathers: false };
    for event in [batch(), Event::SnapshotTaken, Event::SnapshotTaken, Event::Updated] {
        engine.tell(event).unwrap();
    }
    engine.tell(Event::WindowEnded(vec![still(1.0)])).unwrap();
    engine.tell(Event::Norms(vec![1.0])).unwrap();
    engine.tell(batch()).unwrap();
    engine.tell(Event::Updated).unwrap();
    engine.tell(Event::WindowEnded(vec![along(1.0, 1.0)])).unwrap();
    refused(&mut engine, Event::Norms(vec![]), "norms and waits for slopes");
    engine.tell(Event::Slopes(vec![])).unwrap();
    refused(&mut engine, Event::Slopes(vec![]), "slopes and waits for norms");
    engine.tell(Event::Norms(vec![1.0])).unwrap();
    assert!(!engine.state().is_within_step());
}

// Answers of two groups out of three, or of four. Fails if one of them is taken: a group whose
// slope is missing would never be blamed.
#[test]
fn an_answer_has_one_of_each_group_or_none() {
    let slope = |along| Slope { along, moved: 0.1, gradient: 1.0, norm: 10.0, weights: 100 };
    // While losses are low, no window moves, and the host is asked whether any could.
    let lists = |given: usize, own: f64| {
        let slopes = Event::Slopes(vec![slope(1.0); given]);
        let products = Event::WindowEnded(vec![still(own); given]);
        [slopes, products, Event::Movable(vec![true; given]), Event::Norms(vec![1.0; given])]
    };
    let config = NewtonConfig::default().window(Window::steps(2).unwrap());
    let mut asked = Vec::new();
    for config in [config, config.ramp(false), guarded(2).climb(0.8).settle(true)] {
        let mut run = run(&config, &[false; 3]);
        for (loss, own) in [(1.0, 0.0), (1.0, 1.0), (9.0, 1.0)].into_iter().flat_map(|x| [x; 4]) {
            let mut event = Event::Batch { loss: Some(loss), only_gathers: false };
            loop {
                let request = run.engine.tell(event).unwrap();
                let [slopes, products, movable, norms] = lists(3, own);
                event = match request {
                    Request::TakeSnapshot(_) => Event::SnapshotTaken,
                    Request::CheckWeights => Event::WeightsChecked { finite: true },
                    Request::MeasureSlopes(_) => slopes,
                    Request::Update => Event::Updated,
                    Request::ClearOptimizer => Event::OptimizerCleared,
                    Request::Skip { .. } => Event::Skipped,
                    Request::EndWindow => products,
                    Request::TellMovable => movable,
                    Request::MeasureNorms => norms,
                    Request::GoBack(_) => Event::WentBack,
                    Request::Done(_) => break,
                };
                let kind = std::mem::discriminant(&event);
                for wrong in [1, 2, 4].into_iter().flat_map(|given| lists(given, own)) {
                    if std::mem::discriminant(&wrong) != kind {
                        continue;
                    }
                    let before = run.engine.state().clone();
                    let error = run.engine.tell(wrong).unwrap_err();
                    assert!(matches!(error, Error::OutOfOrder { .. }), "{error}");
                    assert!(error.to_string().contains("each"), "{error}");
                    assert_eq!(run.engine.state(), &before);
                }
                asked.push(request);
            }
        }
    }
    for kind in [Request::EndWindow, Request::TellMovable, Request::MeasureNorms] {
        assert!(asked.contains(&kind), "{kind:?} of {asked:?}");
    }
    assert!(asked.contains(&Request::MeasureSlopes(Target::Last)));
}
