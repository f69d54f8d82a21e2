//! The engine alone: each decision by hand, with a host that does nothing but write down what it
//! was asked for.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{collections::VecDeque, f64::consts::SQRT_2};
use tlr::{engine::*, Cause, Error};

/// What a window's end answers, and what else it is asked for.
#[derive(Default)]
struct Script {
    windows: VecDeque<Vec<WindowProducts>>,
    /// Instead of products.
    broken: bool,
    unfinished: bool,
    movable: Vec<bool>,
    norms: Vec<f64>,
    slopes: Vec<Slope>,
    /// How often it was asked for slopes.
    looked: usize,
    /// What it was asked for, in order.
    log: Vec<String>,
    rates: Vec<f64>,
    /// The request that fails.
    fails_at: Option<&'static str>,
}

impl Script {
    fn note(&mut self, what: &str) -> Result<(), String> {
        self.log.push(what.to_owned());
        match self.fails_at {
            Some(fails_at) if what.starts_with(fails_at) => Err(what.to_owned()),
            _ => Ok(()),
        }
    }
}

impl Host for Script {
    type Error = String;

    fn take_snapshot(&mut self, kind: TensorKind) -> Result<(), String> {
        self.note(&format!("snapshot {kind:?}"))
    }

    fn update(&mut self, rates: &[f64]) -> Result<(), String> {
        self.rates = rates.to_vec();
        self.note("update")
    }

    fn skip(&mut self, drop_gathered: bool) -> Result<(), String> {
        self.note(if drop_gathered { "skip, drop" } else { "skip" })
    }

    fn end_window(&mut self) -> Result<WindowEnd, String> {
        self.note("end")?;
        if self.broken {
            return Ok(WindowEnd::Broken { tensor: "w".into() });
        }
        Ok(WindowEnd::Products(self.windows.pop_front().unwrap_or_else(|| vec![still(1.0)])))
    }

    fn weights_are_finite(&mut self) -> Result<bool, String> {
        self.note("check")?;
        Ok(!self.unfinished)
    }

    fn movable(&mut self) -> Result<Vec<bool>, String> {
        self.note("movable")?;
        Ok(self.movable.clone())
    }

    fn slopes(&mut self, _since: Target) -> Result<Vec<Slope>, String> {
        self.looked += 1;
        Ok(self.slopes.clone())
    }

    fn norms(&mut self) -> Result<Vec<f64>, String> {
        self.note("norms")?;
        Ok(self.norms.clone())
    }

    fn go_back(&mut self, target: Target) -> Result<(), String> {
        self.note(&format!("back {target:?}"))
    }
}

/// A window that has moved by √`own` and has nothing to do with the one before.
fn still(own: f64) -> WindowProducts {
    WindowProducts { across: 0.0, own }
}

/// The products of a window whose displacement is `now` times a direction, after one of `then`
/// times it.
fn along(then: f64, now: f64) -> WindowProducts {
    WindowProducts { across: then * now, own: now * now }
}

struct Run<R> {
    engine: Engine<R>,
    host: Script,
}

const RATE: f64 = 0.5;

fn run<R: RateRule + Clone>(config: &Config<R>, fixed_rate: &[bool]) -> Run<R> {
    run_from(RATE, config, fixed_rate)
}

fn run_from<R: RateRule + Clone>(rate: f64, config: &Config<R>, fixed_rate: &[bool]) -> Run<R> {
    let groups = fixed_rate.iter().enumerate().map(|(index, fixed_rate)| Group {
        name: index.to_string().into(),
        fixed_rate: *fixed_rate,
        rate,
    });
    let numbers = Numbers { momentum: 0.0, spacing: 1e-3 };
    let engine = Engine::new(config.clone(), groups.collect(), numbers).unwrap();
    Run { engine, host: Script::default() }
}

/// One rate, windows of so many steps, and the rule alone.
fn plain(steps: usize) -> NewtonConfig {
    let config = NewtonConfig::default().climb(None).ramp(false).settle(false).safeguard(None);
    config.window(Window::steps(steps).unwrap())
}

fn guarded(steps: usize) -> NewtonConfig {
    plain(steps).safeguard(Safeguard::default())
}

impl<R: RateRule> Run<R> {
    fn batch(&mut self, loss: f64, only_gathers: bool) -> Result<Step, StepError<String>> {
        drive(&mut self.engine, &mut self.host, Some(loss), only_gathers)
    }

    fn step(&mut self, loss: f64) -> Step {
        self.batch(loss, false).unwrap()
    }

    /// Steps with these losses; what became of the last.
    fn steps(&mut self, losses: &[f64]) -> Step {
        losses.iter().map(|loss| self.step(*loss)).last().unwrap()
    }

    /// One step that ends a window with these products.
    fn window(&mut self, products: WindowProducts) -> (f64, Outcome) {
        self.host.windows.push_back(vec![products]);
        drive(&mut self.engine, &mut self.host, None, false).unwrap();
        (self.rate(), self.engine.history().last().unwrap().outcome)
    }

    fn rate(&self) -> f64 {
        self.engine.rates().next().unwrap().1
    }

    fn log(&mut self) -> String {
        std::mem::take(&mut self.host.log).join("; ")
    }
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} for {b}");
}

