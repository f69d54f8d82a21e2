//! Every number that a configuration takes: its range, by the error that names it, and what it
//! does.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use tlr::{engine::*, Error};

fn made<R: RateRule>(config: Config<R>) -> Result<Engine<R>, Error> {
    around(config, 0.0)
}

/// An engine around an optimizer with this momentum.
fn around<R: RateRule>(config: Config<R>, momentum: f64) -> Result<Engine<R>, Error> {
    let groups = vec![Group { name: "model".into(), fixed_rate: false, rate: 0.1 }];
    Engine::new(config, groups, HostFacts { momentum, epsilon: f64::EPSILON })
}

fn refused<R: RateRule>(config: Config<R>) -> Error {
    made(config).map(drop).unwrap_err()
}

/// The message of an error names all of `parts`.
fn tells(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} in {message:?}");
}

/// That `what` cannot be `value`.
fn is_out_of_range(error: &Error, what: &str, value: f64) -> bool {
    matches!(error, Error::OutOfRange { what: named, value: found, .. }
        if *named == what && found.to_bits() == value.to_bits())
}

/// Numbers that no setting may be.
const NEVER: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

#[test]
fn damping() {
    let with = |damping| made(NewtonConfig::default().damping(damping)).map(drop);
    for bad in [0.0, -0.33, 1.0 + f64::EPSILON].into_iter().chain(NEVER) {
        let error = with(bad).unwrap_err();
        assert!(is_out_of_range(&error, "damping", bad));
        tells(&error, &["(0, 1]", "0.33"]);
    }
    for good in [f64::MIN_POSITIVE, 0.33, 1.0] {
        with(good).unwrap();
    }
}

#[test]
fn max_factor() {
    let with = |factor| made(NewtonConfig::default().max_factor(factor)).map(drop);
    for bad in [0.0, 1.0, -2.0].into_iter().chain(NEVER) {
        let error = with(bad).unwrap_err();
        assert!(is_out_of_range(&error, "max_factor", bad));
        tells(&error, &["above 1", "100"]);
    }
    with(1.0 + f64::EPSILON).unwrap();
}

#[test]
fn meta_learning_rate() {
    for bad in [0.0, -1e-3].into_iter().chain(NEVER) {
        for rule in [HypergradientRule::additive(bad), HypergradientRule::multiplicative(bad)] {
            let error = refused(HypergradientConfig::new(rule));
            assert!(is_out_of_range(&error, "meta_lr", bad));
            tells(&error, &["above 0"]);
        }
    }
    let rule = HypergradientRule::additive(1e-3).max_factor(1.0);
    let error = refused(HypergradientConfig::new(rule));
    assert!(is_out_of_range(&error, "max_factor", 1.0));
    made(HypergradientConfig::new(HypergradientRule::additive(1e-3))).unwrap();
}

#[test]
fn windows() {
    for bad in [0.0, -0.2, 1.0 + f64::EPSILON].into_iter().chain(NEVER) {
        for window in [Window::fraction(bad), Window::fraction_of_epoch(bad, 100)] {
            let error = window.unwrap_err();
            assert!(is_out_of_range(&error, "the fraction of an epoch in a window", bad));
            tells(&error, &["(0, 1]", "0.2"]);
        }
    }
    assert_eq!(Window::fraction_of_epoch(1.0, 100).unwrap().len(), 100);
    assert_eq!(Window::fraction_of_epoch(f64::MIN_POSITIVE, 100).unwrap().len(), 1);

    let no_steps = Window::steps(0).unwrap_err();
    tells(&no_steps, &["steps of a window must be at least 1"]);
    let no_batches = Window::fraction_of_epoch(0.2, 0).unwrap_err();
    tells(&no_batches, &["batches of an epoch must be at least 1", "optimizer steps in an epoch"]);
    let told_later = [Window::fraction(0.2).unwrap(), Window::steps(3).unwrap()]
        .map(|window| refused(NewtonConfig::default().window(window).batches_per_epoch(0)));
    assert_eq!(told_later, [no_batches.clone(), no_batches]);
}

