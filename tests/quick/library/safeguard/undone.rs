//! What a rollback undoes: directions, momentum, buffers and rates.

use super::{by_losses_alone, default, rolled_back, two_layers, Model, Run, RATE};
use dfdx::{nn::modules::BatchNorm1D, optim::*, prelude::*};
use support::values::{bits, gradients, vector};
use tlr::{Cause::LossExploded, Error, Newton, NewtonConfig, Outcome, Safeguard, Schedule, Window};

// Directions of a window that was undone are no measure of the next. Fails if they are kept.
#[test]
fn directions_are_dropped() {
    let mut run = default(1);
    run.accept(&[1.0, 1.0, 1.0]);
    assert!(run.newton.history()[2].products.is_some());
    assert_eq!(run.explode(9.0), rolled_back(LossExploded));
    assert_eq!(run.feed(1.0), Some(Outcome::WarmingUp));
    assert_eq!(run.newton.history().last().unwrap().products, None);
    assert!(matches!(run.feed(1.0), Some(Outcome::Kept(_) | Outcome::Scaled | Outcome::Capped)));
}

// After a rollback the base optimizer is as new: its next step is that of a fresh one at the cut
// rate, bit for bit. Fails if momentum survives.
#[test]
fn momentum_is_cleared() {
    let mut run = Run::new(8, Safeguard::default().blame(None), Some(Momentum::Classic(0.9)));
    run.accept(&[1.0, 1.0, 1.0]);
    assert_eq!(run.explode(9.0), rolled_back(LossExploded));
    run.feed(1.0);

    let mut fresh: Model = vector(&[1.0, 2.0]);
    let momentum = Some(Momentum::Classic(0.9));
    let mut sgd = Sgd::new(&fresh, SgdConfig { lr: RATE * 0.1, momentum, weight_decay: None });
    let here = gradients(&fresh, &[1.0, -2.0]);
    sgd.update(&mut fresh, &here).unwrap();
    assert_eq!(bits(&run.model), bits(&fresh));
}

type Norm = BatchNorm1D<3, f32, Cpu>;

/// A layer with buffers, in windows of two steps.
fn batch_norm() -> (Cpu, Norm, Newton<Sgd<Norm, f32, Cpu>>) {
    let dev = Cpu::seed_from_u64(1);
    let model: Norm = dev.build_module::<builders::BatchNorm1D<3>, f32>();
    let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    let config = by_losses_alone().climb(None).window(Window::steps(2).unwrap());
    let newton = Newton::new(&model, sgd, config).unwrap();
    (dev, model, newton)
}

// Running means and variances of the bad window go too. Fails if only weights are restored.
#[test]
fn buffers_are_restored() {
    let (dev, mut model, mut newton) = batch_norm();
    let mut step = |model: &mut Norm, loss: f64| {
        let x: Tensor<Rank2<8, 3>, f32, _> = dev.sample_normal();
        let y = model.forward_mut(x.leaky_traced()).square().mean();
        newton.step(model, &y.backward(), loss).unwrap();
    };
    step(&mut model, 1.0);
    step(&mut model, 1.0);
    let snapshot = (bits(&model), model.running_mean.array(), model.running_var.array());
    step(&mut model, 1.0);
    assert_ne!(model.running_mean.array(), snapshot.1);
    step(&mut model, 9.0);
    step(&mut model, 9.0);
    assert_eq!((bits(&model), model.running_mean.array(), model.running_var.array()), snapshot);
}

// A broken batch has been through the forward pass before its loss tells of it. Fails if it is
// skipped and no more: running means that are NaN stay so. The very first batch too, and weights
// that are loaded after the optimizer was made stay.
#[test]
fn a_skipped_batch_leaves_no_trace_in_buffers() {
    let (dev, mut model, mut newton) = batch_norm();
    model.scale.copy_from(&[1.0, 2.0, 3.0]);
    let mut step = |model: &mut Norm, factor: f32| {
        let x: Tensor<Rank2<8, 3>, f32, _> = dev.sample_normal();
        let y = model.forward_mut((x * factor).leaky_traced()).square().mean();
        let loss = y.array();
        newton.step(model, &y.backward(), loss).unwrap();
    };
    for _ in 0..2 {
        step(&mut model, f32::NAN); // the second undoes a window of no steps
        assert_eq!(model.scale.array(), [1.0, 2.0, 3.0]);
        assert_eq!(model.running_mean.array(), [0.0; 3]);
        assert_eq!(model.running_var.array(), [1.0; 3]);
    }
    step(&mut model, 1.0);
    step(&mut model, 1.0);
    let snapshot = bits(&model);
    step(&mut model, f32::NAN);
    assert_eq!(bits(&model), snapshot);
}

// The same without a safeguard, where a loss that is no number is an error, and where a schedule is
// what stops the step. Fails if running means are left as the batch has made them.
#[test]
fn a_step_that_is_an_error_leaves_no_trace_in_buffers() {
    for (loss, factor) in [(f64::NAN, 1.0), (1.0, f64::NAN)] {
        let (dev, mut model, _) = batch_norm();
        let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
        let config = NewtonConfig::default().ramp(false).safeguard(None);
        let config = config.window(Window::steps(2).unwrap());
        let schedule = Schedule::from_fn(move |step| if step == 2 { factor } else { 1.0 });
        let mut newton = Newton::new(&model, sgd, config).unwrap().schedule(schedule);
        let mut step = |model: &mut Norm, broken: f32, loss: f64| {
            let x: Tensor<Rank2<8, 3>, f32, _> = dev.sample_normal();
            let y = model.forward_mut((x * broken).leaky_traced()).square().mean();
            newton.step(model, &y.backward(), loss)
        };
        step(&mut model, 1.0, 1.0).unwrap();
        step(&mut model, 1.0, 1.0).unwrap();
        let before = (bits(&model), model.running_mean.array(), model.running_var.array());
        let error = step(&mut model, f32::NAN, loss).unwrap_err();
        let expected = match factor.is_nan() {
            true => matches!(error, Error::ScheduleFactor { step: 3, .. }),
            false => matches!(error, Error::NonFiniteLoss { step: 3, .. }),
        };
        assert!(expected, "{error}");
        let after = (bits(&model), model.running_mean.array(), model.running_var.array());
        assert_eq!(after, before);
    }
}

// Every layer's rate is cut, by as much.
#[test]
fn all_rates_are_cut() {
    let (mut model, mut newton) = two_layers();
    // The first layer's gradients shrink, the second's grow: one rate is raised, the other kept.
    for (gradient, loss) in [([1.0, 1.0], 1.0), ([0.5, 1.5], 0.9), ([0.2, 2.0], 0.8)] {
        let here = gradients(&model, &gradient);
        newton.step(&mut model, &here, loss).unwrap();
    }
    let before: Vec<f64> = newton.rates().iter().map(|(_, rate)| *rate).collect();
    assert!(before[0] > before[1]);
    let here = gradients(&model, &[1.0, 1.0]);
    newton.step(&mut model, &here, 1e3).unwrap();
    newton.step(&mut model, &here, 1e3).unwrap();
    assert_eq!(newton.rates(), [("0", before[0] * 0.5), ("1", before[1] * 0.5)]);
}
