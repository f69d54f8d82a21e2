//! On a GPU: the decisions, rates and weights of the CPU.
//!
//! `cargo test -p tlr --features cuda -- --ignored gpu`. Where there is none, the tests say so and
//! pass.
#![cfg(feature = "cuda")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

use dfdx::{
    optim::{self, AdamConfig, Momentum, SgdConfig},
    prelude::*,
};
use tlr::{optim as ours, Newton, NewtonConfig, Outcome, PerLayer, Window};

type Layers<D> = (modules::Linear<4, 16, f64, D>, Tanh, modules::Linear<16, 1, f64, D>);

fn gpu() -> Option<Cuda> {
    // cudarc panics where there is no driver.
    let found = std::panic::catch_unwind(Cuda::default);
    if found.is_err() {
        eprintln!("skipped: there is no GPU");
    }
    found.ok()
}

/// What a run ends with.
struct Trained {
    outcomes: Vec<Outcome>,
    /// Of every decision.
    rates: Vec<f64>,
    weights: Vec<f64>,
}

/// Fits Σ tanh(x) from a rate that is far too small, with a window that is undone half-way.
macro_rules! train {
    ($dev:expr, $D:ty, $around:expr) => {{
        let cpu = Cpu::seed_from_u64(1);
        let host: Layers<Cpu> = BuildModule::build(&cpu);
        let x: Tensor<Rank2<32, 4>, f64, _> = cpu.sample_normal();
        let y = x.clone().tanh().sum::<Rank1<32>, _>().reshape::<Rank2<32, 1>>();
        let dev: $D = $dev;
        let (x, y) = (x.to_device(&dev), y.to_device(&dev));
        let mut model: Layers<$D> = host.to_device(&dev);
        let config = NewtonConfig::default().window(Window::steps(5).unwrap());
        let mut newton = Newton::new(&model, $around(&model), config).unwrap();
        for step in 0..200 {
            let loss = mse_loss(model.forward(x.trace(model.alloc_grads())), y.clone());
            let value = loss.array() * if (100..102).contains(&step) { 1e6 } else { 1.0 };
            newton.step(&mut model, &loss.backward(), value).unwrap();
        }
        let (first, second) = (&model.0, &model.2);
        let tensors = [
            first.weight.as_vec(),
            first.bias.as_vec(),
            second.weight.as_vec(),
            second.bias.as_vec(),
        ];
        Trained {
            outcomes: newton.history().iter().map(|decision| decision.outcome).collect(),
            rates: newton.history().iter().map(|decision| decision.to).collect(),
            weights: tensors.concat(),
        }
    }};
}

/// Sums are in another order there, each to 1e-16, and two hundred steps pass them on.
fn agree(cpu: &Trained, gpu: &Trained) {
    assert!(cpu.outcomes.iter().any(|outcome| matches!(outcome, Outcome::RolledBack(_))));
    assert_eq!(gpu.outcomes, cpu.outcomes);
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(1e-3);
    let pairs = cpu.rates.iter().zip(&gpu.rates).chain(cpu.weights.iter().zip(&gpu.weights));
    for (cpu, gpu) in pairs {
        assert!(close(*cpu, *gpu), "{gpu} on the GPU, {cpu} on the CPU");
    }
}

macro_rules! agrees {
    ($($name:ident: $around:expr;)+) => {$(
        #[test]
        #[ignore = "gpu"]
        fn $name() {
            let Some(dev) = gpu() else { return };
            agree(&train!(Cpu::default(), Cpu, $around), &train!(dev, Cuda, $around));
        }
    )+};
}

const LR: f64 = 1e-5;

agrees! {
    gpu_one_rate: |model: &_| {
        optim::Sgd::new(model, SgdConfig { lr: LR, ..Default::default() })
    };
    gpu_a_rate_a_layer: |model: &_| {
        let sgd = optim::Sgd::new(model, SgdConfig { lr: LR, ..Default::default() });
        PerLayer::new(model, sgd)
    };
    gpu_momentum_of_our_own: |model: &_| {
        let momentum = Some(Momentum::Classic(0.9));
        ours::Sgd::new(model, SgdConfig { lr: LR, momentum, ..Default::default() })
    };
    gpu_adam_of_our_own_a_layer: |model: &_| {
        let adam = ours::Adam::new(model, AdamConfig { lr: LR, ..Default::default() });
        PerLayer::new(model, adam)
    };
}

/// Two GPU runs are one run.
#[test]
#[ignore = "gpu"]
fn gpu_resumes() {
    let Some(dev) = gpu() else { return };
    let make = |seed| {
        let model: Layers<Cuda> = {
            let host: Layers<Cpu> = BuildModule::build(&Cpu::seed_from_u64(seed));
            host.to_device(&dev)
        };
        let sgd = ours::Sgd::new(&model, SgdConfig { lr: LR, ..Default::default() });
        let config = NewtonConfig::default().window(Window::steps(3).unwrap());
        let newton = Newton::new(&model, PerLayer::new(&model, sgd), config).unwrap();
        (model, newton)
    };
    let x: Tensor<Rank2<8, 4>, f64, _> = Cpu::seed_from_u64(2).sample_normal();
    let x = x.to_device(&dev);
    let steps = |model: &mut Layers<Cuda>, newton: &mut Newton<_>, count| {
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
