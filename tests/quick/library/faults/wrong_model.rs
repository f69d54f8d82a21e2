//! A step on another model than the one that the trainer was made for, or with gradients of only a
//! part of it.

use super::{good_step, is_out_of_range, newton, sgd, tells, Model};
use dfdx::{nn::modules::Linear, optim::*, prelude::*};
use support::values::{bits, gradients, vector};
use tlr::{Error, Newton, NewtonConfig, PerLayer, TensorDifference, TunableOptimizer, Window};

type Network = (Linear<2, 2, f64, Cpu>, Tanh, Linear<2, 2, f64, Cpu>);

fn network(seed: u64) -> Network {
    type Layers = (builders::Linear<2, 2>, Tanh, builders::Linear<2, 2>);
    Cpu::seed_from_u64(seed).build_module::<Layers, f64>()
}

/// Gradients of both layers, or of the first alone.
fn of_layers(model: &Network, both: bool) -> Gradients<f64, Cpu> {
    let x: Tensor<Rank2<1, 2>, f64, _> = Cpu::default().tensor([[0.5, -1.0]]);
    let hidden = model.0.forward(x.leaky_traced());
    let out = if both { model.2.forward(hidden.tanh()) } else { hidden };
    out.square().mean().backward()
}

/// The test on one rate and on a rate a layer.
macro_rules! global_and_per_layer {
    ($model:expr, |$newton:ident| $test:expr) => {{
        let optimizer = sgd(&$model, 0.01);
        let mut $newton = newton(&$model, optimizer, 2, true);
        $test;
        let per_layer = PerLayer::new(&$model, sgd(&$model, 0.01));
        let mut $newton = newton(&$model, per_layer, 2, true);
        $test;
    }};
}

fn replaced_tensor(tensor: &str) -> TensorDifference {
    TensorDifference::Replaced { tensor: tensor.to_owned() }
}

#[test]
fn model_changed() {
    let model = network(1);
    global_and_per_layer!(model, |newton| {
        let mut own = model.clone();
        let here = of_layers(&own, true);
        newton.step(&mut own, &here, 1.0).unwrap();
        let rates: Vec<f64> = newton.rates().iter().map(|(_, rate)| *rate).collect();

        // Another model of the same shape.
        let mut other = network(2);
        let before = bits(&other);
        let here = of_layers(&other, true);
        let error = newton.step(&mut other, &here, 1.0).unwrap_err();
        let all = ["0.weight", "0.bias", "2.weight", "2.bias"].map(replaced_tensor);
        assert_eq!(error, Error::ModelChanged(all.into()));
        tells(&error, &["`0.weight`", "make a new optimizer"]);
        let ahead = newton.step_lookahead(&mut other, &here, |_| of_layers(&network(2), true));
        assert!(matches!(ahead, Err(Error::ModelChanged(_))));
        assert_eq!(bits(&other), before);

        // The same tensors in other places.
        let mut swapped = own.clone();
        std::mem::swap(&mut swapped.0, &mut swapped.2);
        let before = bits(&swapped);
        let here = of_layers(&swapped, true);
        let changed = newton.step(&mut swapped, &here, 1.0);
        assert!(matches!(changed, Err(Error::ModelChanged(_))));
        assert_eq!(bits(&swapped), before);

        // One tensor replaced.
        let mut replaced = own.clone();
        replaced.2.bias = Cpu::default().zeros();
        let here = of_layers(&replaced, true);
        let error = newton.step(&mut replaced, &here, 1.0).unwrap_err();
        assert_eq!(error, Error::ModelChanged(vec![replaced_tensor("2.bias")]));

        // None of it counted.
        assert_eq!(newton.steps(), 1);
        assert_eq!(newton.rates().iter().map(|(_, rate)| *rate).collect::<Vec<_>>(), rates);
        let here = of_layers(&own, true);
        newton.step(&mut own, &here, 1.0).unwrap();
    });
}

// A sketch has nothing to go back to: the safeguard is refused beside it, and weights that are lost
// are called so.
#[test]
fn sketches() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(2).unwrap());
    let with = |config| Newton::new(&model, sgd(&model, 0.1), config).map(|_| ()).unwrap_err();
    let refused = with(config.sketch(64));
    assert_eq!(refused, Error::SketchWithSafeguard);
    tells(&refused, &["safeguard(None)"]);
    let config = config.safeguard(None);
    for bins in [0, 1, 63, 65, 1000, 1 << 25] {
        let refused = with(config.sketch(bins));
        assert!(is_out_of_range(&refused, "sketch", bins as f64));
        tells(&refused, &["power of two", "NewtonConfig::SKETCH"]);
    }
    let mut newton = Newton::new(&model, sgd(&model, 0.1), config.sketch(64)).unwrap();
    let good = gradients(&model, &[1.0, 1.0]);
    newton.step(&mut model, &good, 1.0).unwrap();
    let before = bits(&model);
    let loss = f64::INFINITY;
    let error = newton.step(&mut model, &good, loss).unwrap_err();
    assert_eq!((error, bits(&model)), (Error::NonFiniteLoss { step: 2, loss }, before));
    let bad = gradients(&model, &[f64::INFINITY, 1.0]);
    let error = newton.step(&mut model, &bad, 1.0).unwrap_err();
    assert!(matches!(&error, Error::LostWeights { step: 2, .. }), "{error:?}");
    tells(&error, &["load a checkpoint"]);
}

