//! Whole models on a GPU and on the CPU, from the same weights.
#![cfg(feature = "cuda")]
#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

use dfdx::{losses::cross_entropy_with_logits_loss, nn::*, optim::Sgd, prelude::*};
use std::{convert::Infallible, path::Path};
use tlr_models::{
    data::{digits, Dataset},
    layers::{Kernels, SequenceKernels},
    resnet::Wrn10x1,
    shifted,
    train::{train, InMemory, Mode, Net, Network, Options, Persistence, Run, TrainDevice},
    Mlp, Seq2SeqTransformer,
};

/// The gradients of all tensors that are trained, in order.
struct Read<'a, E, D: Storage<E>> {
    gradients: &'a Gradients<E, D>,
    found: Vec<Vec<f64>>,
}

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Read<'_, E, D> {
    type Viewer = ViewTensorRef;
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        tensor: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        if options.do_gradient_update {
            let gradient = self.gradients.get(tensor).as_vec();
            self.found.push(gradient.iter().map(|value| value.to_f64().unwrap()).collect());
        }
        Ok(None)
    }
}

fn read<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &M,
    gradients: &Gradients<E, D>,
) -> Vec<Vec<f64>> {
    let mut read = Read { gradients, found: Vec::new() };
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut read });
    read.found
}

/// Loss and gradients of two steps of SGD.
type Course = Vec<(f64, Vec<Vec<f64>>)>;

fn close(ours: &Course, theirs: &Course, far: f64) {
    for (step, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours.0 - theirs.0).abs() <= far, "step {step}: {} for {}", ours.0, theirs.0);
        assert!(ours.1.len() > 10 && ours.1.len() == theirs.1.len());
        for (tensor, (ours, theirs)) in ours.1.iter().zip(&theirs.1).enumerate() {
            let scale = theirs.iter().fold(0.0, |scale: f64, value| scale.max(value.abs()));
            for (ours, theirs) in ours.iter().zip(theirs) {
                let near = (ours - theirs).abs() <= far * (scale + 1e-3);
                assert!(near, "step {step}, tensor {tensor}: {ours} for {theirs}");
            }
        }
    }
}

macro_rules! both {
    ($images:ident, $sentences:ident, $dtype:ty, $far:expr) => {
        #[test]
        #[ignore = "gpu"]
        fn $images() {
            fn course<D: Kernels<$dtype>>(dev: &D, mut net: Wrn10x1<10, $dtype, D>) -> Course {
                let cpu = Cpu::seed_from_u64(1);
                let x: Tensor<(usize, Const<3>, usize, usize), $dtype, Cpu> =
                    cpu.sample_like(&(5, Const, 12, 9), rand_distr::StandardNormal);
                let x = dev.tensor_from_vec(x.as_vec(), *x.shape());
                let labels = (0..50).map(|at| if at % 13 == 0 { 1.0 } else { 0.0 }).collect();
                let labels = dev.tensor_from_vec(labels, (5, Const::<10>));
                let mut sgd = Sgd::new(&net, Default::default());
                let mut step = || {
                    let logits = net.forward_mut(x.clone().traced(net.alloc_grads()));
                    let loss = cross_entropy_with_logits_loss(logits, labels.clone());
                    let value = loss.as_vec()[0].into();
                    let gradients = loss.backward();
                    let found = read(&net, &gradients);
                    sgd.update(&mut net, &gradients).unwrap();
                    (value, found)
                };
                vec![step(), step()]
            }
            let (cpu, gpu) = (Cpu::seed_from_u64(2), Cuda::default());
            let net = Wrn10x1::<10, $dtype, Cpu>::build(&cpu);
            let ours = course(&gpu, net.to_device(&gpu));
            close(&ours, &course(&cpu, net), $far);
        }

        #[test]
        #[ignore = "gpu"]
        fn $sentences() {
            type Net<D> = Seq2SeqTransformer<20, 20, 16, 2, 32, 1, 1, $dtype, D>;
            fn course<D: SequenceKernels<$dtype>>(dev: &D, mut net: Net<D>) -> Course {
                let ids = dev.tensor_from_vec(vec![2, 7, 5, 3, 2, 9, 3, 0], (2, 4));
                let mut sgd = Sgd::new(&net, Default::default());
                let mut step = || {
                    let (input, labels) = shifted(&ids).unwrap();
                    let logits = net.forward_mut((ids.clone().traced(net.alloc_grads()), input));
                    let loss = net.try_loss(logits, &labels).unwrap();
                    let value = loss.as_vec()[0].into();
                    let gradients = loss.backward();
                    let found = read(&net, &gradients);
                    sgd.update(&mut net, &gradients).unwrap();
                    (value, found)
                };
                vec![step(), step()]
            }
            let net = Net::<Cpu>::build(&Cpu::seed_from_u64(2));
            // Both draw the same of what is dropped.
            let (cpu, gpu) = (Cpu::seed_from_u64(3), Cuda::seed_from_u64(3));
            let ours = course(&gpu, net.to_device(&gpu));
            close(&ours, &course(&cpu, net.to_device(&cpu)), $far);
        }
    };
}
// Hundreds of operations one after the other, each rounded. Norms of a few dozen pixels make the
// most of it, as the last ones of so small images are.
both!(gpu_images_in_f32, gpu_sentences_in_f32, f32, 1e-2);
both!(gpu_images_in_f64, gpu_sentences_in_f64, f64, 1e-11);

