//! The start on dfdx models: around wrappers, saved in the middle, and without a trace of what went
//! too far. What the engine decides is tested in `tlr/tests/engine_witness.rs`.

use dfdx::{
    optim::{AdamConfig, Momentum, SgdConfig},
    prelude::*,
};
use tlr::{
    optim::{Accumulate, Adam, Clip, Sgd},
    Checkpoint, Newton, NewtonConfig, Outcome, PerLayer, Step, TunableOptimizer, Window,
};

type Net = (modules::Linear<4, 16, f32, Cpu>, Tanh, modules::Linear<16, 1, f32, Cpu>);

fn net() -> (Cpu, Net) {
    let dev = Cpu::seed_from_u64(1);
    dev.enable_cache();
    let net = dev.build_module::<(Linear<4, 16>, Tanh, Linear<16, 1>), f32>();
    (dev, net)
}

/// Batches of tanh(Σx), by a device of their own.
struct Batches(Cpu);

impl Batches {
    fn new() -> Self {
        Self(Cpu::seed_from_u64(2))
    }

    fn next(&mut self) -> Batch {
        self.0.sample_normal()
    }
}

type Batch = Tensor<Rank2<32, 4>, f32, Cpu>;

/// The gradients of the mean squared error, and that.
fn gradients(net: &Net, x: &Batch) -> (Gradients<f32, Cpu>, f32) {
    let y = x.clone().sum::<Rank1<32>, _>().tanh().reshape::<Rank2<32, 1>>();
    let loss = mse_loss(net.forward(x.trace(net.alloc_grads())), y);
    let value = loss.array();
    (loss.backward(), value)
}

fn sgd(net: &Net, lr: f64, momentum: Option<Momentum>) -> Sgd<Net, f32, Cpu> {
    Sgd::new(net, SgdConfig { lr, momentum, weight_decay: None })
}

fn config() -> NewtonConfig {
    NewtonConfig::default().window(Window::steps(20).unwrap())
}

/// The mean of the last twenty of 300 losses, the ramp's steps, and the rates at its end.
fn train<Opt>(make: impl Fn(&Net) -> Opt, config: NewtonConfig, told: bool) -> (f32, u64, Vec<f64>)
where
    Opt: TunableOptimizer<Model = Net, Dtype = f32, Device = Cpu>,
{
    let (_dev, mut net) = net();
    let mut opt = Newton::new(&net, make(&net), config).unwrap();
    let (mut batches, mut losses) = (Batches::new(), Vec::new());
    for _ in 0..300 {
        let (gradients, loss) = gradients(&net, &batches.next());
        losses.push(loss);
        match told {
            true => opt.step(&mut net, &gradients, loss).unwrap(),
            false => opt.update(&mut net, &gradients).unwrap(),
        };
    }
    let ramped = |decision: &&tlr::Adaptation| decision.outcome == Outcome::Ramped;
    let end = opt.history().iter().filter(ramped).map(|decision| decision.step).max().unwrap();
    let last = opt.history().iter().filter(|decision| decision.step == end);
    let rates = last.filter(ramped).map(|decision| decision.to).collect();
    (losses[280..].iter().sum::<f32>() / 20.0, end, rates)
}

// Whatever rate is given, with and without the loss, one rate and a rate a layer, and around every
// optimizer: the loss at the start is about 0.7, and a tenth of it is left at most. Fails where a
// wrapper hides the gradients, the way or the rates from the ramp.
#[test]
fn any_start_around_any_optimizer() {
    let momentum = Some(Momentum::Classic(0.9));
    let mut found = Vec::new();
    for lr in [1e-12, 1e-3, 1e3] {
        for told in [true, false] {
            let adam = |net: &Net| Adam::new(net, AdamConfig { lr, ..Default::default() });
            let runs = [
                train(|net| sgd(net, lr, None), config(), told),
                train(|net| sgd(net, lr, momentum), config(), told),
                train(adam, config(), told),
                train(|net| PerLayer::new(net, sgd(net, lr, None)), config(), told),
                train(|net| PerLayer::new(net, adam(net)), config(), told),
                train(|net| Clip::by_norm(sgd(net, lr, None), 1e3).unwrap(), config(), told),
                train(|net| sgd(net, lr, None), config().bf16_directions(true), told),
            ];
            for (index, (loss, steps, _)) in runs.iter().enumerate() {
                assert!(*loss < 0.07, "run {index} from {lr:e}: {loss}");
                assert!((10..=60).contains(steps), "run {index} from {lr:e}: {steps} steps");
            }
            found.push(runs.map(|(_, _, rates)| rates));
        }
    }
    assert!(found.iter().all(|rates| *rates == found[0]), "{found:?}");
    // Two snapshots, and a snapshot and a direction, see the same way.
    assert_eq!(found[0][0], found[0][6]);
}

// From sketches the slope is an estimate, and there is nothing to go back to.
#[test]
fn from_sketches() {
    // No window ends, so that the ramp's rate stays.
    let config = config().safeguard(None).window(Window::steps(1000).unwrap());
    let exact = train(|net| sgd(net, 1e-6, None), config, true);
    let sketched = config.sketch(NewtonConfig::SKETCH);
    let sketched = train(|net| sgd(net, 1e-6, None), sketched, true);
    assert!(sketched.0 < 0.07 && exact.0 < 0.07, "{sketched:?} {exact:?}");
    let ratio = sketched.2[0] / exact.2[0];
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
}