#[test]
fn safeguards() {
    let default = Safeguard::default;
    let above_one = [1.0, 0.5, -2.0];
    let fractions = [0.0, 1.0, -0.5];
    let not_negative = [-1e-9, -1.0, -3.0];
    type With = fn(f64) -> Safeguard;
    let fields: [(&str, [f64; 3], With); 5] = [
        ("tolerance", not_negative, |tolerance| Safeguard::default().tolerance(tolerance)),
        ("standard_errors", not_negative, |standard_errors| {
            Safeguard::default().standard_errors(standard_errors)
        }),
        ("explosion", above_one, |explosion| Safeguard::default().explosion(explosion)),
        ("first_cut", fractions, |first_cut| Safeguard::default().first_cut(first_cut)),
        ("cut", fractions, |cut| Safeguard::default().cut(cut)),
    ];
    let with = |safeguard: Safeguard| made(NewtonConfig::default().safeguard(safeguard)).map(drop);
    for (name, out_of_range, safeguard) in fields {
        for bad in out_of_range.into_iter().chain(NEVER) {
            let error = with(safeguard(bad)).unwrap_err();
            let name_of_all = format!("safeguard.{name}");
            assert!(matches!(error, Error::OutOfRange { what, .. } if what == name_of_all));
            tells(&error, &[name]);
        }
    }
    let just_right = default()
        .tolerance(0.0)
        .standard_errors(0.0)
        .explosion(1.0 + f64::EPSILON)
        .first_cut(f64::MIN_POSITIVE)
        .cut(1.0 - f64::EPSILON)
        .trust(1)
        .max_rollbacks(1);
    with(just_right).unwrap();
    for bad in [Safeguard::default().trust(0), Safeguard::default().max_rollbacks(0)] {
        tells(&refused(NewtonConfig::default().safeguard(bad)), &["at least 1"]);
    }
    for bad in [0.0, 0.5, 1.0].into_iter().chain(NEVER) {
        let error = with(default().retry(bad)).unwrap_err();
        assert!(is_out_of_range(&error, "safeguard.retry", bad));
    }
    for growth in [Some(1.0 + f64::EPSILON), Some(f64::MAX), None] {
        with(default().retry(growth)).unwrap();
    }
    for bad in [0.0, -0.25, 1.0 + f64::EPSILON].into_iter().chain(NEVER) {
        let error = with(default().blame(bad)).unwrap_err();
        assert!(is_out_of_range(&error, "safeguard.blame", bad));
    }
    for share in [Some(f64::MIN_POSITIVE), Some(1.0), None] {
        with(default().blame(share)).unwrap();
    }
}

#[test]
fn messages_show_numbers_as_people_write_them() {
    let shown = |damping: f64| refused(NewtonConfig::default().damping(damping)).to_string();
    assert!(shown(-1e-9).contains("not -1e-9:"), "{}", shown(-1e-9));
    assert!(shown(1.5).contains("not 1.5:"));
    assert!(shown(0.0).contains("not 0:"));
    assert!(shown(f64::NAN).contains("not NaN:"));
    assert!(shown(1e30).contains("not 1e30:"));
    // Without advice the message ends there.
    let safeguard = Safeguard::default().cut(2.0);
    let error = refused(NewtonConfig::default().safeguard(safeguard));
    assert_eq!(error.to_string(), "safeguard.cut must be in (0, 1), not 2");
}

#[test]
fn climbs() {
    for bad in [0.0, 1.0, -0.5].into_iter().chain(NEVER) {
        let error = refused(NewtonConfig::default().climb(bad));
        assert!(is_out_of_range(&error, "climb", bad));
        tells(&error, &["0.8", "(0, 1)"]);
        let rule = HypergradientRule::additive(0.1);
        assert!(is_out_of_range(&refused(Config::new(rule).climb(bad)), "climb", bad));
    }
    made(NewtonConfig::default().climb(f64::MIN_POSITIVE)).unwrap();
    made(NewtonConfig::default().climb(1.0 - f64::EPSILON)).unwrap();
    made(NewtonConfig::default().climb(None)).unwrap();
}

#[test]
fn horizons() {
    let error = refused(NewtonConfig::default().horizon(0));
    assert!(is_out_of_range(&error, "horizon", 0.0));
    tells(&error, &["at least 1", "epochs times batches"]);
    made(NewtonConfig::default().horizon(1)).unwrap();
    assert_eq!(made(NewtonConfig::default().horizon(None)).unwrap().factor(), 1.0);
}

// All that is configured beside the rule, and nothing else.
#[test]
fn of_another_rule() {
    let config = NewtonConfig::default().horizon(7).min_window_steps(3).sketch(64).safeguard(None);
    let other = config.of_rule(HypergradientRule::additive(0.1));
    assert_ne!(other, HypergradientConfig::new(HypergradientRule::additive(0.1)));
    assert_eq!(other.of_rule(NewtonRule::default()), config);
}

#[test]
fn sketches() {
    assert_eq!(NewtonConfig::SKETCH, 16_384);
    let config = NewtonConfig::default().safeguard(None);
    for bins in [0, 1, 32, 63, 65, 1000, 1 << 25] {
        let error = refused(config.sketch(bins));
        assert!(is_out_of_range(&error, "sketch", bins as f64));
        tells(&error, &["power of two", "NewtonConfig::SKETCH"]);
    }
    for bins in [64, NewtonConfig::SKETCH, 1 << 24] {
        made(config.sketch(bins)).unwrap();
    }
    let error = refused(NewtonConfig::default().sketch(64));
    assert_eq!(error, Error::SketchWithSafeguard);
    tells(&error, &["safeguard(None)"]);
}

