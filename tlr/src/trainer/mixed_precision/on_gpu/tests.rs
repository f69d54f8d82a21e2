//! The kernels' way against the host's, on a GPU or on the stand-in for one.
#![allow(clippy::unwrap_used)]
#[path = "../../../../tests/counts/mod.rs"]
mod counts;

use super::*;
use crate::{needs, optim::Sgd, trainer::MixedPrecision, LossScale, Newton, NewtonConfig, Window};
use counts::{counted, Counts};
use dfdx::{
    dtypes::{f16, AMP},
    nn::builders,
    optim::SgdConfig,
    prelude::*,
};

type Half = AMP<f16>;
type Builder = (builders::Linear<4, 16>, builders::BatchNorm1D<16>, Tanh, builders::Linear<16, 1>);
type Net<E> = <Builder as BuildOnDevice<Cuda, E>>::Built;
type Master = Sgd<Net<f32>, f32, Cuda>;

fn gpu() -> Option<Cuda> {
    let found = std::panic::catch_unwind(|| Cuda::seed_from_u64(1));
    needs::found("gpu", found.is_ok());
    found.ok()
}

struct Run {
    dev: Cuda,
    model: Net<Half>,
    opt: MixedPrecision<Net<Half>, Half, Master, crate::engine::NewtonRule>,
}

impl Run {
    fn new(dev: &Cuda) -> Self {
        let host: <Builder as BuildOnDevice<Cpu, Half>>::Built =
            Cpu::seed_from_u64(1).build_module::<Builder, Half>();
        let model = host.to_device(dev);
        let config = NewtonConfig::paper_text().window(Window::steps(5).unwrap());
        let opt = MixedPrecision::new(&model, LossScale::default(), |master: &Net<f32>| {
            let sgd = Sgd::new(master, SgdConfig { lr: 1e-3, ..Default::default() });
            Newton::new(master, sgd, config)
        });
        Self { dev: dev.clone(), model, opt: opt.unwrap() }
    }

    /// The gradients of the scaled loss, times `factor`, and the loss.
    fn backward(&mut self, seed: u64, factor: f32) -> (Gradients<Half, Cuda>, f32) {
        let x: Tensor<Rank2<32, 4>, f32, _> = Cpu::seed_from_u64(seed).sample_normal();
        let x = x.as_vec().into_iter().map(|x| AMP(f16::from_f32(x))).collect();
        let x: Tensor<Rank2<32, 4>, Half, _> = self.dev.tensor_from_vec(x, Default::default());
        let prediction = self.model.forward_mut(x.trace(self.model.alloc_grads()));
        let loss = prediction.square().mean::<Rank0, _>();
        let value = loss.array().0.to_f32();
        let loss = loss * AMP(f16::from_f32(factor));
        (self.opt.scaled(loss).unwrap().backward(), value)
    }

    fn step(&mut self, seed: u64, factor: f32) {
        let (gradients, loss) = self.backward(seed, factor);
        self.opt.step(&mut self.model, &gradients, loss).unwrap();
    }

    /// All numbers of the model and of the master, as bits.
    fn bits(&self) -> (Vec<u16>, Vec<u32>) {
        let (mut model, mut master) = (Vec::new(), Vec::new());
        tensors::read(&self.model, |tensor| model.extend(tensor.to_vec()));
        tensors::read(self.opt.master(), |tensor| master.extend(tensor.to_vec()));
        let model = model.into_iter().map(|AMP(x): Half| x.to_bits());
        (model.collect(), master.into_iter().map(f32::to_bits).collect())
    }
}

// Fails for a wrong factor or type, for a tensor that is left out or copied in the wrong
// direction, and where an overflow is not seen, or seen where there is none.
#[test]
#[ignore = "gpu"]
fn gpu_masters_are_those_of_the_host() {
    let Some(dev) = gpu() else { return };
    let course = |by_host| {
        BY_HOST.set(by_host);
        let mut run = Run::new(&dev);
        // Some overflow.
        let steps = (0..24).map(|step| {
            run.step(step, if step % 7 == 3 { 6e4 } else { 1.0 });
            (run.bits(), run.opt.loss_scale(), run.opt.skipped_steps())
        });
        let course: Vec<_> = steps.collect();
        BY_HOST.set(false);
        course
    };
    let ours = course(false);
    assert!(ours == course(true));
    let (first, .., skipped) = (&ours[0].0, ours[23].1, ours[23].2);
    assert!(*first != ours[23].0 && skipped > 0 && skipped < 24);
}

// Fails where kernels write to memory that a clone has too.
#[test]
#[ignore = "gpu"]
fn gpu_a_clone_of_the_model_stays() {
    let Some(dev) = gpu() else { return };
    let mut run = Run::new(&dev);
    run.step(0, 1.0);
    let (before, clones) = (run.bits(), (run.model.clone(), run.opt.master().clone()));
    run.step(1, 1.0);
    assert!(run.bits() != before);
    (run.model, run.opt.master) = clones;
    assert!(run.bits() == before);
}

