//! On a GPU: the decisions, rates and weights of the CPU.
//!
//! `cargo test -p tlr --features cuda -- --ignored gpu`. Where there is none, the tests say so and
//! pass, unless `TLR_ALL` asks for one. `.ci/cuda` runs them on the host's processor.
#![cfg(feature = "cuda")]
#![allow(missing_docs, clippy::unwrap_used)]

mod counts;
mod needs;

use counts::{counted, Counts};
use dfdx::{
    optim::{self, AdamConfig, Momentum, Optimizer, OptimizerUpdateError, SgdConfig},
    prelude::*,
};
use tlr::{
    gpu_place, optim as ours, Adaptation, Error, Newton, NewtonConfig, Outcome, PerLayer, Step,
    TunableOptimizer, Window,
};

type Layers<const H: usize, E, D> =
    (modules::Linear<4, H, E, D>, Tanh, modules::Linear<H, 1, E, D>);

fn gpu() -> Option<Cuda> {
    // cudarc panics where there is no driver.
    let found = std::panic::catch_unwind(Cuda::default);
    needs::found("gpu", found.is_ok());
    found.ok()
}

fn weights<const H: usize, E, D>(model: &Layers<H, E, D>) -> Vec<f64>
where
    E: Dtype + Into<f64>,
    D: Device<E>,
{
    let (first, _, second) = model;
    let tensors =
        [first.weight.as_vec(), first.bias.as_vec(), second.weight.as_vec(), second.bias.as_vec()];
    tensors.into_iter().flatten().map(Into::into).collect()
}

fn take_over<const H: usize, E: Dtype>(twin: &mut Layers<H, E, Cuda>, model: &Layers<H, E, Cpu>) {
    twin.0.weight.copy_from(&model.0.weight.as_vec());
    twin.0.bias.copy_from(&model.0.bias.as_vec());
    twin.2.weight.copy_from(&model.2.weight.as_vec());
    twin.2.bias.copy_from(&model.2.bias.as_vec());
}

/// The relative errors of sums of many terms that nearly cancel, in roundings.
const SUM: f64 = 1000.0;

/// What rounding may change, if each step begins at the same weights on both devices.
struct Rounding {
    /// Half the distance between 1 and the next number.
    unit: f64,
    /// Of a rate, relative: what the decisions so far add up to.
    rates: f64,
}

impl Rounding {
    /// Each weight is rounded, and each step has the errors of its rate and of its gradient.
    fn check_step(&self, before: &[f64], cpu: &[f64], gpu: &[f64]) {
        let size = cpu.iter().fold(0.0, |most, w| w.abs().max(most));
        let step = cpu.iter().zip(before).fold(0.0, |most, (w, b)| (w - b).abs().max(most));
        let allowed = (self.rates + SUM * self.unit) * step + 4.0 * self.unit * size;
        for (cpu, gpu) in cpu.iter().zip(gpu) {
            assert!((cpu - gpu).abs() <= allowed, "{gpu} on the GPU, {cpu} on the CPU, {allowed}");
        }
    }

    /// A window's direction is the difference of two snapshots over the rate: it has the rounding
    /// of the weights over the length of the way, and that of its steps.
    fn check_decision(&mut self, weights: &[f64], cpu: &Adaptation, gpu: &Adaptation) {
        assert_eq!(gpu.outcome, cpu.outcome, "after {} steps", cpu.step);
        let step = cpu.step;
        let close = |cpu: f64, gpu: f64, size: f64, allowed: f64| {
            let what = format!("{gpu} on the GPU, {cpu} on the CPU after {step} steps");
            assert!((cpu - gpu).abs() <= allowed * size, "{what}, {allowed}");
        };
        if let (Some(on_cpu), Some(on_gpu)) = (cpu.products, gpu.products) {
            let norm = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
            let length = cpu.from * on_cpu.uu.min(on_cpu.nn).sqrt();
            let direction = SUM * self.unit * (1.0 + norm / length);
            let allowed = direction + self.rates;
            close(on_cpu.uu, on_gpu.uu, on_cpu.uu, 2.0 * allowed);
            close(on_cpu.nn, on_gpu.nn, on_cpu.nn, 2.0 * allowed);
            close(on_cpu.un, on_gpu.un, (on_cpu.uu * on_cpu.nn).sqrt(), 2.0 * allowed);
            self.rates += direction;
        }
        assert_eq!(gpu.products.is_some(), cpu.products.is_some());
        close(cpu.to, gpu.to, cpu.to, self.rates + SUM * self.unit);
    }
}