// ---- The course of a step ----

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
    let numbers = Numbers { momentum: 0.0, spacing: 1e-3 };
    let groups = vec![Group { name: "w".into(), fixed_rate: false, rate: RATE }];
    let mut engine = Engine::new(plain(1).climb(0.8), groups, numbers).unwrap();
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
    assert!(error.to_string().ends_with("waits for which groups would move"), "{error}");
    assert_eq!(engine.tell(Event::Movable(vec![])), Ok(Request::MeasureNorms));
    let error = engine.tell(Event::Movable(vec![])).unwrap_err();
    assert!(error.to_string().ends_with("waits for norms"), "{error}");
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
    let mut run = run(&plain(1).climb(0.8), &[false]);
    let step = drive(&mut run.engine, &mut Least, None, false).unwrap();
    assert_eq!(step.decisions()[0].outcome, Outcome::Kept(KeptBecause::NoGradient));
    assert_eq!(run.engine.take_history(), step.decisions());
    assert!(run.engine.history().is_empty() && Step::Made.decisions().is_empty());
}

#[test]
fn events_out_of_order_change_nothing() {
    let numbers = Numbers { momentum: 0.0, spacing: 1e-3 };
    let groups = vec![Group { name: "w".into(), fixed_rate: false, rate: RATE }];
    let mut engine = Engine::new(guarded(1), groups, numbers).unwrap();
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
    let mut engine = Engine::new(plain(1).climb(0.8), groups, numbers).unwrap();
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

// ---- The rules ----

#[test]
fn both_forms_of_the_newton_rule() {
    // u₋ = 4/0.5 = 8 and u = 1/0.5 = 2 at the same rate: uu = 64, un = 16, curvature 48.
    let of = |config: NewtonConfig| {
        let mut run = run(&config, &[false]);
        run.window(still(16.0));
        run.window(along(4.0, 1.0))
    };
    let (rate, outcome) = of(plain(1).damping(0.3));
    close(rate, 0.7 * RATE + 0.3 * RATE * 64.0 / 48.0);
    assert_eq!(outcome, Outcome::Scaled);
    let (rate, _) = of(plain(1).damping(0.3).form(NewtonForm::Paper));
    close(rate, RATE * (1.0 + 0.3 * 16.0 / 48.0));
    assert_eq!(of(plain(1).max_factor(1.01)), (RATE * 1.01, Outcome::Capped));
    // Just as much as it may be is not capped: (1 − γ)·α + γ·α·4/2 at γ = 1.
    let mut run = run(&plain(1).damping(1.0).max_factor(2.0), &[false]);
    run.window(still(16.0));
    assert_eq!(run.window(along(4.0, 2.0)), (2.0 * RATE, Outcome::Scaled));
}

// The aligned form starts from the rate of the window before, the paper's from the one in force.
#[test]
fn after_a_change_of_rate_the_forms_differ() {
    let of = |form| {
        let mut run = run(&plain(1).damping(0.5).form(form), &[false]);
        run.window(still(16.0));
        let (second, _) = run.window(along(4.0, 2.0));
        close(second, 0.75);
        // u₋ = 2/0.5 = 4, u = 1.5/0.75 = 2: uu = 16, un = 8.
        run.window(along(2.0, 1.5)).0
    };
    close(of(NewtonForm::Aligned), 0.5 * 0.75 + 0.5 * 0.5 * 2.0);
    close(of(NewtonForm::Paper), 0.75 * 1.5);
}

#[test]
fn where_there_is_nothing_to_learn_the_rate_is_kept() {
    let kept = |first: WindowProducts, second: WindowProducts, because: KeptBecause| {
        let mut run = run(&plain(1), &[false]);
        run.window(first);
        assert_eq!(run.window(second), (RATE, Outcome::Kept(because)));
    };
    kept(still(1.0), along(1.0, 1.0), KeptBecause::NonPositiveCurvature);
    kept(still(1.0), along(1.0, 2.0), KeptBecause::NonPositiveCurvature);
    for bad in [f64::NAN, f64::INFINITY] {
        kept(still(1.0), WindowProducts { across: bad, own: 1.0 }, KeptBecause::NonFinite);
        kept(still(1.0), WindowProducts { across: 0.5, own: bad }, KeptBecause::NonFinite);
        kept(still(bad), along(1.0, 0.5), KeptBecause::NonFinite);
    }
    let mut run = run(&plain(1), &[true]);
    run.window(still(16.0));
    assert_eq!(run.window(along(4.0, 2.0)), (RATE, Outcome::Kept(KeptBecause::FixedRate)));
}

#[test]
fn the_first_order_rules() {
    let of = |rule: HypergradientRule, then: f64, now: f64| {
        let config = Config::new(rule).safeguard(None).window(Window::steps(1).unwrap());
        let mut run = run(&config, &[false]);
        run.window(still(then * then));
        run.window(along(then, now))
    };
    // u₋ = 4, u = 2.
    let (rate, outcome) = of(HypergradientRule::additive(0.01), 2.0, 1.0);
    close(rate, RATE + 0.01 * 8.0);
    assert_eq!(outcome, Outcome::Scaled);
    close(of(HypergradientRule::multiplicative(0.1), 2.0, 1.0).0, RATE * 1.1);
    close(of(HypergradientRule::multiplicative(0.1), 2.0, -1.0).0, RATE * 0.9);
    // At a cosine of 1/2.
    let rule = HypergradientRule::multiplicative(0.1);
    let config = Config::new(rule).safeguard(None).window(Window::steps(1).unwrap());
    let mut half = run(&config, &[false]);
    half.window(still(4.0));
    close(half.window(WindowProducts { across: 2.0, own: 4.0 }).0, RATE * 1.05);
    let capped = of(HypergradientRule::additive(1.0).max_factor(10.0), 2.0, 1.0);
    assert_eq!(capped, (RATE * 10.0, Outcome::Capped));
    assert_eq!(of(HypergradientRule::additive(1.0), 2.0, -1.0), (RATE / 100.0, Outcome::Capped));
}

#[test]
fn rates_stay_within_their_bounds() {
    let mut run = run(&plain(1).damping(1.0).max_factor(1e308), &[false]);
    run.window(still(1.0));
    let almost = 1.0 - f64::EPSILON;
    for _ in 0..4 {
        run.window(along(1.0, almost));
        run.window(along(almost, 1.0));
    }
    assert!(run.rate() <= 1e30);
    let errors = [1e-31, 1e31, f64::NAN, 0.0, -1.0].map(|rate| {
        let groups = vec![Group { name: "w".into(), fixed_rate: false, rate }];
        let numbers = Numbers { momentum: 0.0, spacing: 1e-3 };
        Engine::new(plain(1), groups, numbers).map(drop).unwrap_err()
    });
    assert!(errors.iter().all(|error| matches!(error, Error::Rate { group, .. } if group == "w")));
    let none = Engine::new(plain(1), vec![], Numbers { momentum: 0.0, spacing: 1e-3 });
    assert_eq!(none.map(drop).unwrap_err(), Error::NothingToTrain);
}

#[test]
fn products_add_up_and_vanish_into_a_cosine_of_zero() {
    let parts =
        [WindowProducts { across: 1.0, own: 2.0 }, WindowProducts { across: -3.0, own: 5.0 }];
    let sum: WindowProducts = parts.into_iter().sum();
    assert_eq!(sum, WindowProducts { across: -2.0, own: 7.0 });
    let cosine = |uu, un, nn| DirectionProducts { uu, un, nn }.cosine();
    assert_eq!(
        [cosine(0.0, 0.0, 1.0), cosine(4.0, 3.0, 9.0), cosine(1.0, -2.0, 1.0)],
        [0.0, 0.5, -1.0]
    );
}

#[test]
fn outcomes_in_words() {
    let words = [
        (Outcome::WarmingUp, "warming up"),
        (Outcome::Scaled, "scaled"),
        (Outcome::Capped, "capped"),
        (Outcome::Climbed, "climbed: the windows agree"),
        (Outcome::Raised, "raised: lost in rounding"),
        (Outcome::CutReverted, "cut reverted: it was not needed"),
        (Outcome::Kept(KeptBecause::NonPositiveCurvature), "kept: the curvature is not positive"),
        (Outcome::Kept(KeptBecause::NonFinite), "kept: a figure is not finite"),
        (Outcome::Kept(KeptBecause::FixedRate), "kept: the rate is fixed"),
        (Outcome::Searched, "set by the line search"),
        (Outcome::RolledBack(Cause::LossIncreased), "rolled back: the mean loss rose"),
    ];
    words.into_iter().for_each(|(outcome, words)| assert_eq!(outcome.to_string(), words));
}

// ---- The start ----

#[test]
fn the_climb_goes_to_the_newton_point_until_windows_disagree() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.window(still(1.0));
    // ρ = 0.9: the point is ten times the rate of the window before.
    let (rate, outcome) = run.window(along(1.0, 0.9));
    close(rate, 10.0 * RATE);
    assert_eq!(outcome, Outcome::Climbed);
    // ‖u‖ has fallen from 1.8 to 0.18, and so ρ is 0.1. Held, where the rule would go down.
    assert_eq!(run.window(along(0.9, 0.9)), (rate, Outcome::Climbed));
    // A cosine of 0.5 ends it, and the next window that agrees does not begin it again.
    assert_eq!(run.window(WindowProducts { across: 0.405, own: 0.81 }).1, Outcome::Scaled);
    assert_eq!(run.window(along(0.9, 0.81)).1, Outcome::Scaled);
}

