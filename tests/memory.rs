//! What a learned rate takes of memory, counted by the allocator.
#![allow(clippy::unwrap_used, missing_docs)]

use dfdx::{optim::SgdConfig, prelude::*};
use peak_alloc::PeakAlloc;
use tlr::{optim::Sgd, LearningRate, Newton, NewtonConfig, PerLayer, Window};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

type Net = (Linear<200, 300>, Tanh, Linear<300, 100>, Tanh, Linear<100, 100>);
type Model = <Net as BuildOnDevice<Cpu, f32>>::Built;

/// Names, groups, and a history of some windows.
const SMALL: usize = 40_000;

fn steps<Opt>(newton: &mut Newton<Opt>, model: &mut Model, gradients: &Gradients<f32, Cpu>)
where
    Opt: LearningRate<Model = Model, Dtype = f32, Device = Cpu>,
{
    for _ in 0..10 {
        newton.step(model, gradients, 1.0).unwrap();
    }
}

/// Bytes that `make` keeps, and the most it takes beside for its steps.
fn extra<Opt>(make: impl FnOnce(&Model) -> Newton<Opt>) -> (usize, usize)
where
    Opt: LearningRate<Model = Model, Dtype = f32, Device = Cpu>,
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

/// One test, as there is one allocator. Fails for a third snapshot, for a snapshot in f64, for a copy of the model in
/// each step, and for a copy of the gradients per layer.
#[test]
fn two_snapshots_and_the_largest_tensor_or_a_sketch() {
    let parameters = 200 * 300 + 300 + 300 * 100 + 100 + 100 * 100 + 100;
    let largest = 200 * 300;
    let config = NewtonConfig::default().window(Window::steps(2).unwrap());
    let sgd = |model: &Model| Sgd::new(model, SgdConfig { lr: 1e-3, ..Default::default() });
    let global = extra(|model| Newton::new(model, sgd(model), config).unwrap());
    let per_layer = extra(|model| {
        let optimizer = PerLayer::new(model, sgd(model));
        Newton::new(model, optimizer, config).unwrap()
    });
    for (kept, for_steps) in [global, per_layer] {
        let snapshots = 8 * parameters + 4 * largest;
        assert!((snapshots..snapshots + SMALL).contains(&kept), "{kept} for {snapshots}");
        // The copy of the gradients that the base optimizer works on, dfdx lending none.
        let gradients = 4 * parameters;
        assert!(for_steps < gradients + SMALL, "{for_steps} for {gradients}");
    }

    // C(B) and C(A − B), however large the model. In a step: two more, and the largest tensor, at a window's end.
    let bins = 1 << 10;
    let sketched = config.safeguard(None).sketch(bins);
    let (kept, for_steps) = extra(|model| Newton::new(model, sgd(model), sketched).unwrap());
    assert!((16 * bins..16 * bins + SMALL).contains(&kept), "{kept}");
    assert!(for_steps < 4 * parameters + SMALL, "{for_steps}");
}