/// Fits Σ tanh(x) from a rate that is far too small, with a window that is undone half-way, on both
/// devices side by side. The GPU takes over the CPU's weights after each step: otherwise a learned
/// rate makes roundings grow until the decisions part.
macro_rules! check_beside_cpu {
    ($gpu:expr, $H:literal, $E:ty, $lr:expr, $steps:expr, $around:expr) => {{
        let (cpu, gpu): (_, Cuda) = (Cpu::seed_from_u64(1), $gpu);
        let mut model: Layers<$H, $E, Cpu> = BuildModule::build(&cpu);
        let mut twin: Layers<$H, $E, Cuda> = model.to_device(&gpu);
        let x: Tensor<Rank2<32, 4>, $E, _> = cpu.sample_normal();
        let y = x.clone().tanh().sum::<Rank1<32>, _>().reshape::<Rank2<32, 1>>();
        let (x_twin, y_twin) = (x.to_device(&gpu), y.to_device(&gpu));
        let config = || NewtonConfig::default().window(Window::steps(5).unwrap());
        let mut newton = Newton::new(&model, $around(&model, $lr), config()).unwrap();
        let mut other = Newton::new(&twin, $around(&twin, $lr), config()).unwrap();
        let mut rounding = Rounding { unit: f64::from(<$E>::EPSILON) / 2.0, rates: 0.0 };
        let mut checked = 0;
        let undone = $steps / 2..$steps / 2 + 2;
        for step in 0..$steps {
            let factor = if undone.contains(&step) { 1e6 } else { 1.0 };
            let before = weights(&model);
            let loss = mse_loss(model.forward(x.trace(model.alloc_grads())), y.clone());
            let value = factor * f64::from(loss.array());
            newton.step(&mut model, &loss.backward(), value).unwrap();
            let loss = mse_loss(twin.forward(x_twin.trace(twin.alloc_grads())), y_twin.clone());
            let value = factor * f64::from(loss.array());
            other.step(&mut twin, &loss.backward(), value).unwrap();
            let after = weights(&model);
            rounding.check_step(&before, &after, &weights(&twin));
            let decisions = newton.history().iter().zip(other.history());
            decisions.skip(checked).for_each(|(cpu, gpu)| {
                rounding.check_decision(&after, cpu, gpu);
            });
            checked = newton.history().len();
            assert_eq!(other.history().len(), checked);
            take_over(&mut twin, &model);
        }
        let outcomes = || newton.history().iter().map(|decision| decision.outcome);
        assert!(outcomes().any(|outcome| matches!(outcome, Outcome::RolledBack(_))));
        assert!(outcomes().any(|outcome| outcome == Outcome::Scaled));
        // The tests' strength: what a wrong sum would exceed.
        assert!(rounding.rates < 0.1, "{} is allowed", rounding.rates);
    }};
}

macro_rules! agrees {
    ($($name:ident: $H:literal, $E:ty, $lr:expr, $steps:expr, $around:expr;)+) => {$(
        #[test]
        #[ignore = "gpu"]
        fn $name() {
            let Some(dev) = gpu() else { return };
            check_beside_cpu!(dev, $H, $E, $lr, $steps, $around);
        }
    )+};
}

agrees! {
    gpu_one_rate: 16, f64, LR, 200, |model: &_, lr| {
        optim::Sgd::new(model, SgdConfig { lr, ..Default::default() })
    };
    // With a tensor of more than one block.
    gpu_a_rate_a_layer: 1100, f64, LR, 60, |model: &_, lr| {
        PerLayer::new(model, optim::Sgd::new(model, SgdConfig { lr, ..Default::default() }))
    };
    gpu_momentum_of_our_own: 16, f64, LR, 200, |model: &_, lr| {
        let momentum = Some(Momentum::Classic(0.9));
        ours::Sgd::new(model, SgdConfig { lr, momentum, ..Default::default() })
    };
    gpu_adam_of_our_own_a_layer: 16, f64, LR, 200, |model: &_, lr| {
        PerLayer::new(model, ours::Adam::new(model, AdamConfig { lr, ..Default::default() }))
    };
    gpu_single_precision: 16, f32, 1e-2, 60, |model: &_, lr| {
        PerLayer::new(model, optim::Sgd::new(model, SgdConfig { lr, ..Default::default() }))
    };
}