// ‖u‖ grows from 1 to 2, with a cosine of 0.9, and that is ρ.
#[test]
fn what_grows_climbs_by_its_cosine() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.window(still(1.0));
    let (rate, outcome) = run.window(WindowProducts { across: 1.8, own: 4.0 });
    close(rate, 10.0 * RATE);
    assert_eq!(outcome, Outcome::Climbed);
}

// (5, 0) and (4, 3): a cosine of 0.8, to the bit.
#[test]
fn a_cosine_at_the_threshold_is_no_agreement() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.window(still(25.0));
    assert_eq!(run.window(WindowProducts { across: 20.0, own: 25.0 }).1, Outcome::Scaled);
    // Nor is it seen then whether the loss falls along the way.
    assert_eq!(run.host.looked, 0);
    run.window(WindowProducts { across: 25.0, own: 25.0 });
    assert_eq!(run.host.looked, 1);
}

// A way that does not go down keeps a rate from rising, and is no reason where the rule keeps it anyway:
// here the directions grow, so that there is no curvature.
#[test]
fn a_rate_that_does_not_rise_is_not_kept_by_the_slope() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.host.slopes = vec![Slope { moved: 1.0, gradient: 1.0, norm: 1.0, ..Slope::default() }];
    run.window(still(1.0));
    run.window(still(1.0));
    assert_eq!(run.window(along(1.0, 2.0)).1, Outcome::Kept(KeptBecause::NonPositiveCurvature));
    // cos = 1 and ρ = 1/2: the rule alone would raise it.
    let kept = Outcome::Kept(KeptBecause::NotDownhill);
    assert_eq!(run.window(along(2.0, 1.0)).1, kept);
    run.host.slopes[0].along = -1.0;
    assert_eq!(run.window(along(1.0, 0.5)).1, Outcome::Scaled);
}

