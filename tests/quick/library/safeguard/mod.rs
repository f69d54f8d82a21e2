//! The safeguard's tests one by one, on made-up losses, and what a rollback undoes.

mod doomed;
mod explosion;
mod probation;
mod snapshot;
mod undone;

use dfdx::{optim::*, prelude::*};
use support::values::{bits, gradients, vector, Vector};
use tlr::{
    Cause::{self, NonFiniteWeights},
    Newton, NewtonConfig, Outcome, PerLayer, Safeguard, TunableOptimizer, Window,
};

type Model = Vector<2>;

/// One training run fed with losses of our making; every step moves the weights by −rate · (1, −2).
struct Run<Opt: TunableOptimizer> {
    model: Model,
    newton: Newton<Opt>,
}

const RATE: f64 = 1e-3;

fn guarded(steps: usize, safeguard: Safeguard) -> Run<Sgd<Model, f64, Cpu>> {
    Run::new(steps, safeguard, None)
}

/// Windows of `steps`, the default safeguard.
fn default(steps: usize) -> Run<Sgd<Model, f64, Cpu>> {
    guarded(steps, Safeguard::default().blame(None))
}

impl Run<Sgd<Model, f64, Cpu>> {
    fn new(steps: usize, safeguard: Safeguard, momentum: Option<Momentum>) -> Self {
        let model = vector(&[1.0, 2.0]);
        let sgd = Sgd::new(&model, SgdConfig { lr: RATE, momentum, weight_decay: None });
        let config = NewtonConfig::default()
            .ramp(false)
            .settle(false)
            .climb(None)
            .window(Window::steps(steps).unwrap())
            .safeguard(safeguard);
        let newton = Newton::new(&model, sgd, config).unwrap();
        Self { model, newton }
    }
}

impl<Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>> Run<Opt> {
    /// One step; the outcome of the window, if it ended here.
    fn feed(&mut self, loss: f64) -> Option<Outcome> {
        let before = self.newton.history().len();
        let here = gradients(&self.model, &[1.0, -2.0]);
        self.newton.step(&mut self.model, &here, loss).unwrap();
        self.newton.history().get(before).map(|adaptation| adaptation.outcome)
    }

    /// Two such losses in a row: one alone is skipped.
    fn explode(&mut self, loss: f64) -> Option<Outcome> {
        let before = (bits(&self.model), self.rate());
        assert_eq!(self.feed(loss), None);
        assert_eq!((bits(&self.model), self.rate()), before);
        self.feed(loss)
    }

    /// A window that is accepted.
    fn accept(&mut self, losses: &[f64]) {
        for loss in losses {
            let outcome = self.feed(*loss);
            assert!(!matches!(outcome, Some(Outcome::RolledBack(_))), "{outcome:?} at {loss}");
        }
    }

    fn rate(&self) -> f64 {
        self.newton.rates()[0].1
    }
}

fn rolled_back(cause: Cause) -> Option<Outcome> {
    Some(Outcome::RolledBack(cause))
}

type Layers = (Vector<1>, Vector<1>);

type PerLayerSgd = PerLayer<Sgd<Layers, f64, Cpu>>;

/// A rate each, and windows of one step.
fn two_layers() -> (Layers, Newton<PerLayerSgd>) {
    let model: Layers = (vector(&[1.0]), vector(&[2.0]));
    let sgd = Sgd::new(&model, SgdConfig { lr: RATE, ..Default::default() });
    let per_layer = PerLayer::new(&model, sgd);
    let config = by_losses_alone().climb(None).window(Window::steps(1).unwrap());
    let newton = Newton::new(&model, per_layer, config).unwrap();
    (model, newton)
}

// ---- Cuts on probation ----

// Without a loss only weights that are not finite are a reason, at the end of the window.
#[test]
fn without_losses() {
    let mut run = default(2);
    let start = bits(&run.model);
    let (good, bad) = (gradients(&run.model, &[1.0, 1.0]), gradients(&run.model, &[f64::NAN, 1.0]));
    for gradient in [&bad, &good] {
        run.newton.update(&mut run.model, gradient).unwrap();
    }
    assert_eq!(bits(&run.model), start);
    assert_eq!(run.newton.history().last().unwrap().outcome, Outcome::RolledBack(NonFiniteWeights));
    assert_eq!(run.rate(), RATE * 0.1);
}

// Off means off: a loss that explodes or rises is nobody's business.
#[test]
fn no_safeguard() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let sgd = Sgd::new(&model, SgdConfig { lr: RATE, ..Default::default() });
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .climb(None)
        .window(Window::steps(1).unwrap())
        .safeguard(None);
    let mut newton = Newton::new(&model, sgd, config).unwrap();
    for loss in [1.0, 1e3, 1e300] {
        let here = gradients(&model, &[1.0, -2.0]);
        newton.step(&mut model, &here, loss).unwrap();
    }
    assert!(!newton.history().iter().any(|last| matches!(last.outcome, Outcome::RolledBack(_))));
}

/// These losses have nothing to do with the gradients beside them.
fn by_losses_alone() -> NewtonConfig {
    NewtonConfig::default().ramp(false).settle(false).safeguard(Safeguard::default().blame(None))
}