const LR: f64 = 1e-5;

/// Two GPU runs are one run.
#[test]
#[ignore = "gpu"]
fn gpu_resumes() {
    let Some(dev) = gpu() else { return };
    let make = |seed| {
        let model: Layers<16, f64, Cuda> = {
            let host: Layers<16, f64, Cpu> = BuildModule::build(&Cpu::seed_from_u64(seed));
            host.to_device(&dev)
        };
        let sgd = ours::Sgd::new(&model, SgdConfig { lr: LR, ..Default::default() });
        let config = NewtonConfig::default().window(Window::steps(3).unwrap());
        let newton = Newton::new(&model, PerLayer::new(&model, sgd), config).unwrap();
        (model, newton)
    };
    let x: Tensor<Rank2<8, 4>, f64, _> = Cpu::seed_from_u64(2).sample_normal();
    let x = x.to_device(&dev);
    let steps = |model: &mut Layers<16, f64, Cuda>, newton: &mut Newton<_>, count| {
        for _ in 0..count {
            let loss = model.forward(x.trace(model.alloc_grads())).square().mean();
            let value = loss.array();
            newton.step(model, &loss.backward(), value).unwrap();
        }
    };
    let (mut model, mut newton) = make(1);
    steps(&mut model, &mut newton, 10);
    let checkpoint = newton.checkpoint(&model).unwrap();
    let (mut other, mut resumed) = make(3);
    resumed.resume(&mut other, &checkpoint).unwrap();
    steps(&mut model, &mut newton, 10);
    steps(&mut other, &mut resumed, 10);
    assert_eq!(resumed.history(), newton.history());
    assert_eq!(other.0.weight.as_vec(), model.0.weight.as_vec());
}

/// Leaves the weights where they are, so that nothing but the window's own work is counted.
struct Still;

impl TunableOptimizer for Still {
    type Model = Layers<16, f32, Cuda>;
    type Dtype = f32;
    type Device = Cuda;

    fn rate(&self, _group: usize) -> f64 {
        0.1
    }

    fn set_rate(&mut self, _group: usize, _rate: f64) {}

    fn reset(&mut self, _model: &Self::Model) {}
}

impl Optimizer<Layers<16, f32, Cuda>, Cuda, f32> for Still {
    fn update(
        &mut self,
        _model: &mut Layers<16, f32, Cuda>,
        _gradients: &Gradients<f32, Cuda>,
    ) -> Result<(), OptimizerUpdateError<CudaError>> {
        Ok(())
    }
}

/// What is left of a launch once all it needs is on the GPU.
const ONE_LAUNCH: Counts = Counts {
    launches: 1,
    copies_to_gpu: 0,
    copies_to_host: 1,
    copies_within_gpu: 0,
    fills: 0,
    allocations: 0,
    frees: 0,
    waits: 1,
};

/// Fails if a table of addresses is sent that is there already, if one that has changed is not, or
/// if anything else is asked of the GPU.
#[test]
#[ignore = "gpu"]
fn gpu_is_asked_for_little_by_a_window() {
    let Some(dev) = gpu() else { return };
    let mut model: Layers<16, f32, Cuda> = BuildModule::build(&dev);
    // Neither ramp nor safeguard: nothing is measured but the window.
    let config = NewtonConfig::paper_text().window(Window::steps(1).unwrap());
    let mut newton = Newton::new(&model, Still, config).unwrap();
    let mut gradients = model.alloc_grads();
    let mut window = |model: &mut Layers<16, f32, Cuda>| {
        let mut step = || newton.step_owned(model, &mut gradients, 0.5);
        let asked = counted(|| assert!(step().is_ok()));
        let moved = newton.history().last().and_then(|decision| decision.products);
        (asked, moved.map(|products| products.nn))
    };
    // A and B change places, so there are two tables.
    for _ in 0..3 {
        window(&mut model);
    }
    for _ in 0..4 {
        let (asked, _) = window(&mut model);
        assert!(asked.is_none_or(|asked| asked == ONE_LAUNCH), "{asked:?}");
    }
    // dfdx writes to other memory while a clone has the old one.
    let before = model.clone();
    model.2.bias.copy_from(&[before.2.bias.array()[0] + 3.0]);
    let sent = Counts { copies_to_gpu: 1, ..ONE_LAUNCH };
    for moves in [true, false] {
        let (asked, moved) = window(&mut model);
        assert!(asked.is_none_or(|asked| asked == sent), "{asked:?}");
        let expected = if moves { 900.0 } else { 0.0 };
        assert!(moved.is_some_and(|moved| (moved - expected).abs() < 1e-3), "{moved:?}");
    }
    let (asked, _) = window(&mut model);
    assert!(asked.is_none_or(|asked| asked == ONE_LAUNCH), "{asked:?}");
}