#[test]
fn a_climb_is_a_hundredfold_at_most() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.window(still(1.0));
    assert_eq!(run.window(along(1.0, 1.0)), (100.0 * RATE, Outcome::Climbed));
    // Where the rule itself goes as far, it is the rule's doing.
    let mut run = self::run(&plain(1).damping(1.0).climb(0.8), &[false]);
    run.window(still(1.0));
    assert_eq!(run.window(along(1.0, 0.9999)), (100.0 * RATE, Outcome::Capped));
}

#[test]
fn what_is_lost_in_rounding_raises_the_rate() {
    // Weights of norm 1, and K·ε of noise: √1 · 1e-3/2.
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.host.norms = vec![1.0];
    let (rate, outcome) = run.window(still(1e-10));
    assert_eq!((rate, outcome), (1.0, Outcome::Raised), "a hundredfold, but no more than 1");
    assert_eq!(run.log(), "snapshot Weights; snapshot Buffers; update; end; norms");
    let mut low = run_from(1e-6, &plain(1).climb(0.8), &[false]);
    low.host.norms = vec![1.0];
    close(low.window(still(1e-10)).0, 1e-4);
    // At 1 it is not raised, however little it moves.
    assert_eq!(run.window(still(1e-10)).1, Outcome::WarmingUp);
}

#[test]
fn rounding_ends_where_a_window_moves_further() {
    let noise = 2.0_f64.sqrt() * 1e-3 / 2.0;
    for (moved, raised) in [(0.49e-3, Some(1e-3 / 0.49e-3)), (0.51e-3, None), (noise, None)] {
        let config = plain(2).climb(0.8).max_factor(100.0);
        let mut run = run(&config, &[false]);
        run.host.norms = vec![1.0];
        run.host.windows.push_back(vec![still(moved * moved)]);
        run.steps(&[1.0, 1.0]);
        match raised {
            Some(by) => close(run.rate(), (RATE * by).min(1.0)),
            None => assert_eq!(run.rate(), RATE),
        }
    }
}

#[test]
fn weights_that_have_not_moved_raise_a_rate_that_could_move_them() {
    for (movable, rate) in [(vec![true], 1.0), (vec![false], RATE), (vec![], RATE)] {
        let mut run = run(&plain(1).climb(0.8), &[false]);
        run.host.movable = movable;
        assert_eq!(run.window(still(0.0)).0, rate);
        assert!(run.log().ends_with("end; movable; norms"));
    }
    // Not of a layer with a fixed rate, not without a climb, and not where a schedule holds the weights still.
    let mut fixed_rate = run(&plain(1).climb(0.8), &[true]);
    fixed_rate.host.movable = vec![true];
    assert_eq!(fixed_rate.window(still(0.0)), (RATE, Outcome::Kept(KeptBecause::FixedRate)));
    let mut without = run(&plain(1), &[false]);
    without.window(still(0.0));
    assert!(without.log().ends_with("end"));
    let mut held = run(&plain(1).climb(0.8), &[false]);
    held.engine.set_schedule(Some(Schedule::from_fn(|_| 0.5)));
    held.window(still(0.0));
    assert!(held.log().ends_with("end"));
}

// ---- The safeguard ----

#[test]
fn one_broken_batch_is_skipped_and_two_undo_the_window() {
    let mut run = run(&guarded(8), &[false]);
    run.steps(&[1.0, 1.0]);
    run.log();
    assert_eq!(run.step(f64::NAN), Step::Skipped(Cause::NonFiniteLoss));
    assert_eq!((run.log().as_str(), run.engine.steps()), ("skip", 3));
    assert_eq!(run.step(1.0), Step::Made);
    assert_eq!(run.step(f64::INFINITY), Step::Skipped(Cause::NonFiniteLoss));
    run.log();
    let Step::RolledBack { cause, decisions } = run.step(f64::NAN) else { panic!("no rollback") };
    assert_eq!((cause, run.log().as_str()), (Cause::NonFiniteLoss, "check; back Last"));
    assert_eq!(decisions[0].outcome, Outcome::RolledBack(cause));
    // No window has been accepted: the first cut, and its square.
    close(run.rate(), RATE * 0.1);
    run.step(1.0);
    run.steps(&[f64::NAN, f64::NAN]);
    close(run.rate(), RATE * 0.1 * 0.01);
}

#[test]
fn at_the_snapshot_itself_the_rate_is_not_to_blame() {
    let mut run = run(&guarded(8), &[false]);
    assert_eq!(run.step(f64::NAN), Step::Skipped(Cause::NonFiniteLoss));
    assert!(matches!(run.step(f64::NAN), Step::RolledBack { .. }));
    assert_eq!(run.rate(), RATE);
    assert_eq!(run.engine.steps(), 2);
}

