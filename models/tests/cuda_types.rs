//! Compiles where the models run on a CUDA device; `cuda-ci-check` needs no CUDA for that.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, missing_docs)]

use dfdx::{optim::Sgd, prelude::*};
use tlr::{Newton, NewtonConfig, PerLayer, TrainableLr, TunableOptimizer};
use tlr_models::{
    resnet::{ResNet50, Wrn16x1},
    search::SearchOptions,
    shifted, Mlp, Seq2SeqTransformer,
};

/// One rate and one a layer.
fn trains<M, E>(model: &mut M, grads: &Gradients<E, Cuda>)
where
    M: TrainableLr<E, Cuda> + Clone,
    E: Dtype,
    Cuda: Device<E>,
    Sgd<M, E, Cuda>: TunableOptimizer<Model = M, Dtype = E, Device = Cuda>,
{
    let config = NewtonConfig::default();
    let mut one = Newton::new(&*model, Sgd::new(&*model, Default::default()), config).unwrap();
    let each = PerLayer::new(&*model, Sgd::new(&*model, Default::default()));
    let mut each = Newton::new(&*model, each, config).unwrap();
    one.step(model, grads, 0.5).unwrap();
    each.step(model, grads, 0.5).unwrap();
}

macro_rules! all_models {
    ($name:ident, $dtype:ty) => {
        fn $name(dev: &Cuda) {
            let mut mlp = Mlp::<784, 1000, 10, $dtype, Cuda>::build(dev);
            let grads = mlp.alloc_grads();
            trains(&mut mlp, &grads);

            let mut wide = Wrn16x1::<10, $dtype, Cuda>::build(dev);
            let x: Tensor<Rank4<2, 3, 32, 32>, $dtype, _> = dev.zeros();
            let logits = wide.forward_mut(x.clone().traced(wide.alloc_grads()));
            trains(&mut wide, &logits.mean().backward());
            wide.forward(x);

            let mut deep = ResNet50::<10, $dtype, Cuda>::build(dev);
            let x: Tensor<Rank4<2, 3, 64, 64>, $dtype, _> = dev.zeros();
            let logits = deep.forward_mut(x.traced(deep.alloc_grads()));
            trains(&mut deep, &logits.mean().backward());

            type Captions = Seq2SeqTransformer<100, 100, 16, 2, 32, 1, 1, $dtype, Cuda>;
            let mut captions = Captions::build(dev);
            let ids = dev.tensor_from_vec(vec![2, 7, 3], (1, 3));
            let (input, labels) = shifted(&ids).unwrap();
            let logits = captions.forward_mut((ids.traced(captions.alloc_grads()), input));
            let loss = captions.try_loss(logits, &labels).unwrap();
            trains(&mut captions, &loss.backward());
            captions.translate(&[2, 7, 3], &SearchOptions::default()).unwrap();
        }
    };
}
all_models!(single, f32);
all_models!(double, f64);

#[test]
fn types() {
    let _ = (single, double);
}
