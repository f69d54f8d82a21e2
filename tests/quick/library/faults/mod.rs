//! Every error there is: by variant, by what it tells the user, and that it left the model alone.

mod not_finite;
mod untrainable;
mod wrong_model;

use dfdx::{optim::*, prelude::*};
use support::values::{gradients, vector, Vector};
use tlr::{
    engine::RATES, Error, Newton, NewtonConfig, PerLayer, Safeguard, Step, Trainer,
    TunableOptimizer, Window,
};

type Model = Vector<2>;

fn sgd<M>(model: &M, lr: f64) -> Sgd<M, f64, Cpu> {
    Sgd::new(model, SgdConfig { lr, momentum: Some(Momentum::Classic(0.9)), weight_decay: None })
}

/// What comes of a configuration and a starting rate.
fn made<R: tlr::engine::RateRule>(config: tlr::Config<R>, lr: f64) -> Result<(), Error> {
    let model: Model = vector(&[1.0, 2.0]);
    Trainer::new(&model, sgd(&model, lr), config).map(|_| ())
}

fn newton<M, Opt>(model: &M, optimizer: Opt, steps: usize, guarded: bool) -> Newton<Opt>
where
    Opt: TunableOptimizer<Model = M, Dtype = f64, Device = Cpu>,
{
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .window(Window::steps(steps).unwrap())
        .safeguard(guarded.then(Safeguard::default));
    Newton::new(model, optimizer, config).unwrap()
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

/// Numbers that no figure may be.
const NEVER: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

#[test]
fn starting_rates() {
    for bad in [0.0, -1e-3, RATES.start() / 2.0, RATES.end() * 2.0].into_iter().chain(NEVER) {
        let error = made(NewtonConfig::default().ramp(false).settle(false), bad).unwrap_err();
        assert!(matches!(&error, Error::Rate { group, .. } if group == "model"));
        tells(&error, &["`model`", "1e-30", "1e30"]);
        let model = (vector::<1, f64>(&[1.0]), vector::<1, f64>(&[2.0]));
        let per_layer = PerLayer::new(&model, sgd(&model, bad));
        let error =
            Newton::new(&model, per_layer, NewtonConfig::default().ramp(false).settle(false))
                .map(|_| ())
                .unwrap_err();
        assert!(matches!(error, Error::Rate { group, .. } if group == "0"));
    }
    for good in [*RATES.start(), 1e-9, 1e3, *RATES.end()] {
        made(NewtonConfig::default().ramp(false).settle(false), good).unwrap();
    }
}

/// A step with a good gradient.
fn good_step<Opt>(
    newton: &mut Newton<Opt>,
    model: &mut Model,
    loss: Option<f64>,
) -> Result<Step, Error>
where
    Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>,
{
    step(newton, model, [0.5, -0.25], loss)
}

fn step<Opt>(
    newton: &mut Newton<Opt>,
    model: &mut Model,
    gradient: [f64; 2],
    loss: Option<f64>,
) -> Result<Step, Error>
where
    Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>,
{
    let here = gradients(model, &gradient);
    match loss {
        Some(loss) => newton.step(model, &here, loss),
        None => newton.update(model, &here),
    }
}