/// A step with lent gradients, all of them zeros: so no element says whether one is missing. Fails
/// if one is copied to the host to find that out.
#[test]
#[ignore = "gpu"]
fn gpu_is_not_waited_for_to_find_a_missing_gradient() {
    let Some(dev) = gpu() else { return };
    let mut model: Layers<16, f32, Cuda> = BuildModule::build(&dev);
    let sgd = ours::Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    let config = NewtonConfig::paper_text().window(Window::steps(100).unwrap());
    let mut newton = Newton::new(&model, sgd, config).unwrap();
    let gradients = model.alloc_grads();
    for step in 0..4 {
        let mut made = || newton.step(&mut model, &gradients, 0.5);
        let asked = counted(|| assert!(matches!(made(), Ok(Step::Made))));
        let waits = |asked: &Counts| asked.copies_to_host + asked.waits;
        assert!(step == 0 || asked.is_none_or(|asked| waits(&asked) == 0), "{asked:?}");
    }
    let error = newton.step(&mut model, &Gradients::leaky(), 0.5).unwrap_err();
    assert!(matches!(error, Error::UnusedParameters { tensors } if tensors.len() == 4));
}

/// As for the window. The gradients stay where they are.
#[test]
#[ignore = "gpu"]
fn gpu_is_asked_for_little_by_a_slope() {
    let Some(dev) = gpu() else { return };
    let mut model: Layers<16, f32, Cuda> = BuildModule::build(&dev);
    let mut newton = Newton::new(&model, Still, NewtonConfig::default()).unwrap();
    let x: Tensor<Rank2<32, 4>, f32, _> = dev.sample_normal();
    let loss = model.forward(x.trace(model.alloc_grads())).square().mean();
    let mut gradients = loss.backward();
    for step in 0..4 {
        let mut step_made = || newton.step_owned(&mut model, &mut gradients, 0.5);
        let asked = counted(|| assert!(matches!(step_made(), Ok(Step::Ramped { .. }))));
        assert!(step == 0 || asked.is_none_or(|asked| asked == ONE_LAUNCH), "{asked:?}");
    }
}

/// Fails if dfdx or cudarc shows a tensor in another way than `gpu_place` reads: elements would
/// then be copied by way of the host.
#[test]
#[ignore = "gpu"]
fn gpu_addresses_are_known() {
    let Some(dev) = gpu() else { return };
    fn check<E: Dtype>(dev: &Cuda)
    where
        Cuda: Device<E>,
    {
        let first: Tensor<Rank2<3, 5>, E, Cuda> = dev.zeros();
        let second: Tensor<Rank1<1>, E, Cuda> = dev.zeros();
        let places = (gpu_place(&first, 15).unwrap(), gpu_place(&second, 1).unwrap());
        assert_ne!(places.0.address, places.1.address);
        assert_eq!(places.0.device, places.1.device);
        let reshaped: Tensor<Rank1<15>, E, Cuda> = first.clone().reshape();
        assert_eq!(gpu_place(&reshaped, 15), Some(places.0));
        assert_eq!(gpu_place(&first, 14), None);
    }
    check::<f32>(&dev);
    check::<f64>(&dev);
    #[cfg(feature = "f16")]
    {
        check::<dfdx::dtypes::f16>(&dev);
        check::<dfdx::dtypes::AMP<dfdx::dtypes::f16>>(&dev);
    }
}
