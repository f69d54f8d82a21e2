//! A state that is saved and loaded: what cannot have been is refused, in and between steps.

use super::{along, guarded, run};
use tlr::{engine::*, Error};

/// Fails if a state with another figure at `path` was taken, or if the error names another one.
fn assert_names(path: &str, resumed: Result<(), Error>) {
    let Err(Error::ImpossibleState { figure }) = resumed else { panic!("{path}: {resumed:?}") };
    let parts = path.split('/').filter(|part| !part.is_empty() && part.parse::<u8>().is_err());
    let path = parts.collect::<Vec<_>>().join(".");
    // What a step under way will leave is called like what is there already.
    let named = [format!("phase.{figure}"), figure.to_owned()];
    assert!(named.iter().any(|named| path.starts_with(named)), "{figure} for {path}");
}

#[test]
fn a_state_that_cannot_have_been_is_refused() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0; 9]);
    let good = serde_json::to_value(run.engine.state()).unwrap();
    let mut resumed = |path: &str, value: serde_json::Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(path).unwrap() = value;
        run.engine.resume(serde_json::from_value(changed).unwrap())
    };
    assert_eq!(resumed("/steps", 5.into()), Ok(()));
    let nan = || serde_json::json!("nan:7ff8000000000000");
    for (path, value) in [
        ("/steps", serde_json::json!(1u64 << 53)),
        ("/position", serde_json::json!(10)),
        // Within the steps so far, and not within a window of four.
        ("/position", serde_json::json!(4)),
        ("/gathered/batches", serde_json::json!((1u64 << 53) + 1)),
        ("/gathered/losses", serde_json::json!(1)),
        ("/groups", serde_json::json!([])),
        ("/groups/0/rate", serde_json::json!(1e31)),
        ("/groups/0/previous/rate", serde_json::json!(0.0)),
        ("/groups/0/previous/factor", serde_json::json!("-inf")),
        ("/groups/0/start_rate", serde_json::json!("nan:7ff8000000000000")),
        ("/factors", serde_json::json!("nan:7ff8000000000000")),
        ("/groups/0/before_cut", serde_json::json!(-1.0)),
        ("/groups/0/highest", serde_json::json!(-1.0)),
        ("/groups/0/highest", serde_json::json!(1e31)),
        ("/watch/accepted_in_a_row", serde_json::json!((1u64 << 53) + 1)),
        ("/watch/rollbacks", serde_json::json!((1u64 << 53) + 1)),
        ("/watch/cuts", serde_json::json!(-1)),
        ("/watch/window/count", serde_json::json!((1u64 << 53) + 1)),
        ("/watch/origin/count", serde_json::json!((1u64 << 53) + 1)),
        ("/watch/accepted/count", serde_json::json!((1u64 << 53) + 1)),
        // No loss that was counted was anything but finite.
        ("/watch/accepted/mean", nan()),
        ("/watch/accepted/mean", serde_json::json!("inf")),
        ("/watch/accepted/last", nan()),
        ("/watch/accepted/min", serde_json::json!(2.0)),
        ("/watch/accepted/max", serde_json::json!("inf")),
        ("/watch/accepted/squared_differences", nan()),
        ("/watch/accepted/squared_differences", serde_json::json!(-1.0)),
        ("/watch/accepted/count", serde_json::json!(0)),
        ("/watch/at_snapshot", serde_json::json!(["-inf"])),
        ("/watch/ceiling", nan()),
        ("/watch/start_loss", nan()),
        ("/watch/gradient", serde_json::json!(-1.0)),
        ("/watch/last_gradient", nan()),
    ] {
        assert_names(path, resumed(path, value));
    }
}