#[test]
fn lengths_of_windows() {
    let length = |p, batches| Window::fraction_of_epoch(p, batches).unwrap().len();
    assert_eq!([length(0.2, 469), length(1.0 / 3.0, 469), length(0.001, 469)], [93, 156, 1]);
    // 0.29 · 100 is a little below 29.
    assert_eq!(length(0.29, 100), 29);
    assert_eq!(Window::fraction(0.5).unwrap().len(), 100);
    let steps = Window::steps(1).unwrap();
    assert_eq!((steps.len(), Window::steps(7).unwrap().len()), (1, 7));
    let of = |config: NewtonConfig| made(config).unwrap().window();
    assert_eq!(of(NewtonConfig::default()), 100);
    assert_eq!(of(NewtonConfig::default().batches_per_epoch(469)), 93);
    // No window that is a part of an epoch is so short that noise rules it.
    assert_eq!(of(NewtonConfig::default().batches_per_epoch(1)), 20);
    assert_eq!(of(NewtonConfig::default().batches_per_epoch(16).min_window_steps(7)), 7);
    assert_eq!(of(NewtonConfig::default().batches_per_epoch(16).min_window_steps(1)), 3);
    let error = refused(NewtonConfig::default().min_window_steps(0));
    assert!(is_out_of_range(&error, "min_window_steps", 0.0));
    assert_eq!(of(NewtonConfig::paper_code().batches_per_epoch(2)), 1);
    assert_eq!(of(NewtonConfig::default().window(steps).batches_per_epoch(469)), 1);
    assert_eq!(of(NewtonConfig::paper_text().batches_per_epoch(469)), 93);
    assert_eq!(of(NewtonConfig::paper_code().batches_per_epoch(469)), 156);
}

#[test]
fn a_window_outlasts_the_momentum() {
    let config = NewtonConfig::default().batches_per_epoch(118); // 23 steps
    let of = |config: NewtonConfig, momentum| around(config, momentum).unwrap().window();
    assert_eq!([0.0, 0.5, 0.9, 0.95].map(|momentum| of(config, momentum)), [23, 23, 50, 100]);
    for bad in [-0.5, 1.0, 1.5].into_iter().chain(NEVER) {
        let error = around(config, bad).map(drop).unwrap_err();
        assert!(is_out_of_range(&error, "the optimizer's momentum", bad));
    }
    for bad in [0.0, -1.0, 1.5].into_iter().chain(NEVER) {
        let groups = vec![Group { name: "model".into(), fixed_rate: false, rate: 0.1 }];
        let error = Engine::new(config, groups, HostFacts { momentum: 0.0, epsilon: bad });
        let error = error.map(drop).unwrap_err();
        assert!(is_out_of_range(&error, "the weights' epsilon", bad));
    }
    assert_eq!(of(config.momentum_spans(8.0), 0.9), 80);
    assert_eq!(of(config.momentum_spans(0.0), 0.9), 23);
    assert_eq!(of(config.window(Window::steps(7).unwrap()), 0.9), 7);
    assert_eq!(of(NewtonConfig::paper_code().batches_per_epoch(118), 0.9), 39);
    for bad in [-1.0, -1e-9].into_iter().chain(NEVER) {
        let error = refused(config.momentum_spans(bad));
        assert!(is_out_of_range(&error, "momentum_spans", bad));
    }
}

// The presets are the paper's rule with nothing beside it: by what the same two windows make of a
// rate.
#[test]
fn the_papers_presets() {
    let factor = |config: NewtonConfig| {
        let mut engine = made(config.window(Window::steps(1).unwrap())).unwrap();
        // ⟨u₋,u₋⟩ = 1 and ⟨u₋,u⟩ = 0.9 at the rate of 0.1.
        for across in [0.0, 0.9e-2] {
            let mut request = engine.tell(Event::Batch { loss: None, only_gathers: false });
            loop {
                let event = match request.unwrap() {
                    Request::TakeSnapshot(_) => Event::SnapshotTaken,
                    Request::Update => Event::Updated,
                    Request::EndWindow => {
                        Event::WindowEnded(vec![WindowProducts { across, own: 1e-2 }])
                    }
                    Request::MeasureNorms => Event::Norms(vec![]),
                    Request::MeasureSlopes(_) => Event::Slopes(vec![]),
                    Request::Done(_) => break,
                    request => panic!("{request:?}"),
                };
                request = engine.tell(event);
            }
        }
        let (_, rate) = engine.rates().next().unwrap();
        rate / 0.1
    };
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} for {b}");
    close(factor(NewtonConfig::paper_text()), 1.0 + 0.33 * 9.0);
    close(factor(NewtonConfig::paper_code()), 1.0 + 0.20 * 9.0);
    // Undamped, since the windows agree: the Newton point.
    close(factor(NewtonConfig::default()), 10.0);
    close(factor(NewtonConfig::default().climb(None)), 0.67 + 0.33 * 10.0);
}
