//! Each layer forward, and forward and backward, in single precision on one thread.
//!
//! `cargo bench --bench layers`; `benches/compare.py` sets the same beside PyTorch.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{criterion_group, criterion_main, Criterion};
use dfdx::{nn::ModuleMut, prelude::*};
use std::{cell::Cell, rc::Rc};
use tlr_models::{
    layers::{
        builder, AttentionMask, AvgPool2d, Conv2d, Conv2dOptions, DecoderLayer, DecoderMasks,
        EmbeddingOptions, EncoderLayer, Ids, Kernels, LinearOptions, MaxPool2d, MultiHeadAttention,
        Relu, Rows, SequenceKernels, Sequences, Sliding,
    },
    resnet::PlainBlock,
};

type Images<const C: usize, T> = Tensor<(usize, Const<C>, usize, usize), f32, Cpu, T>;
type Taped = OwnedTape<f32, Cpu>;

/// Works out the gradients of what `y` was computed from, if those of `y` are all 1. `ones` are
/// made the first time: PyTorch, too, is handed them.
fn backward<S: Shape>(y: Tensor<S, f32, Cpu, Taped>, ones: &mut Vec<f32>) -> Gradients<f32, Cpu> {
    let (y, mut tape) = y.split_tape();
    ones.resize(y.shape().num_elements(), 1.0);
    // Exchanged with the device's own buffer and back, which then can be used again.
    let handed = Rc::new(Cell::new(std::mem::take(ones)));
    let (ghost, exchange) = (y.ghost(), handed.clone());
    tape.add_backward_op(move |gradients: &mut Gradients<f32, Cpu>| {
        let gradient = gradients.get_or_alloc_mut(&ghost)?;
        **gradient = exchange.replace(std::mem::take(gradient));
        Ok(())
    });
    let loss: Tensor<Rank0, f32, Cpu> = y.device().zeros();
    let mut gradients = loss.put_tape(tape).backward();
    let gradient = gradients.get_or_alloc_mut(&y).unwrap();
    *ones = std::mem::replace(gradient, handed.take());
    gradients
}

/// Times what `layer` makes of an input with a new tape.
fn time<X: Trace<f32, Cpu, Traced = Y>, Y, S: Shape>(
    criterion: &mut Criterion,
    name: &str,
    x: X,
    mut layer: impl FnMut(Y) -> Tensor<S, f32, Cpu, Taped>,
) {
    let mut group = criterion.benchmark_group(name);
    group.bench_function("forward", |bencher| {
        bencher.iter(|| layer(x.trace(Gradients::leaky())));
    });
    let mut ones = Vec::new();
    group.bench_function("forward_backward", |bencher| {
        bencher.iter(|| backward(layer(x.trace(Gradients::leaky())), &mut ones));
    });
    group.finish();
}

fn device() -> Cpu {
    let dev = Cpu::seed_from_u64(1);
    dev.enable_cache();
    dev
}

fn random<S: Shape>(dev: &Cpu, shape: S) -> Tensor<S, f32, Cpu> {
    dev.sample_like(&shape, rand_distr::StandardNormal)
}

/// Times what `layer` makes of `(batch, C, size, size)`.
fn time_images<const C: usize, S: Shape>(
    criterion: &mut Criterion,
    name: &str,
    layer: impl FnMut(Images<C, Taped>) -> Tensor<S, f32, Cpu, Taped>,
    (batch, size): (usize, usize),
) {
    time(criterion, name, random(&device(), (batch, Const::<C>, size, size)), layer);
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
    time_images(criterion, name, layer, size);
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
                time_images::<$C, _>(criterion, $name, |x| layer.forward_mut(x), $size);
            )+
            blocks(criterion);
            sequences(criterion);
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
    time_images::<16, _>(criterion, "block_16", |x| block.forward_mut(x), (32, 32));
    let mut block: PlainBlock<32, f32, Cpu> = BuildModule::build(&dev);
    time_images::<32, _>(criterion, "block_32", |x| block.forward_mut(x), (32, 16));
    let mut block: PlainBlock<64, f32, Cpu> = BuildModule::build(&dev);
    time_images::<64, _>(criterion, "block_64", |x| block.forward_mut(x), (32, 8));
}

/// Of the sizes of `examples/translate` on Multi30k: 32 sentences of 20 tokens, 128 features, 4
/// heads; and the wide layer of `examples/mnist`.
fn sequences(criterion: &mut Criterion) {
    let dev = device();
    let (weight, bias) =
        (random(&dev, (Const::<1000>, Const::<784>)), random(&dev, (Const::<1000>,)));
    let x: Rows<usize, 784, f32, Cpu, NoneTape> = random(&dev, (128, Const));
    time(criterion, "linear_784_1000", x, |x| {
        Cpu::try_linear(x, &weight, &bias, LinearOptions::default()).unwrap()
    });
    let (weight, bias) = (random(&dev, (Const::<128>,)), random(&dev, (Const::<128>,)));
    let x: Rows<usize, 128, f32, Cpu, NoneTape> = random(&dev, (640, Const));
    time(criterion, "layer_norm_128", x, |x| Cpu::try_layer_norm(x, &weight, &bias, 1e-5).unwrap());
    let tokens: Vec<usize> = (0..640).map(|index| index * 619 % 2000).collect();
    let weight = random(&dev, (Const::<2000>, Const::<128>));
    let ids: Ids<Cpu> = dev.tensor_from_vec(tokens.clone(), (32, 20));
    time(criterion, "embedding_2000", ids, |ids| {
        Cpu::try_embedding(ids, &weight, EmbeddingOptions::default()).unwrap()
    });
    let x: Rows<usize, 2000, f32, Cpu, NoneTape> = random(&dev, (640, Const));
    time(criterion, "cross_entropy_2000", x, |x| {
        Cpu::try_cross_entropy(x, &tokens, usize::MAX).unwrap()
    });
    let sentences = || -> Sequences<128, f32, Cpu> { random(&dev, (32, 20, Const)) };
    let mask = AttentionMask::default();
    let attention: MultiHeadAttention<128, 4, f32, Cpu> = BuildModule::build(&dev);
    time(criterion, "attention_128", sentences(), |x| {
        let (x, tape) = x.split_tape();
        attention.forward((x.clone().put_tape(tape), x.clone(), x, mask.clone()))
    });
    let mut encoder: EncoderLayer<128, 4, 256, f32, Cpu> = BuildModule::build(&dev);
    time(criterion, "encoder_layer_128", sentences(), |x| encoder.forward_mut((x, mask.clone())));
    let mut decoder: DecoderLayer<128, 4, 256, f32, Cpu> = BuildModule::build(&dev);
    let memory = sentences();
    time(criterion, "decoder_layer_128", sentences(), |x| {
        decoder.forward_mut((x, memory.clone(), DecoderMasks::causal(None, None)))
    });
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