// A part without gradients: nothing moves, on the first step or later, and training can go on.
// Fails without the restoring of what dfdx moves before it tells.
#[test]
fn unused_parameters() {
    let model = network(1);
    for steps_before in [0, 1, 3] {
        global_and_per_layer!(model, |newton| {
            let mut own = model.clone();
            for _ in 0..steps_before {
                let here = of_layers(&own, true);
                newton.step(&mut own, &here, 1.0).unwrap();
            }
            let before = bits(&own);
            let part = of_layers(&own, false);
            let error = newton.step(&mut own, &part, 1.0).unwrap_err();
            let tensors = vec!["2.weight".to_owned(), "2.bias".to_owned()];
            assert_eq!(error, Error::UnusedParameters { tensors });
            tells(&error, &["2.weight, 2.bias", "no weight was moved", "alloc_grads()"]);
            assert_eq!((bits(&own), newton.steps()), (before.clone(), steps_before));

            // The same of either gradients of the exact form.
            let whole = of_layers(&own, true);
            let here = newton.step_lookahead(&mut own, &part, |ahead| of_layers(ahead, true));
            let ahead = newton.step_lookahead(&mut own, &whole, |ahead| of_layers(ahead, false));
            assert!(matches!(here, Err(Error::UnusedParameters { .. })));
            assert!(matches!(ahead, Err(Error::UnusedParameters { .. })));
            assert_eq!((bits(&own), newton.steps()), (before, steps_before));
            newton.step(&mut own, &whole, 1.0).unwrap();
        });
    }
}

// What has accumulated goes with the step that failed, whichever gradients were at fault: the next
// one is a new optimizer's, bit for bit. Fails without the reset.
#[test]
fn unused_parameters_clear_the_momentum() {
    for ahead_at_fault in [false, true] {
        let mut model = network(1);
        let mut newton = newton(&model, sgd(&model, 0.01), 100, true);
        let (whole, part) = (of_layers(&model, true), of_layers(&model, false));
        newton.update(&mut model, &whole).unwrap();
        let failed = if ahead_at_fault {
            newton.step_lookahead(&mut model, &whole, |ahead| of_layers(ahead, false))
        } else {
            newton.update(&mut model, &part)
        };
        assert!(matches!(failed, Err(Error::UnusedParameters { .. })));
        let mut fresh = model.clone();
        sgd(&fresh, 0.01).update(&mut fresh, &whole).unwrap();
        newton.update(&mut model, &whole).unwrap();
        assert_eq!(bits(&model), bits(&fresh));
    }
}

// The cure that the message names: with `alloc_grads` an unused part has a gradient of zero.
#[test]
fn unused_parameters_of_allocated_gradients() {
    let mut model = network(1);
    let mut newton = newton(&model, sgd(&model, 0.01), 1, true);
    let (first, last) = (bits(&model.0), bits(&model.2));
    let x: Tensor<Rank2<1, 2>, f64, _> = Cpu::default().tensor([[0.5, -1.0]]);
    let loss = model.0.forward(x.traced(model.alloc_grads())).square().mean();
    newton.step(&mut model, &loss.backward(), 1.0).unwrap();
    assert_ne!(bits(&model.0), first);
    assert_eq!(bits(&model.2), last);
}

/// An optimizer of one's own: a rate, and what it does with it.
struct Own {
    lr: f64,
    update: fn(f64, &mut Model, &Gradients<f64, Cpu>) -> Updated,
}

type Updated = Result<(), OptimizerUpdateError<CpuError>>;

impl TunableOptimizer for Own {
    type Model = Model;
    type Dtype = f64;
    type Device = Cpu;

    fn rate(&self, _group: usize) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, _group: usize, rate: f64) {
        self.lr = rate;
    }

    fn reset(&mut self, _model: &Model) {}
}

impl Optimizer<Model, Cpu, f64> for Own {
    fn update(&mut self, model: &mut Model, gradients: &Gradients<f64, Cpu>) -> Updated {
        (self.update)(self.lr, model, gradients)
    }
}