/// The training loop of the examples in f16: fails if it does not learn, if it is not near f32's
/// way, or if it does not go on from a checkpoint exactly.
#[test]
#[ignore = "gpu"]
#[cfg(feature = "f16")]
fn gpu_trains_in_f16() {
    use dfdx::dtypes::{f16, AMP};
    use tlr_models::train::TrainError;

    let dir = tempfile::tempdir().unwrap();
    let data = digits::draw(3, 100, 40).unwrap();
    let options = Options { batch_size: 20, rate: 1e-3, seed: 1, ..Options::default() };
    fn go<M: Network>(data: &Dataset, options: Options, file: &Path) -> Result<Run, TrainError> {
        let source = InMemory::new(data, options.batch_size, options.seed, None).unwrap();
        let saved = Persistence { checkpoint: Some(file), resume: true, ..Default::default() };
        train::<M>(&source, &options, &saved, &mut |_| ())
    }
    type Small<E> = Mlp<784, 24, 10, E, Cuda>;
    type Half = Small<AMP<f16>>;
    for mode in [Mode::Global, Mode::PerLayer] {
        let file = |name: &str| dir.path().join(format!("{name}-{mode:?}"));
        let options = Options { epochs: 10, mode, ..options };
        let single = go::<Small<f32>>(&data, options, &file("f32")).unwrap();
        let half = go::<Half>(&data, options, &file("whole")).unwrap();
        // While rates are small, roundings do not grow. A loss in f16 has eleven digits, of 2.
        for (ours, theirs) in half.losses.iter().zip(&single.losses).take(11) {
            assert!((ours - theirs).abs() <= 2e-3 * theirs, "{ours} for {theirs}");
        }
        for (ours, theirs) in half.epochs[1].rates.iter().zip(&single.epochs[1].rates) {
            assert!((ours.1 - theirs.1).abs() <= 1e-2 * theirs.1, "{ours:?} for {theirs:?}");
        }
        for run in [&single, &half] {
            let (first, last) = (run.epochs[0].train_loss, run.epochs[9].train_loss);
            assert!(last < 0.6 * first, "{last} after {first}");
        }
        go::<Half>(&data, Options { epochs: 3, ..options }, &file("parts")).unwrap();
        let parts = go::<Half>(&data, options, &file("parts")).unwrap();
        assert_eq!(parts.losses, half.losses);
        assert_eq!(parts.history, half.history);
        let refused = go::<Half>(&data, options, &file("f32"));
        let Err(TrainError::AnotherRun { changes, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(changes.to_string(), "--precision was f32, is f16");
    }
}

/// The training loop of the examples: fails if a device draws other weights or another order, or if
/// a checkpoint is not exactly what the other device goes on from.
#[test]
#[ignore = "gpu"]
fn gpu_trains_as_the_cpu_does() {
    let dir = tempfile::tempdir().unwrap();
    let data = digits::draw(3, 60, 20).unwrap();
    let options = Options { batch_size: 20, mode: Mode::PerLayer, ..Options::default() };
    let source = InMemory::new(&data, options.batch_size, options.seed, None).unwrap();
    fn go<D: TrainDevice>(source: &InMemory<'_>, options: Options, file: &Path) -> Run {
        let saved = Persistence { checkpoint: Some(file), resume: true, ..Default::default() };
        train::<Net<D>>(source, &options, &saved, &mut |_| ()).unwrap()
    }
    type Go = fn(&InMemory<'_>, Options, &Path) -> Run;
    let runs: [[Go; 2]; 4] = [
        [go::<Cpu>, go::<Cpu>],
        [go::<Cuda>, go::<Cuda>],
        [go::<Cpu>, go::<Cuda>],
        [go::<Cuda>, go::<Cpu>],
    ];
    let runs = runs.into_iter().enumerate().map(|(number, [first, second])| {
        let file = dir.path().join(format!("{number}.safetensors"));
        first(&source, Options { epochs: 1, ..options }, &file);
        second(&source, Options { epochs: 2, ..options }, &file)
    });
    let runs: Vec<Run> = runs.collect();
    for run in &runs {
        assert_eq!((run.losses.len(), run.epochs.len()), (6, 2));
        for (ours, theirs) in run.losses.iter().zip(&runs[0].losses) {
            assert!((ours - theirs).abs() <= 1e-4 * theirs, "{ours} for {theirs}");
        }
        let rates = run.epochs[1].rates.iter().zip(&runs[0].epochs[1].rates);
        for ((_, ours), (_, theirs)) in rates {
            assert!((ours - theirs).abs() <= 1e-3 * theirs, "{ours} for {theirs}");
        }
    }
}