#[test]
fn an_explosion_is_half_as_much_again_as_the_start() {
    for (loss, skipped) in [(1.49, false), (1.51, true)] {
        let mut run = run(&guarded(100), &[false]);
        run.step(1.0);
        let expected = if skipped { Step::Skipped(Cause::LossExploded) } else { Step::Made };
        assert_eq!(run.step(loss), expected);
        if skipped {
            // In a row with one that is not finite.
            assert!(matches!(run.step(f64::NAN), Step::RolledBack { .. }));
        }
    }
    // Below zero the limit goes up as well.
    let mut run = run(&guarded(100), &[false]);
    run.step(-1.0);
    assert_eq!(run.step(-0.51), Step::Made);
    assert_eq!(run.step(-0.49), Step::Skipped(Cause::LossExploded));
}

#[test]
fn after_good_windows_an_explosion_is_measured_by_the_largest_loss() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0, 1.4, 1.0, 1.0]);
    assert_eq!(run.step(2.0), Step::Made);
    assert_eq!(run.steps(&[2.11]), Step::Skipped(Cause::LossExploded));
}

#[test]
fn a_doomed_window_is_undone_before_it_ends() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0; 4]);
    // The limit is 1.1 of the mean before, but the start is the ceiling: 1. At best (1.2·4 + 0)/4 =
    // 1.2.
    assert_eq!(run.steps(&[1.2, 1.2, 1.2]), Step::Made);
    run.log();
    let Step::RolledBack { cause: Cause::LossIncreased, .. } = run.step(1.2) else {
        panic!("not undone");
    };
    // Its start was above the limit, so it goes one further back.
    assert_eq!(run.log(), "check; back BeforeLast");
    close(run.rate(), RATE * 0.5);
}

// Only the loss of a whole step, and only that at the snapshot, speaks for it.
#[test]
fn a_snapshot_is_confirmed_by_the_loss_there() {
    let mut later = run(&guarded(4), &[false]);
    later.steps(&[1.0; 4]);
    later.steps(&[1.2, 0.9, 1.45]);
    later.log();
    assert!(matches!(later.step(1.46), Step::RolledBack { .. }));
    assert_eq!(later.log(), "check; back BeforeLast");
    let mut gathered = run(&guarded(4), &[false]);
    gathered.steps(&[1.0; 4]);
    gathered.batch(0.9, true).unwrap();
    gathered.batch(1.6, false).unwrap();
    gathered.step(1.3);
    gathered.log();
    assert!(matches!(gathered.step(1.5), Step::RolledBack { .. }));
    assert_eq!(gathered.log(), "check; back BeforeLast");
}

#[test]
fn a_snapshot_with_a_good_loss_is_gone_back_to() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0; 4]);
    run.steps(&[0.9, 1.4, 1.4]);
    run.log();
    assert!(matches!(run.step(1.4), Step::RolledBack { .. }));
    assert_eq!(run.log(), "check; back Last");
}

#[test]
fn the_limit_has_room_for_noise() {
    // Differences of ±2 in a window of four: deviation √(12/6), standard error half of it.
    let first = [4.0, 2.0, 4.0, 2.0];
    let (deviation, mean) = (2f64.sqrt(), 3.0);
    let ceiling = 4.0 + 3.0 * deviation;
    let limit = 1.1 * mean + 3.0 * SQRT_2 * deviation / 2.0;
    assert!(limit < ceiling);
    for (loss, undone) in [(limit - 0.01, false), (limit + 0.01, true)] {
        let safeguard = Safeguard::default().explosion(10.0);
        let mut run = run(&plain(4).safeguard(safeguard), &[false]);
        run.steps(&first);
        let last = run.steps(&[loss; 4]);
        assert_eq!(matches!(last, Step::RolledBack { .. }), undone, "{loss}");
    }
}

#[test]
fn hopeless_by_one_loss_alone_is_that_batch() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[8.0, 8.0, 8.0, 8.0]);
    run.steps(&[1.0; 4]);
    run.step(1.0);
    // Not beyond the start, but of four losses one of 8 is a mean of 2.25 at least.
    assert_eq!(run.step(8.0), Step::Skipped(Cause::LossIncreased));
    assert!(matches!(run.step(8.0), Step::RolledBack { cause: Cause::LossIncreased, .. }));
}

// After a rollback the level is no less than the mean of the losses at the snapshot. The first window has a mean of
// 3.5 and a standard error of √1.5, so a limit of 3.85 + 3√3, which is 9.05. What explodes does not move it.
#[test]
fn losses_at_the_snapshot_are_the_level_after_a_rollback() {
    let undone = |at_snapshot: &[f64], window: [f64; 4]| {
        let mut run = run(&guarded(4), &[false]);
        run.steps(&[8.0, 2.0, 2.0, 2.0]);
        assert!(matches!(run.steps(&[3.0, 11.9, 11.9, 11.9]), Step::RolledBack { .. }));
        at_snapshot.iter().for_each(|loss| drop(run.step(*loss)));
        matches!(run.steps(&window), Step::RolledBack { .. })
    };
    // The losses at the snapshot are 3 and 3, or 3 and 9: a limit of 9.05, or of 11.8.
    assert!(undone(&[], [3.0, 12.0, 12.0, 12.0]));
    assert!(!undone(&[], [9.0, 11.0, 11.0, 11.0]));
    // One that explodes there is the batch's doing.
    assert!(undone(&[13.0], [3.0, 12.0, 12.0, 12.0]));
    // What three losses there agree on is the snapshot's level, also above where training began.
    assert!(!undone(&[13.0, 13.0, 13.0, 13.0], [13.0, 13.0, 13.0, 13.0]));
}

