//! Each layer forward, and forward and backward, in single precision on one thread.
//!
//! `cargo bench --bench layers`; `benches/compare.py` sets the same beside PyTorch.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{criterion_group, criterion_main, Criterion};
use dfdx::{nn::ModuleMut, prelude::*};
use tlr_models::{
    layers::{builder, AvgPool2d, Conv2d, Conv2dOptions, Kernels, MaxPool2d, Relu, Sliding},
    resnet::PlainBlock,
};

type Images<const C: usize, T> = Tensor<(usize, Const<C>, usize, usize), f32, Cpu, T>;
type Taped = OwnedTape<f32, Cpu>;

/// The gradients of what `y` was computed from, if those of `y` are all 1.
fn backward<S: Shape>(y: Tensor<S, f32, Cpu, Taped>) -> Gradients<f32, Cpu> {
    let (y, mut tape) = y.split_tape();
    let ghost = y.ghost();
    tape.add_backward_op(move |gradients: &mut Gradients<f32, Cpu>| {
        gradients.get_or_alloc_mut(&ghost)?.fill(1.0);
        Ok(())
    });
    let loss: Tensor<Rank0, f32, Cpu> = y.device().zeros();
    loss.put_tape(tape).backward()
}

/// Times what `layer` makes of `(batch, C, size, size)`.
fn time<const C: usize, S: Shape>(
    criterion: &mut Criterion,
    name: &str,
    mut layer: impl FnMut(Images<C, Taped>) -> Tensor<S, f32, Cpu, Taped>,
    (batch, size): (usize, usize),
) {
    let dev = Cpu::seed_from_u64(1);
    dev.enable_cache();
    let x = dev.sample_like(&(batch, Const::<C>, size, size), rand_distr::StandardNormal);
    let mut group = criterion.benchmark_group(name);
    group.bench_function("forward", |bencher| {
        bencher.iter(|| layer(x.trace(Gradients::leaky())));
    });
    group.bench_function("forward_backward", |bencher| {
        bencher.iter(|| backward(layer(x.trace(Gradients::leaky()))));
    });
    group.finish();
}

/// The first layer of a model: its input is data, whose gradient nobody asks for.
fn stem<const O: usize, const K: usize, const S: usize, const P: usize>(
    criterion: &mut Criterion,
    name: &str,
    size: (usize, usize),
) {
    let conv: Conv2d<3, O, K, S, P, 1, 1, f32, Cpu> = BuildModule::build(&Cpu::seed_from_u64(1));
    let sliding = Sliding { stride: S, padding: P, ..Sliding::default() };
    let options = Conv2dOptions { sliding, input_gradient: false };
    let layer = |x: Images<3, Taped>| Cpu::try_conv2d(x, &conv.weight, None, options).unwrap();
    time(criterion, name, layer, size);
}

macro_rules! layers {
    ($($name:literal: $Layer:ty, $C:literal at $size:expr;)+) => {
        fn layers(criterion: &mut Criterion) {
            // Before anything starts rayon's own.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
            stem::<16, 3, 1, 1>(criterion, "conv_stem_3_16", (32, 32));
            stem::<64, 7, 2, 3>(criterion, "conv_stem_7x7", (4, 224));
            let dev = Cpu::seed_from_u64(1);
            $(
                let mut layer = dev.build_module::<$Layer, f32>();
                time::<$C, _>(criterion, $name, |x| layer.forward_mut(x), $size);
            )+
            blocks(criterion);
        }
    };
}

layers! {
    "conv_16_16": builder::Conv2d<16, 16, 3, 1, 1>, 16 at (32, 32);
    "conv_32_32": builder::Conv2d<32, 32, 3, 1, 1>, 32 at (32, 16);
    "conv_64_64": builder::Conv2d<64, 64, 3, 1, 1>, 64 at (32, 8);
    "conv_32_32_stride_2": builder::Conv2d<32, 32, 3, 2, 1>, 32 at (32, 32);
    "conv_1x1_stride_2": builder::Conv2d<16, 32, 1, 2>, 16 at (32, 32);
    "conv_512_512": builder::Conv2d<512, 512, 3, 1, 1>, 512 at (4, 7);
    "conv_1x1_256_64": builder::Conv2d<256, 64, 1>, 256 at (4, 56);
    "batch_norm_16": builder::BatchNorm2d<16>, 16 at (32, 32);
    "batch_norm_relu_16": builder::BatchNorm2d<16, true>, 16 at (32, 32);
    "batch_norm_64": builder::BatchNorm2d<64>, 64 at (32, 8);
    "relu": Relu, 16 at (32, 32);
    "max_pool_3_2": MaxPool2d<3, 2, 1>, 16 at (32, 32);
    "avg_pool_2": AvgPool2d<2>, 16 at (32, 32);
}

fn blocks(criterion: &mut Criterion) {
    let dev = Cpu::seed_from_u64(1);
    let mut block: PlainBlock<16, f32, Cpu> = BuildModule::build(&dev);
    time::<16, _>(criterion, "block_16", |x| block.forward_mut(x), (32, 32));
    let mut block: PlainBlock<32, f32, Cpu> = BuildModule::build(&dev);
    time::<32, _>(criterion, "block_32", |x| block.forward_mut(x), (32, 16));
    let mut block: PlainBlock<64, f32, Cpu> = BuildModule::build(&dev);
    time::<64, _>(criterion, "block_64", |x| block.forward_mut(x), (32, 8));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(800));
    targets = layers
}
criterion_main!(benches);