// A gradient that is missing is reported, and nothing has moved.
#[test]
#[ignore = "gpu"]
fn gpu_missing_gradients() {
    let Some(dev) = gpu() else { return };
    let mut run = Run::new(&dev);
    let before = run.bits();
    let fault = |by_host| {
        BY_HOST.set(by_host);
        let stepped = run.opt.step(&mut run.model, &Gradients::leaky(), 1.0);
        BY_HOST.set(false);
        stepped.unwrap_err()
    };
    let faults = [false, true].map(fault);
    assert!(faults.iter().all(|fault| matches!(fault,
        Error::UnusedParameters { tensors } if tensors.len() == 6)));
    assert_eq!(faults[0].to_string(), faults[1].to_string());
    assert!(run.bits() == before);
}

/// As many f32 as this for each f16: itself, halfway to the next one, and what lies beside that.
const EACH: usize = 4;
const ALL: usize = EACH << 16;

// Every f16 as a gradient, and every place where rounding to f16 changes.
#[test]
#[ignore = "gpu"]
fn gpu_converts_like_the_host() {
    let Some(dev) = gpu() else { return };
    let same = |ours: f32, theirs: f32| ours.to_bits() == theirs.to_bits() || theirs.is_nan();
    let mut converter = Converter::default();

    let half_at = |at| f16::from_bits((at / EACH) as u16);
    let mut model: Tensor<Rank1<ALL>, f16, Cuda> = dev.zeros();
    let mut master: Tensor<Rank1<ALL>, f32, Cuda> = dev.zeros();
    let factors = dev.tensor_from_vec((0..ALL).map(half_at).collect(), Rank1::<ALL>::default());
    let scaled = (model.leaky_trace() * factors).sum::<Rank0, _>().backward();
    // dfdx adds to 0, which takes the sign from −0.
    let halves = scaled.get(&model).as_vec();
    let ids = [tensors::id(&model).unwrap()];
    let unscaled = unscale(&mut converter, (&model, &master), &scaled, &ids, 0.125);
    let unscaled = unscaled.unwrap().unwrap();
    assert_eq!(unscaled.are_finite, Some(false));
    for (ours, half) in unscaled.gradients.get(&master).as_vec().into_iter().zip(&halves) {
        assert!(same(ours, 0.125 * half.to_f32()) && ours.is_nan() == half.is_nan(), "{half:?}");
    }

    let singles = (0..ALL).map(|at| {
        let (half, next) = (half_at(at), half_at(at).to_bits().wrapping_add(1));
        let middle = (half.to_f32() + f16::from_bits(next).to_f32()) / 2.0;
        match at % EACH {
            0 => half.to_f32(),
            1 => middle,
            2 => f32::from_bits(middle.to_bits().wrapping_add(1)),
            _ => f32::from_bits(middle.to_bits().wrapping_sub(1)),
        }
    });
    let singles: Vec<_> = singles.collect();
    master.copy_from(&singles);
    assert!(narrow::<f16, Cuda>(&mut converter, &master, &mut model, true));
    for (ours, single) in model.as_vec().into_iter().zip(&singles) {
        let theirs = f16::from_f32(*single);
        let same = ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan());
        assert!(same, "{single:e}: {ours:?} for {theirs:?}");
    }
}

/// What a step asks for: by the optimizer, six launches. All six tensors that are trained have a
/// gradient, of which there is a copy, and one without the scale. Two more are buffers.
const STEP: Counts = Counts {
    launches: 6 + 3,
    copies_to_gpu: 1,
    copies_to_host: 1,
    copies_within_gpu: 6,
    fills: 6 + 2 + 8,
    allocations: 12,
    frees: 12,
    waits: 1,
};

// Fails if more is asked of the GPU than one launch for the gradients, and one in each direction
// between model and master.
#[test]
#[ignore = "gpu"]
fn gpu_is_asked_for_little_by_a_master() {
    let Some(dev) = gpu() else { return };
    let asked = |by_host| {
        BY_HOST.set(by_host);
        let mut run = Run::new(&dev);
        let mut asked = None;
        for seed in 0..4 {
            let (gradients, loss) = run.backward(seed, 1.0);
            asked = counted(|| {
                assert!(run.opt.step(&mut run.model, &gradients, loss).is_ok());
            });
        }
        BY_HOST.set(false);
        asked
    };
    let (ours, theirs) = (asked(false), asked(true));
    assert!(ours.is_none_or(|ours| ours == STEP), "{ours:?}, by the host {theirs:?}");
}