// The same in the middle of a step, at each request. Fails if one of the checks of a phase is left
// out, or turned round.
#[test]
fn a_phase_that_cannot_have_been_is_refused() {
    let too_many = || serde_json::json!((1u64 << 53) + 1);
    let slope = || Slope { gradient: 1.0, norm: 1.0, weights: 1, ..Slope::default() };
    // There is one group.
    let two = || serde_json::to_value([slope(), slope()]).unwrap();
    let step = [
        ("/factor", serde_json::json!(-1.0)),
        ("/factor", serde_json::json!("inf")),
        ("/gathered/batches", too_many()),
        ("/watch/accepted_in_a_row", too_many()),
        ("/ramp/steps", serde_json::json!(5000)),
        ("/ramp/groups/0/raised", serde_json::json!(0.0)),
        ("/ramp/groups/0/unconfirmed", serde_json::json!("nan:7ff8000000000000")),
        ("/slopes", two()),
    ];
    let rollback = [
        ("/watch/accepted_in_a_row", too_many()),
        ("/ramp/steps", serde_json::json!(5000)),
        ("/ramp/groups/0/raised", serde_json::json!(0.0)),
        ("/ramp/groups/0/unconfirmed", serde_json::json!("nan:7ff8000000000000")),
        ("/guilty", serde_json::json!([true, true])),
    ];
    let window = [
        ("/factor", serde_json::json!(-1.0)),
        ("/products", serde_json::json!([])),
        ("/slopes", two()),
        ("/movable", serde_json::json!([true, true])),
    ];

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
                    engine.resume(serde_json::from_value(state.clone()).unwrap())
                };
                assert_eq!(resumed(&mut other.engine, &good), Ok(()), "{request:?}");
                let event = match request {
                    Request::TakeSnapshot(_) => Event::SnapshotTaken,
                    Request::CheckWeights => Event::WeightsChecked { finite: true },
                    Request::MeasureSlopes(_) => Event::Slopes(vec![slope()]),
                    Request::Update => Event::Updated,
                    Request::ClearOptimizer => Event::OptimizerCleared,
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
                let of_phase = |(field, value): &(&str, _)| {
                    (format!("/phase/{name}{place}{field}"), serde_json::Value::clone(value))
                };
                let mut changes: Vec<_> = changes.iter().map(of_phase).collect();
                // A window ends with its last step, and the next begins where it is weighed.
                match name.as_str() {
                    "EndingWindow" => {
                        changes.push(("/position".to_owned(), 0.into()));
                        changes.push(("/phase/EndingWindow".to_owned(), two()));
                    }
                    "Checking" => {
                        changes.push((
                            "/phase/Checking/2".to_owned(),
                            serde_json::json!([true, true]),
                        ));
                    }
                    "Weighing" => changes.push(("/position".to_owned(), 1.into())),
                    _ => (),
                }
                for (field, value) in changes {
                    let mut changed = good.clone();
                    // A ramp is there only while it lasts.
                    let Some(old) = changed.pointer_mut(&field) else {
                        assert!(field.contains("/ramp"), "{field}");
                        continue;
                    };
                    *old = value;
                    // Without the phase's name, which no figure has.
                    let path = field.replace(&format!("/{name}"), "");
                    assert_names(&path, resumed(&mut other.engine, &changed));
                    seen.push(field);
                }
                request = run.engine.tell(event).unwrap();
            }
        }
    }
    for name in [
        "/phase/Updating/ramp/steps",
        "/phase/Updating/ramp/groups/0/raised",
        "/phase/Updating/ramp/groups/0/unconfirmed",
        "/phase/Updating/slopes",
        "/phase/EndingWindow",
        "/phase/Checking/2",
        "/phase/GoingBack/guilty",
        "/phase/Weighing/slopes",
        "/phase/Weighing/movable",
        "/phase/Weighing/products",
        "/phase/GoingBack/watch/accepted_in_a_row",
        "/phase/Skipping/0/factor",
        "/position",
    ] {
        assert!(seen.iter().any(|seen| seen == name), "{name} of {seen:?}");
    }
}

// A window that could not be ended goes on, beyond its length, and its state can be resumed. Fails
// if no place beyond the window is taken; or if every one is, for nothing else can be known there
// of a direction before.
#[test]
fn a_window_that_could_not_be_ended_is_beyond_its_length() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0; 8]);
    run.host.fails_at = Some("end");
    let failed = |run: &mut super::Run<NewtonRule>| run.batch(1.0, false).is_err();
    let all: Vec<_> = (0..6).map(|_| failed(&mut run)).collect();
    assert_eq!(all, [false, false, false, true, true, true]);
    let state = run.engine.state().clone();
    run.engine.resume(state.clone()).unwrap();
    let mut changed = serde_json::to_value(state).unwrap();
    assert_eq!(changed["position"], 6);
    changed["snapshot"] = "Unconfirmed".into();
    let refused = run.engine.resume(serde_json::from_value(changed).unwrap());
    assert_eq!(refused, Err(Error::ImpossibleState { figure: "position" }));
}

// The end of a short window, in an engine whose window has no end. Fails if the sum of the two
// overflows.
#[test]
fn an_end_is_not_within_the_longest_window() {
    let mut short = run(&guarded(1), &[false]);
    let begins = Event::Batch { loss: Some(1.0), only_gathers: false };
    let mut request = short.engine.tell(begins).unwrap();
    while !matches!(request, Request::EndWindow) {
        request = short
            .engine
            .tell(match request {
                Request::TakeSnapshot(_) => Event::SnapshotTaken,
                Request::Update => Event::Updated,
                other => panic!("{other:?}"),
            })
            .unwrap();
    }
    let mut long = run(&guarded(usize::MAX), &[false]);
    let refused = long.engine.resume(short.engine.state().clone());
    assert_eq!(refused, Err(Error::ImpossibleState { figure: "position" }));
}
