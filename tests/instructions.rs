//! What a learned rate costs, in instructions: the same count whatever else the machine does,
//! unlike seconds. By valgrind's callgrind.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use dfdx::{nn::builders, optim::SgdConfig, prelude::*};
use std::process::{Command, Stdio};
use tlr::{optim::Sgd, Newton, NewtonConfig, PerLayer, TrainableLr, TunableOptimizer, Window};

/// What a process of its own is to do.
const TASK: &str = "TLR_COUNTED_TASK";

/// Instructions of a process that takes so many steps.
fn instructions(task: &str, layers: usize, steps: usize) -> Option<f64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "in_a_process_that_is_counted", "--ignored", "--test-threads=1"]);
    command.env(TASK, format!("{task} {layers} {steps}")).env("RAYON_NUM_THREADS", "1");
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let count = text.lines().find_map(|line| line.split_once("Collected :"));
    Some(count.unwrap_or_else(|| panic!("{text}")).1.trim().parse().unwrap())
}

/// Of one step: what more steps take more, without start and end.
fn of_a_step(task: &str, layers: usize) -> Option<f64> {
    let (few, many) = (instructions(task, layers, 5)?, instructions(task, layers, 15)?);
    Some((many - few) / 10.0)
}

#[test]
#[ignore = "run by others, in a process of its own"]
fn in_a_process_that_is_counted() {
    let task = std::env::var(TASK).unwrap();
    let words: Vec<_> = task.split(' ').collect();
    let steps = words[2].parse().unwrap();
    match words[1] {
        "4" => train::<builders::Repeated<builders::Linear<64, 64>, 4>>(words[0], steps),
        "8" => train::<builders::Repeated<builders::Linear<64, 64>, 8>>(words[0], steps),
        other => panic!("{other} layers"),
    }
}

/// Updates only: what forward and backward take is dfdx's affair.
fn train<B: BuildOnDevice<Cpu, f32>>(task: &str, steps: usize)
where
    B::Built: TrainableLr<f32, Cpu> + ZeroGrads<f32, Cpu>,
{
    let dev = Cpu::seed_from_u64(1);
    dev.enable_cache();
    let mut model = dev.build_module::<B, f32>();
    let gradients = model.alloc_grads();
    let mut sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    match task {
        "plain" => (0..steps).for_each(|_| sgd.update(&mut model, &gradients).unwrap()),
        "one-rate" => learn(model, sgd, 1, steps),
        "one-rate-long" => learn(model, sgd, 100, steps),
        "per-layer" => {
            let per_layer = PerLayer::new(&model, sgd);
            learn(model, per_layer, 1, steps);
        }
        "per-layer-long" => {
            let per_layer = PerLayer::new(&model, sgd);
            learn(model, per_layer, 100, steps);
        }
        other => panic!("{other}"),
    }
}

fn learn<Opt>(mut model: Opt::Model, optimizer: Opt, window: usize, steps: usize)
where
    Opt: TunableOptimizer<Dtype = f32, Device = Cpu>,
    Opt::Model: ZeroGrads<f32, Cpu>,
{
    let gradients = model.alloc_grads();
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .window(Window::steps(window).unwrap())
        .climb(None);
    let mut newton = Newton::new(&model, optimizer, config).unwrap();
    for _ in 0..steps {
        newton.step(&mut model, &gradients, 1.0).unwrap();
    }
}

// Measured with rustc 1.95 on x86-64, as tests are compiled: 1.006 and 1.004 with long windows,
// 1.39 to 1.52 with windows of one step (the learned rate takes as much in both cases, but the
// compiler makes the plain step by more or by fewer instructions, as it happens to cut the crate),
// 1.98 times as much with twice the layers. A second pass is .3 more. Fails for a
// copy of the model or of a layer's gradients in each step, for a second pass over a window's
// weights, and for what grows with the square of the layers.
#[test]
fn a_learned_rate_costs_little() {
    if !support::needs::found(
        "valgrind",
        Command::new("valgrind").arg("--version").output().is_ok(),
    ) {
        return;
    }
    let plain = of_a_step("plain", 8).unwrap();
    for (task, most) in
        [("one-rate-long", 1.03), ("per-layer-long", 1.03), ("one-rate", 1.65), ("per-layer", 1.65)]
    {
        let eight = of_a_step(task, 8).unwrap();
        assert!(eight < most * plain, "{task}: {} times a plain step", eight / plain);
        if !task.ends_with("long") {
            let ratio = eight / of_a_step(task, 4).unwrap();
            assert!((1.9..2.1).contains(&ratio), "{task}: {ratio} times half the layers");
        }
    }
}
