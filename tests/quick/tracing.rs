//! Each decision is also a `tracing` event.
//!
//! Alone in its file: an event that another test's thread meets first, with nobody listening, may
//! be switched off for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dfdx::{
    optim::*,
    prelude::{AsArray, Cpu},
    tensor::Gradients,
};
use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
};
use support::values::{gradients, vector, Vector};
use tlr::{
    optim::Shards, Adaptation, Error, Newton, NewtonConfig, PerLayer, TunableOptimizer, Window,
};
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

/// SGD as the first of two ranks, of which the second one is gone when a window ends.
struct Alone(Sgd<Vector<2>, f64, Cpu>);

impl Shards for Alone {
    fn place(&self) -> (usize, usize) {
        (0, 2)
    }

    fn exchange_numbers(&self, _own: Result<Vec<f64>, Error>) -> Result<Vec<Vec<f64>>, Error> {
        Err(Error::NothingToTrain)
    }
}

impl Optimizer<Vector<2>, Cpu, f64> for Alone {
    fn update(
        &mut self,
        model: &mut Vector<2>,
        gradients: &Gradients<f64, Cpu>,
    ) -> Result<(), OptimizerUpdateError<dfdx::tensor::CpuError>> {
        self.0.update(model, gradients)
    }
}

impl TunableOptimizer for Alone {
    type Model = Vector<2>;
    type Dtype = f64;
    type Device = Cpu;

    fn rate(&self, group: usize) -> f64 {
        self.0.rate(group)
    }

    fn set_rate(&mut self, group: usize, rate: f64) {
        self.0.set_rate(group, rate);
    }

    fn reset(&mut self, model: &Vector<2>) {
        self.0.reset(model);
    }

    fn shards(&self) -> Option<&dyn Shards> {
        Some(self)
    }
}

// dfdx's error cannot say whether the step was made, so the event has to. Fails if it says that
// nothing was updated: a caller would then make the same step twice.
#[test]
fn a_step_that_was_made_is_not_denied() {
    let log = Log::default();
    let mut model: Vector<2> = vector(&[1.0, -1.0]);
    let sgd = Alone(Sgd::new(&model, SgdConfig { lr: 0.5, ..Default::default() }));
    let config = NewtonConfig::default().ramp(false).settle(false).climb(None).safeguard(None);
    let mut newton = Newton::new(&model, sgd, config.window(Window::steps(2).unwrap())).unwrap();
    let mut update = |model: &mut Vector<2>, gradients: &Gradients<f64, Cpu>| {
        tracing::subscriber::with_default(log.clone(), || {
            Optimizer::update(&mut newton, model, gradients)
        })
    };
    let ones = gradients(&model, &[1.0; 2]);
    update(&mut model, &ones).unwrap();
    assert!(update(&mut model, &ones).is_err());
    assert_eq!(model.array(), [0.0, -2.0]);
    assert!(update(&mut model, &Gradients::leaky()).is_err());
    assert_eq!(model.array(), [0.0, -2.0]);
    let lines = log.0.lock().unwrap();
    let told: Vec<_> = lines.iter().filter(|line| line.starts_with("ERROR")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("the step was made"), "{told:?}");
    assert!(told[0].contains("no trainable tensor"), "{told:?}");
}
