//! What a learned rate takes of memory, counted by the allocator.
#![allow(clippy::unwrap_used, missing_docs)]

use dfdx::{
    optim::{Momentum, SgdConfig},
    prelude::*,
};
use peak_alloc::PeakAlloc;
use tlr::{
    optim::Sgd,
    parallel::{Ranks, Threads},
    Checkpoint, DataParallel, Newton, NewtonConfig, Outcome, PerLayer, Safeguard, TunableOptimizer,
    Window,
};
use tlr_models::{
    data::digits,
    train::{train, InMemory, Options, Persistence},
    Mlp,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

type Net = (Linear<200, 300>, Tanh, Linear<300, 100>, Tanh, Linear<100, 100>);
type Model = <Net as BuildOnDevice<Cpu, f32>>::Built;

/// Names, groups, and a history of some windows.
const SMALL: usize = 40_000;

fn steps<Opt>(newton: &mut Newton<Opt>, model: &mut Model, gradients: &Gradients<f32, Cpu>)
where
    Opt: TunableOptimizer<Model = Model, Dtype = f32, Device = Cpu>,
{
    for _ in 0..10 {
        newton.step(model, gradients, 1.0).unwrap();
    }
}

/// The most that steps take by gradients of their own.
fn owned<Opt>(optimizer: impl FnOnce(&Model) -> Opt) -> usize
where
    Opt: TunableOptimizer<Model = Model, Dtype = f32, Device = Cpu>,
{
    let dev = Cpu::default();
    let mut model = dev.build_module::<Net, f32>();
    let x: Tensor<Rank2<4, 200>, f32, _> = dev.sample_normal();
    let mut gradients = model.forward(x.trace(model.alloc_grads())).square().mean().backward();
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(20).unwrap());
    let mut newton = Newton::new(&model, optimizer(&model), config).unwrap();
    newton.step_owned(&mut model, &mut gradients, 1.0).unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    for _ in 0..10 {
        newton.step_owned(&mut model, &mut gradients, 1.0).unwrap();
    }
    MEMORY.peak_usage() - before
}

// Fails if what a device keeps for tensors to come outlives the training: a sweep makes hundreds.
fn a_training_leaves_nothing() {
    let data = digits::draw(0, 64, 16).unwrap();
    let options = Options { epochs: 1, batch_size: 16, ..Options::default() };
    let after_one_more = || {
        let source = InMemory::new(&data, options.batch_size, options.seed, None).unwrap();
        train::<Mlp<784, 16, 10, f32, Cpu>>(
            &source,
            &options,
            &Persistence::default(),
            &mut |_| (),
        )
        .unwrap();
        MEMORY.current_usage()
    };
    let (first, second) = (after_one_more(), after_one_more());
    assert!(second <= first + SMALL, "{first} and then {second}");
}

/// Bytes that `make` keeps, and the most it takes beside for its steps.
fn extra<Opt>(make: impl FnOnce(&Model) -> Newton<Opt>) -> (usize, usize)
where
    Opt: TunableOptimizer<Model = Model, Dtype = f32, Device = Cpu>,
{
    let dev = Cpu::default();
    let mut model = dev.build_module::<Net, f32>();
    let x: Tensor<Rank2<4, 200>, f32, _> = dev.sample_normal();
    let gradients = model.forward(x.trace(model.alloc_grads())).square().mean().backward();
    let before = MEMORY.current_usage();
    let mut newton = make(&model);
    let kept = MEMORY.current_usage() - before;
    // The base optimizer takes its own at the first step.
    steps(&mut newton, &mut model, &gradients);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    steps(&mut newton, &mut model, &gradients);
    (kept, MEMORY.peak_usage() - before)
}

/// One test: there is one allocator, which counts what a test beside it takes as well, and the
/// harness for it. On one thread: dfdx's matrix products take memory once for each thread that
/// happens to share in one.
#[test]
fn as_much_memory_as_promised() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| {
        a_training_leaves_nothing();
        two_snapshots_or_a_sketch();
        ranks_share_out_the_snapshots();
        a_long_run_takes_no_more_than_a_short_one();
    });
}