// Before a window has been accepted, the losses there are all there is to go by: 1, 2 and 1.6.
#[test]
fn at_first_every_loss_at_the_snapshot_counts() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0, f64::NAN, f64::NAN]);
    // In a row with two that were not finite, so that it is not skipped.
    assert!(matches!(run.step(2.0), Step::RolledBack { cause: Cause::LossExploded, .. }));
    assert!(matches!(run.steps(&[1.6; 4]), Step::WindowEnded { .. }));
}

// A step without a loss is not one whose loss is 0.
#[test]
fn losses_may_be_left_out() {
    let mut run = run(&guarded(2), &[false]);
    for loss in [None, None, None, Some(5.0), Some(5.0)] {
        let step = drive(&mut run.engine, &mut run.host, loss, false).unwrap();
        assert!(matches!(step, Step::Made | Step::WindowEnded { .. }), "{loss:?}: {step:?}");
    }
}

// Three losses say nothing of noise.
#[test]
fn fewer_than_four_losses_have_no_noise() {
    let safeguard = Safeguard::default().explosion(10.0);
    for (length, undone) in [(3, true), (4, false)] {
        let mut run = run(&plain(length).safeguard(safeguard), &[false]);
        run.steps(&[4.0, 2.0, 4.0, 2.0][..length]);
        // Above 1.1 of the mean, and within the noise of four.
        let last = run.steps(&vec![3.9; length]);
        assert_eq!(matches!(last, Step::RolledBack { .. }), undone, "{length}");
    }
}

#[test]
fn each_number_of_the_safeguard_does_what_it_says() {
    let default = Safeguard::default;
    let undone = |safeguard: Safeguard, losses: &[f64]| {
        let mut run = run(&plain(4).safeguard(safeguard), &[false]);
        run.steps(&[4.0, 3.0, 3.0, 3.0]);
        let rolled_back = matches!(run.steps(losses), Step::RolledBack { .. });
        rolled_back.then(|| run.rate() / RATE)
    };
    // A mean of 3.25 and a deviation of √(1/6), so a limit of 3.575 + 0.866.
    assert_eq!(undone(default(), &[3.6; 4]), None);
    assert_eq!(undone(default().sems(0.0), &[3.6; 4]), Some(0.5));
    assert_eq!(undone(default().sems(0.0).tolerance(0.2), &[3.6; 4]), None);
    assert_eq!(undone(default().sems(0.0).cut(0.25), &[3.6; 4]), Some(0.25));
    let mut first = run(&plain(4).safeguard(default().first_cut(0.125)), &[false]);
    first.steps(&[1.0, f64::NAN, f64::NAN]);
    close(first.rate(), RATE * 0.125);
    // Trusted after one good window in place of five.
    let mut trusting = run(&plain(4).safeguard(default().sems(0.0).trust(1)), &[false]);
    trusting.steps(&[4.0, 3.0, 3.0, 3.0]);
    trusting.steps(&[4.0, 3.0, 3.0, 3.0]);
    trusting.steps(&[3.0, 4.0, 4.0, 4.0]);
    close(trusting.rate(), RATE * 0.5);
    trusting.steps(&[3.0; 4]);
    assert_eq!(trusting.rate(), RATE);
}

#[test]
fn weights_that_are_not_finite_are_the_gradients_fault_once() {
    let mut run = run(&guarded(2), &[false]);
    run.steps(&[1.0, 1.0]);
    run.host.broken = true;
    let Step::RolledBack { cause: Cause::NonFiniteWeights, .. } = run.steps(&[1.0, 1.0]) else {
        panic!("not undone");
    };
    assert_eq!(run.rate(), RATE);
    assert!(run.log().ends_with("end; back Last"));
    run.steps(&[1.0, 1.0]);
    close(run.rate(), RATE * 0.5);
    // Before a window was good, they are the rate's.
    let mut first = self::run(&guarded(1), &[false]);
    first.host.broken = true;
    first.step(1.0);
    close(first.rate(), RATE * 0.1);
    // Found by a loss.
    let mut by_loss = self::run(&guarded(8), &[false]);
    by_loss.step(1.0);
    by_loss.host.unfinished = true;
    let undone = by_loss.steps(&[f64::NAN, f64::NAN]);
    assert!(matches!(undone, Step::RolledBack { cause: Cause::NonFiniteWeights, .. }));
    close(by_loss.rate(), RATE * 0.1);
}

#[test]
fn a_cut_after_five_good_windows_is_on_probation() {
    let trusted = |good: usize, then: &[f64]| {
        let mut run = run(&guarded(4), &[false]);
        (0..good).for_each(|_| drop(run.steps(&[1.0; 4])));
        run.steps(&[0.9, 1.4, 1.4, 1.4]);
        close(run.rate(), RATE * 0.5);
        run.steps(then);
        (run.rate(), run.engine.history().last().unwrap().outcome)
    };
    assert_eq!(trusted(5, &[1.0; 4]), (RATE, Outcome::CutReverted));
    assert_eq!(trusted(4, &[1.0; 4]), (RATE * 0.5, Outcome::WarmingUp));
    let (again, outcome) = trusted(5, &[1.0, 1.4, 1.4, 1.4]);
    close(again, RATE * 0.5 * 0.25);
    assert_eq!(outcome, Outcome::RolledBack(Cause::LossIncreased));
}

