//! The layers on a GPU against those on the CPU. What a layer writes to is filled with NaN before,
//! in tests, and parts and blocks are small, so that there are several.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "cudnn")]
mod cudnn;
#[cfg(feature = "f16")]
mod halves;
mod images;
mod pointwise;
mod sequence;

use crate::layers::Kernels;
use dfdx::prelude::*;
use num_traits::Float;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

/// f32 or f64, and the tolerance: how far two sums of some thousand terms in different orders may
/// differ, as a fraction of the largest.
trait Real: Dtype + Float {
    const FAR: f64;
}

impl Real for f32 {
    const FAR: f64 = 1e-5;
}

impl Real for f64 {
    const FAR: f64 = 1e-13;
}

/// A device with the layers.
trait Layers<E: Dtype>: Kernels<E> + TensorFromVec<E> {}
impl<E: Dtype, D: Kernels<E>> Layers<E> for D {}

/// Normally distributed numbers, the same for all devices and types.
fn values<E: Real>(len: usize, seed: u64) -> Vec<E> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len)
        .map(|_| {
            let value: f64 = StandardNormal.sample(&mut rng);
            // The numbers are rounded to f16, so that all types compute with the same ones.
            E::from_f64(half::f16::from_f64(value).to_f64()).unwrap()
        })
        .collect()
}

fn tensor<S: Shape, E: Real, D: Layers<E>>(dev: &D, shape: S, seed: u64) -> Tensor<S, E, D> {
    dev.tensor_from_vec(values(shape.num_elements(), seed), shape)
}

fn wide<E: Real>(values: Vec<E>) -> Vec<f64> {
    values.into_iter().map(|value| value.to_f64().unwrap()).collect()
}

fn numbers<S: Shape, E: Real, D: Layers<E>, T>(tensor: &Tensor<S, E, D, T>) -> Vec<f64> {
    wide(tensor.as_vec())
}

/// The gradients of a weighted sum of `y`'s elements, with a different weight for each.
fn backward<S: Shape, E: Real, D: Layers<E>>(
    y: Tensor<S, E, D, OwnedTape<E, D>>,
) -> Gradients<E, D> {
    let factors = tensor(&y.device().clone(), *y.shape(), 77);
    y.try_mul(factors).unwrap().sum::<Rank0, _>().backward()
}

/// Checks that what the GPU gives is what the CPU gives, list by list.
fn close<E: Real>(gpu: &[Vec<f64>], cpu: &[Vec<f64>], case: &str) {
    assert_eq!(gpu.len(), cpu.len());
    for (list, (gpu, cpu)) in gpu.iter().zip(cpu).enumerate() {
        assert_eq!(gpu.len(), cpu.len(), "{case}: list {list}");
        let scale = cpu.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
        for (index, (gpu, cpu)) in gpu.iter().zip(cpu).enumerate() {
            let near = (gpu - cpu).abs() <= E::FAR * scale;
            assert!(near || gpu == cpu, "{case}: list {list}, {index}: {gpu} for {cpu}");
        }
    }
}