/// Fails for a third snapshot, for a snapshot in f64, for a copy of the model in
/// each step, and for a copy of the gradients per layer.
fn two_snapshots_or_a_sketch() {
    let parameters = 200 * 300 + 300 + 300 * 100 + 100 + 100 * 100 + 100;
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(2).unwrap());
    let sgd = |model: &Model| Sgd::new(model, SgdConfig { lr: 1e-3, ..Default::default() });
    let global = extra(|model| Newton::new(model, sgd(model), config).unwrap());
    let per_layer = extra(|model| {
        let optimizer = PerLayer::new(model, sgd(model));
        Newton::new(model, optimizer, config).unwrap()
    });
    for (kept, for_steps) in [global, per_layer] {
        let snapshots = 8 * parameters;
        assert!((snapshots..snapshots + SMALL).contains(&kept), "{kept} for {snapshots}");
        // The copy of the gradients that the base optimizer works on, dfdx lending none.
        let gradients = 4 * parameters;
        assert!(for_steps < gradients + SMALL, "{for_steps} for {gradients}");
    }

    // Of gradients that it may change, and of weights that it need not go back to, there is no
    // copy.
    let theirs = |model: &Model| dfdx::optim::Sgd::new(model, SgdConfig::default());
    assert!(owned(sgd) < SMALL && owned(theirs) < SMALL);
    assert!(owned(|model| PerLayer::new(model, sgd(model))) < SMALL);

    let (kept, _) =
        extra(|model| Newton::new(model, sgd(model), config.bf16_directions(true)).unwrap());
    let one_and_a_half = 6 * parameters;
    assert!((one_and_a_half..one_and_a_half + SMALL).contains(&kept), "{kept}");

    // C(B) and C(A − B), however large the model. In a step: two more, at a window's end.
    let bins = 1 << 10;
    let sketched = config.safeguard(None).sketch(bins);
    let (kept, for_steps) = extra(|model| Newton::new(model, sgd(model), sketched).unwrap());
    assert!((16 * bins..16 * bins + SMALL).contains(&kept), "{kept}");
    assert!(for_steps < 4 * parameters + SMALL, "{for_steps}");
}

/// Fails if a rank of four keeps more than its quarter of the weights, most of which are in one
/// tensor.
fn ranks_share_out_the_snapshots() {
    let parameters = 200 * 300 + 300 + 300 * 100 + 100 + 100 * 100 + 100;
    let model = Cpu::default().build_module::<Net, f32>();
    for own in Threads::new(4) {
        let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
        let optimizer = DataParallel::new(sgd, Ranks::new(own)).shard_snapshots();
        let before = MEMORY.current_usage();
        let newton = Newton::new(&model, optimizer, NewtonConfig::default()).unwrap();
        let kept = MEMORY.current_usage() - before;
        drop(newton);
        let quarter = 8 * parameters / 4;
        assert!((quarter - 8..quarter + SMALL).contains(&kept), "{kept} for {quarter}");
    }
}

/// As much after twelve hundred windows as after two hundred, whatever happens in them: broken
/// batches, windows that are undone, checkpoints that are written and resumed. Fails where any of
/// it leaves something behind, be it one `f64` a window, and where `take_history` keeps anything.
fn a_long_run_takes_no_more_than_a_short_one() {
    let dev = Cpu::default();
    dev.enable_cache();
    let mut model = dev.build_module::<Linear<8, 4>, f32>();
    let x: Tensor<Rank2<4, 8>, f32, _> = dev.sample_normal();
    let config = SgdConfig { momentum: Some(Momentum::Classic(0.9)), ..Default::default() };
    let optimizer = PerLayer::new(&model, Sgd::new(&model, config));
    // The gradients have nothing to do with these losses.
    let by_losses_alone = Safeguard::default().blame(None);
    let window =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(2).unwrap());
    let window = window.safeguard(by_losses_alone);
    let mut newton = Newton::new(&model, optimizer, window).unwrap();
    let mut rollbacks = 0;
    let mut windows = |count: usize| {
        for window in 0..count {
            for step in 0..2 {
                let loss = model.forward(x.trace(model.alloc_grads())).square().mean();
                let value = f64::from(loss.array());
                // Of twenty windows one has a broken batch and two lose it all.
                let value = match (window % 20, step) {
                    (3, 0) => f64::NAN,
                    (11 | 12, _) => 1e3 * value + 1e3,
                    _ => value,
                };
                newton.step(&mut model, &loss.backward(), value).unwrap();
            }
            let decisions = newton.take_history();
            rollbacks +=
                decisions.iter().filter(|a| matches!(a.outcome, Outcome::RolledBack(_))).count();
            if window % 20 == 15 {
                let bytes = newton.checkpoint(&model).unwrap().to_bytes().unwrap();
                newton.resume(&mut model, &Checkpoint::from_bytes(&bytes).unwrap()).unwrap();
            }
        }
        MEMORY.current_usage()
    };
    // Until then dfdx's cache grows, by some bytes.
    let short = windows(200);
    let long = windows(1000);
    assert_eq!(long, short);
    assert!(rollbacks > 40, "{rollbacks}");
}