#[test]
fn a_rate_that_has_just_risen_is_not_given_back() {
    for (factor, given_back) in [(1.2, true), (1.3, false)] {
        let mut run = run(&guarded(4).damping(1.0).max_factor(factor), &[false]);
        (0..5).for_each(|_| drop(run.steps(&[1.0; 4])));
        run.host.windows.push_back(vec![along(1.0, 0.99)]);
        run.steps(&[1.0; 4]);
        close(run.rate(), RATE * factor);
        run.steps(&[0.9, 1.4, 1.4, 1.4]);
        run.steps(&[1.0; 4]);
        close(run.rate(), RATE * factor * if given_back { 1.0 } else { 0.5 });
    }
}

// At the limit, by hand: a loss of 1.5 after windows of 1 has increased, and more has exploded.
#[test]
fn a_loss_at_the_limit_of_an_explosion_has_only_increased() {
    let after = |loss| {
        let mut run = run(&guarded(1), &[false]);
        run.steps(&[1.0, 1.0]);
        run.step(loss)
    };
    let increased =
        |step: &Step| matches!(step, Step::RolledBack { cause: Cause::LossIncreased, .. });
    assert!(increased(&after(1.5)));
    assert!(matches!(after(1.5 + 1e-9), Step::Skipped { .. }));
}

#[test]
fn a_rollback_ends_the_climb_once_windows_were_good() {
    for (good, climbs) in [(0, true), (1, false)] {
        let mut run = run(&guarded(4).climb(0.8), &[false]);
        (0..good).for_each(|_| drop(run.steps(&[1.0; 4])));
        run.steps(&[0.9, f64::NAN, f64::NAN]);
        run.steps(&[0.9; 4]);
        run.host.windows.push_back(vec![along(1.0, 0.9)]);
        run.steps(&[0.9; 4]);
        let outcome = run.engine.history().last().unwrap().outcome;
        assert_eq!(outcome == Outcome::Climbed, climbs, "{outcome}");
    }
}

#[test]
fn a_fixed_rate_is_not_cut() {
    let mut run = run(&guarded(4), &[true, false]);
    run.steps(&[1.0, f64::NAN, f64::NAN]);
    let rates: Vec<_> = run.engine.rates().map(|(_, rate)| rate).collect();
    assert_eq!(rates, [RATE, RATE * 0.1]);
}

#[test]
fn too_many_rollbacks_are_an_error_and_not_the_end() {
    let safeguard = Safeguard::default().max_rollbacks(2);
    let mut run = run(&guarded(4).safeguard(safeguard), &[false]);
    run.steps(&[1.0, f64::NAN, f64::NAN]);
    run.steps(&[1.0, f64::NAN]);
    let Err(StepError::Engine(error)) = run.batch(f64::NAN, false) else { panic!("no error") };
    let Error::TooManyRollbacks { count: 2, step: 6, cause: Cause::NonFiniteLoss } = error else {
        panic!("{error}");
    };
    let one = Error::TooManyRollbacks { count: 1, step: 6, cause: Cause::NonFiniteLoss };
    assert!(error.to_string().starts_with("2 rollbacks without"), "{error}");
    assert!(one.to_string().starts_with("1 rollback without"), "{one}");
    assert!(matches!(run.steps(&[1.0; 4]), Step::WindowEnded { .. }));
    // Counted anew after a good window.
    run.steps(&[1.0, f64::NAN, f64::NAN]);
}

// As if new: from the same rates, by the level of the next loss, and climbing again.
#[test]
fn a_reset_begins_anew_at_the_weights_as_they_are() {
    let mut run = run(&guarded(4).climb(0.8), &[false, true]);
    let two = || vec![still(1.0), still(1.0)];
    run.host.windows = [two(), two(), two()].into();
    run.steps(&[1.0; 6]);
    run.batch(1.0, true).unwrap();
    run.steps(&[f64::NAN, f64::NAN]);
    close(run.rate(), RATE * 0.5);
    run.step(1.0);
    let (steps, decisions) = (run.engine.steps(), run.engine.history().len());
    let fresh = self::run(&guarded(4).climb(0.8), &[false, true]);
    run.engine.reset();
    assert_eq!((run.engine.steps(), run.engine.history().len()), (steps, decisions));
    let forget = |engine: &Engine<NewtonRule>| {
        let mut state = serde_json::to_value(engine.state()).unwrap();
        state["steps"] = 0.into();
        state["level_from"] = 0.into();
        state["history"] = serde_json::json!([]);
        state
    };
    assert_eq!(forget(&run.engine), forget(&fresh.engine));
    // A loss that would have exploded is the new level.
    run.log();
    assert_eq!(run.step(100.0), Step::Made);
    assert_eq!(run.log(), "snapshot Weights; snapshot Buffers; update");
}

// ---- Schedules ----

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

// ---- Saved and loaded ----