/// Moves the weights, then fails.
fn out_of_memory(lr: f64, model: &mut Model, gradients: &Gradients<f64, Cpu>) -> Updated {
    sgd(model, lr).update(model, gradients)?;
    Err(OptimizerUpdateError::DeviceError(CpuError::OutOfMemory))
}

/// Shrinks the weights, and does without gradients.
fn shrink(lr: f64, model: &mut Model, _gradients: &Gradients<f64, Cpu>) -> Updated {
    let shrunk: Vec<f64> = support::values::weights(model).iter().map(|w| w * (1.0 - lr)).collect();
    support::values::set_weights(model, &shrunk);
    Ok(())
}

#[test]
fn device() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let mut newton = newton(&model, Own { lr: 0.1, update: out_of_memory }, 1, true);
    let before = bits(&model);
    let error = good_step(&mut newton, &mut model, Some(1.0)).unwrap_err();
    assert!(matches!(&error, Error::Device(error) if error.is_out_of_memory()));
    tells(&error, &["device", "OutOfMemory"]);
    assert_eq!((bits(&model), newton.steps()), (before.clone(), 0));
    let here = gradients(&model, &[1.0, 1.0]);
    let dropped_in = Optimizer::update(&mut newton, &mut model, &here);
    assert!(matches!(dropped_in, Err(OptimizerUpdateError::DeviceError(CpuError::OutOfMemory))));
    // It has moved the weights by then, and has not said that it undoes a failed update. Nor has
    // one around it.
    let error = newton.step_owned(&mut model, &mut here.clone(), 1.0).unwrap_err();
    assert!(matches!(error, Error::Device(_)));
    let clip = tlr::optim::Clip::by_norm(Own { lr: 0.1, update: out_of_memory }, 1.0).unwrap();
    let mut around =
        Newton::new(&model, clip, NewtonConfig::default().ramp(false).settle(false)).unwrap();
    assert!(matches!(around.step(&mut model, &here, 1.0), Err(Error::Device(_))));
    assert_eq!((bits(&model), newton.steps(), around.steps()), (before, 0, 0));
}

// Through dfdx's own trait there are only dfdx's errors: parameters without a gradient by their
// ids, and all of them for whatever that error has no room for.
#[test]
fn through_the_trait_of_dfdx() {
    fn ids<Opt>(optimizer: &mut Opt, model: &mut Network, here: &Gradients<f64, Cpu>) -> usize
    where
        Opt: Optimizer<Network, Cpu, f64>,
    {
        match optimizer.update(model, here) {
            Ok(()) => 0,
            Err(OptimizerUpdateError::UnusedParams(unused)) => unused.ids.len(),
            Err(OptimizerUpdateError::DeviceError(error)) => panic!("{error}"),
        }
    }
    let mut model = network(1);
    let mut newton = newton(&model, sgd(&model, 0.01), 1, false);
    let (whole, part) = (of_layers(&model, true), of_layers(&model, false));
    assert_eq!(ids(&mut newton, &mut model, &whole), 0);
    let before = bits(&model);
    assert_eq!(ids(&mut newton, &mut model, &part), 2); // the second layer's
    let mut other = network(2);
    let others = bits(&other);
    let here = of_layers(&other, true);
    assert_eq!(ids(&mut newton, &mut other, &here), 4); // the model changed
    let bad = gradients(&model, &[f64::NAN; 12]);
    assert_eq!(ids(&mut newton, &mut model, &bad), 4); // weights that are not finite
    assert_eq!((bits(&model), bits(&other)), (before, others));
}

// An exact step reads the gradients itself. Fails if it trusts the optimizer to miss them.
#[test]
fn an_exact_step_without_gradients_around_an_optimizer_without() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let mut newton = newton(&model, Own { lr: 0.1, update: shrink }, 1, true);
    let before = bits(&model);
    let (none, ahead) = (Gradients::leaky(), |model: &mut Model| gradients(model, &[1.0, 1.0]));
    let looked = newton.step_lookahead(&mut model, &none, ahead);
    let search = tlr::LineSearch::default();
    let evaluate = |model: &mut Model| (1.0, ahead(model));
    let searched = newton.step_line_search(&mut model, &none, 1.0, search, evaluate);
    for step in [looked, searched] {
        assert!(matches!(step, Err(Error::UnusedParameters { .. })), "{step:?}");
    }
    assert_eq!((bits(&model), newton.steps()), (before, 0));
    let here = gradients(&model, &[1.0, 2.0]);
    newton.step_lookahead(&mut model, &here, ahead).unwrap();
}
