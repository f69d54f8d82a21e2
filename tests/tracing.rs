//! Each decision is also a `tracing` event.
//!
//! Alone in its file: an event that another test's thread meets first, with nobody listening, may
//! be switched off for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dfdx::optim::*;
use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
};
use support::values::{gradients, vector, Vector};
use tlr::{Adaptation, Newton, NewtonConfig, PerLayer, Window};
use tracing::{field, span, Level, Metadata, Subscriber};

/// Collects events as `level message field=value …`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl field::Visit for Line {
    fn record_debug(&mut self, field: &field::Field, value: &dyn Debug) {
        self.0 += &match field.name() {
            "message" => format!(" {value:?}"),
            name => format!(" {name}={value:?}"),
        };
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

// One event a decision, at debug, with the same figures.
#[test]
fn tracing_events() {
    let log = Log::default();
    let mut model: (Vector<2>, Vector<1>) = (vector(&[1.0, -1.0]), vector(&[0.5]));
    let sgd = Sgd::new(&model, SgdConfig { lr: 0.02, ..Default::default() });
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .climb(None)
        .window(Window::steps(1).unwrap());
    let mut newton = Newton::new(&model, PerLayer::new(&model, sgd), config).unwrap();
    tracing::subscriber::with_default(log.clone(), || {
        for shrinking in [1.0, 0.9] {
            let here = gradients(&model, &[shrinking; 3]);
            newton.update(&mut model, &here).unwrap();
        }
    });
    let lines = log.0.lock().unwrap();
    assert_eq!(lines.len(), newton.history().len());
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| line.starts_with(Level::DEBUG.as_str())));
    let (first, second) = (&lines[0], &lines[2]);
    for part in [
        " learning rate",
        " step=1",
        " layer=\"0\"",
        " from=0.02",
        " to=0.02",
        " outcome=warming up",
    ] {
        assert!(first.contains(part), "{part:?} in {first:?}");
    }
    assert!(!first.contains("uu="), "no products yet: {first:?}");
    let Adaptation { to, products, .. } = newton.history()[2];
    let products = products.unwrap();
    for part in [
        format!(" to={to:?}"),
        format!(" uu={:?}", products.uu),
        format!(" un={:?}", products.un),
        format!(" nn={:?}", products.nn),
        " outcome=scaled".to_owned(),
    ] {
        assert!(second.contains(&part), "{part:?} in {second:?}");
    }
}