#[test]
fn a_state_that_cannot_have_been_is_refused() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0; 9]);
    let good = serde_json::to_value(run.engine.state()).unwrap();
    let mut resumed = |path: &str, value: serde_json::Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(path).unwrap() = value;
        run.engine.resume(serde_json::from_value(changed).unwrap()).is_ok()
    };
    assert!(resumed("/steps", 5.into()));
    for (path, value) in [
        ("/steps", serde_json::json!(1u64 << 53)),
        ("/position", serde_json::json!(10)),
        ("/gathered/count", serde_json::json!(1u64 << 53)),
        ("/groups", serde_json::json!([])),
        ("/groups/0/rate", serde_json::json!(1e31)),
        ("/groups/0/previous/rate", serde_json::json!(0.0)),
        ("/groups/0/previous/factor", serde_json::json!("-inf")),
        ("/groups/0/start", serde_json::json!("NaN")),
        ("/factors", serde_json::json!("NaN")),
        ("/groups/0/before_cut", serde_json::json!(-1.0)),
        ("/watch/good", serde_json::json!((1u64 << 53) + 1)),
        ("/watch/rollbacks", serde_json::json!((1u64 << 53) + 1)),
        ("/watch/cuts", serde_json::json!(-1)),
        ("/watch/window/count", serde_json::json!((1u64 << 53) + 1)),
        ("/watch/origin/count", serde_json::json!((1u64 << 53) + 1)),
        ("/watch/accepted/count", serde_json::json!((1u64 << 53) + 1)),
    ] {
        assert!(!resumed(path, value), "{path}");
    }
}

// The same in the middle of a step, at each request. Fails if one of the checks of a phase is left out,
// or turned round.
#[test]
fn a_phase_that_cannot_have_been_is_refused() {
    let too_many = || serde_json::json!((1u64 << 53) + 1);
    let step = [
        ("/factor", serde_json::json!(-1.0)),
        ("/factor", serde_json::json!("inf")),
        ("/gathered/count", too_many()),
        ("/watch/good", too_many()),
        ("/ramp/steps", serde_json::json!(5000)),
    ];
    let rollback = [("/watch/good", too_many()), ("/ramp/steps", serde_json::json!(5000))];
    let window = [("/factor", serde_json::json!(-1.0)), ("/products", serde_json::json!([]))];

    let config = NewtonConfig::default().window(Window::steps(1).unwrap());
    let mut seen = Vec::new();
    for config in [config, config.ramp(false), guarded(1).climb(0.8)] {
        let mut run = run(&config, &[false]);
        let mut other = self::run(&config, &[false]);
        for loss in [1.0, 1.0, 1.0, 1.0, f64::NAN, f64::NAN, 1.0, 9.0, 9.0] {
            let begins = Event::Batch { loss: Some(loss), only_gathers: false };
            let mut request = run.engine.tell(begins).unwrap();
            loop {
                let good = serde_json::to_value(run.engine.state()).unwrap();
                let resumed = |engine: &mut Engine<NewtonRule>, state: &serde_json::Value| {
                    engine.resume(serde_json::from_value(state.clone()).unwrap()).is_ok()
                };
                assert!(resumed(&mut other.engine, &good), "{request:?}");
                let event = match request {
                    Request::TakeSnapshot(_) => Event::SnapshotTaken,
                    Request::CheckWeights => Event::WeightsChecked { finite: true },
                    Request::MeasureSlopes(_) => {
                        let slope =
                            Slope { gradient: 1.0, norm: 1.0, weights: 1, ..Slope::default() };
                        Event::Slopes(vec![slope])
                    }
                    Request::Update => Event::Updated,
                    Request::Skip { .. } => Event::Skipped,
                    Request::EndWindow => Event::WindowEnded(vec![along(1.0, 1.0)]),
                    Request::TellMovable => Event::Movable(vec![true]),
                    Request::MeasureNorms => Event::Norms(vec![1.0]),
                    Request::GoBack(_) => Event::WentBack,
                    Request::Done(_) => break,
                };
                let (name, inner) = match &good["phase"] {
                    serde_json::Value::Object(phase) => {
                        let (name, inner) = phase.iter().next().unwrap();
                        (name.clone(), inner)
                    }
                    phase => panic!("{phase} for {event:?}"),
                };
                let (place, changes) = match name.as_str() {
                    "GoingBack" => ("", &rollback[..]),
                    "Weighing" => ("", &window[..]),
                    "EndingWindow" => ("", &[][..]),
                    _ if inner.is_array() => ("/0", &step[..]),
                    _ => ("", &step[..]),
                };
                for (field, value) in changes {
                    let mut changed = good.clone();
                    // A ramp is there only while it lasts.
                    let Some(old) = changed.pointer_mut(&format!("/phase/{name}{place}{field}"))
                    else {
                        assert!(field.starts_with("/ramp"), "{name}{field}");
                        continue;
                    };
                    *old = value.clone();
                    assert!(!resumed(&mut other.engine, &changed), "{name}{field}");
                    seen.push(format!("{name}{field}"));
                }
                request = run.engine.tell(event).unwrap();
            }
        }
    }
    for name in
        ["Updating/ramp/steps", "Weighing/products", "GoingBack/watch/good", "Skipping/factor"]
    {
        assert!(seen.iter().any(|seen| seen == name), "{name} of {seen:?}");
    }
}