// Gathered batches: the ramp's steps are the optimizer's, four batches each.
#[test]
fn gathered_batches() {
    let plain = train(|net| sgd(net, 1e-6, None), config(), true);
    let four = |net: &Net| Accumulate::new(sgd(net, 1e-6, None), 4).unwrap();
    let (_, steps, rates) = train(four, config(), true);
    let ratio = rates[0] / plain.2[0];
    assert!((10..=60).contains(&steps) && (0.25..4.0).contains(&ratio), "{ratio} after {steps}");
}

// Saved at every step of the ramp and shortly after, and resumed in a new process: to the bit.
#[test]
fn a_ramp_goes_on_to_the_bit() {
    let make = |net: &Net| PerLayer::new(net, sgd(net, 1e-3, Some(Momentum::Classic(0.9))));
    let (_dev, mut net_a) = net();
    let mut straight = Newton::new(&net_a, make(&net_a), config()).unwrap();
    let mut batches = Batches::new();
    for step in 0..60 {
        let saved = straight.checkpoint(&net_a).unwrap().to_bytes().unwrap();
        let batch = batches.next();
        let (here, loss) = gradients(&net_a, &batch);
        let made = straight.step(&mut net_a, &here, loss).unwrap();

        let (_dev, mut net_b) = net();
        let mut resumed = Newton::new(&net_b, make(&net_b), config()).unwrap();
        resumed.resume(&mut net_b, &Checkpoint::from_bytes(&saved).unwrap()).unwrap();
        let (here, loss) = gradients(&net_b, &batch);
        assert_eq!(resumed.step(&mut net_b, &here, loss).unwrap(), made, "step {step}");
        assert_eq!(net_b.0.weight.as_vec(), net_a.0.weight.as_vec(), "step {step}");
        assert_eq!(resumed.rates(), straight.rates());
    }
}

/// The first weight's way in the step after the ramp, its gradient then, and the rate.
fn step_after_the_ramp<Opt>(make: impl Fn(&Net) -> Opt) -> (f32, f32, f32)
where
    Opt: TunableOptimizer<Model = Net, Dtype = f32, Device = Cpu>,
{
    let (_dev, mut net) = net();
    let mut opt = Newton::new(&net, make(&net), config()).unwrap();
    let mut batches = Batches::new();
    loop {
        let (gradients, loss) = gradients(&net, &batches.next());
        let (before, rate) = (net.0.weight.clone(), opt.rates()[0].1);
        if let Step::Made = opt.step(&mut net, &gradients, loss).unwrap() {
            let way = before.as_vec()[0] - net.0.weight.as_vec()[0];
            return (way, gradients.get(&before).as_vec()[0], rate as f32);
        }
    }
}

// Momentum begins from rest there, so that the step is plain descent's. Adam's averages stay: a new
// Adam's first step is its rate, up or down. Fails if the trainer does not clear the optimizer, or
// clears one that is normalized.
#[test]
fn the_velocity_of_the_ramp_is_cleared() {
    let momentum = Some(Momentum::Classic(0.9));
    let (way, gradient, rate) = step_after_the_ramp(|net| sgd(net, 0.1, momentum));
    assert!((way / (rate * gradient) - 1.0).abs() < 1e-3, "{way}, {rate} times {gradient}");
    let (way, _, rate) = step_after_the_ramp(|net| Adam::new(net, AdamConfig::default()));
    assert!((way.abs() / rate - 1.0).abs() > 0.01, "{way} {rate}");
}

// What went too far leaves nothing behind: not in the weights, not in batch norm's running means,
// and not in the momentum. The loss is told to explode in the middle of the ramp, with gradients
// that say the same.
#[test]
fn too_far_leaves_nothing_behind() {
    let dev = Cpu::seed_from_u64(1);
    let mut net = dev.build_module::<(Linear<4, 8>, BatchNorm1D<8>, Linear<8, 1>), f32>();
    let momentum = Some(Momentum::Classic(0.9));
    let sgd = Sgd::new(&net, SgdConfig { lr: 0.1, momentum, weight_decay: None });
    let mut opt = Newton::new(&net, sgd, config()).unwrap();
    let x: Tensor<Rank2<32, 4>, f32, _> = dev.sample_normal();
    // The first forward pass is at the starting weights, and its statistics stay.
    let mut before = net.clone();
    let _ = before.forward_mut(x.trace(before.alloc_grads()));
    let mut undone = false;
    for step in 0..40 {
        let loss = net.forward_mut(x.trace(net.alloc_grads())).square().mean();
        let value = loss.array();
        // From step 12 on the gradients point the other way, a thousand times as long.
        let (loss, value) = match step < 12 {
            true => (loss, value),
            false => (loss * -1000.0, value),
        };
        let step = opt.step(&mut net, &loss.backward(), value).unwrap();
        if let Step::RolledBack { .. } = step {
            undone = true;
            break;
        }
    }
    assert!(undone);
    assert_eq!(net.0.weight.as_vec(), before.0.weight.as_vec());
    assert_eq!(net.1.running_mean.as_vec(), before.1.running_mean.as_vec());
    assert_eq!(net.1.running_var.as_vec(), before.1.running_var.as_vec());
    assert_eq!(net.2.bias.as_vec(), before.2.bias.as_vec());
}
