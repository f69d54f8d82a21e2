//! Batch normalization against its formula, and its gradients against differences.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::layers::{builder, check, Kernels, LayerError, Misfit};
use dfdx::prelude::*;

type Images<const C: usize> = Tensor<(usize, Const<C>, usize, usize), f64, Cpu>;
type Norm<const C: usize, const RELU: bool> = BatchNorm2d<C, RELU, f64, Cpu>;

/// Values far from 0 and 1, so that a wrong number that is subtracted or divided by shows.
fn problem<const C: usize, const RELU: bool>(
    shape: (usize, usize, usize),
) -> (Images<C>, Norm<C, RELU>) {
    let dev = Cpu::seed_from_u64(4);
    let x: Images<C> =
        dev.sample_like(&(shape.0, Const, shape.1, shape.2), rand_distr::StandardNormal);
    let mut norm = dev.build_module::<builder::BatchNorm2d<C, RELU>, f64>();
    norm.weight = dev.sample_normal();
    norm.bias = dev.sample_normal();
    norm.running_mean = dev.sample_normal();
    norm.running_var = dev.sample_uniform();
    (x * 3.0 + 5.0, norm)
}

fn agrees<const C: usize, const RELU: bool>(shape: (usize, usize, usize)) {
    let (x, norm) = problem::<C, RELU>(shape);
    let ours = Cpu::try_train_batch_norm2d(x.leaky_trace(), &norm).unwrap();
    let theirs = train_composed(x.leaky_trace(), &norm).unwrap();
    check::close(&ours.0.as_vec(), &theirs.0.as_vec());
    check::close(&ours.1.as_vec(), &theirs.1.as_vec());
    check::close(&ours.2.as_vec(), &theirs.2.as_vec());
    let (ours, theirs) = (check::curved(ours.0).backward(), check::curved(theirs.0).backward());
    check::close(&ours.get(&x).as_vec(), &theirs.get(&x).as_vec());
    check::close(&ours.get(&norm.weight).as_vec(), &theirs.get(&norm.weight).as_vec());
    check::close(&ours.get(&norm.bias).as_vec(), &theirs.get(&norm.bias).as_vec());

    let theirs = infer_composed(x.clone(), &norm).unwrap();
    check::close(&norm.forward(x).as_vec(), &theirs.as_vec());
}

// dfdx's own operations are the oracle. Fails for a wrong mean, factor or mask, in either
// direction.
#[test]
fn as_composed_of_dfdx_operations() {
    agrees::<1, false>((2, 1, 1));
    agrees::<3, false>((4, 5, 7));
    agrees::<3, true>((4, 5, 7));
    agrees::<16, true>((3, 8, 8));
    agrees::<5, false>((1, 33, 3));
}

// Central differences. Fails even if both forms are wrong in the same way.
#[test]
fn gradients_are_derivatives() {
    let (x, norm) = problem::<2, true>((3, 4, 3));
    let loss = |x: &Images<2>, norm: &Norm<2, true>| {
        check::curved(Cpu::try_train_batch_norm2d(x.leaky_trace(), norm).unwrap().0)
    };
    let gradients = loss(&x, &norm).backward();
    check::derivative(&x, &gradients.get(&x), |x| loss(x, &norm).array());
    let with = |change: &dyn Fn(&mut Norm<2, true>)| {
        let mut norm = norm.clone();
        change(&mut norm);
        loss(&x, &norm).array()
    };
    check::derivative(&norm.weight, &gradients.get(&norm.weight), |weight| {
        with(&|norm| norm.weight = weight.clone())
    });
    check::derivative(&norm.bias, &gradients.get(&norm.bias), |bias| {
        with(&|norm| norm.bias = bias.clone())
    });
}

// By hand: values 1 and 3 have mean 2, variance 1, and 2 without bias.
#[test]
fn running_statistics_move_by_the_momentum() {
    let dev = Cpu::default();
    let mut norm = dev.build_module::<builder::BatchNorm2d<1>, f64>();
    norm.momentum = 0.25;
    let x = dev.tensor([[[[1.0, 3.0]]]]);
    let y = norm.forward_mut(x.leaky_trace());
    check::close(&y.as_vec(), &[-1.0, 1.0].map(|y: f64| y / (1.0 + 1e-5f64).sqrt()));
    check::close(&norm.running_mean.as_vec(), &[0.25 * 2.0]);
    check::close(&norm.running_var.as_vec(), &[0.75 + 0.25 * 2.0]);
    let before = (norm.running_mean.as_vec(), norm.running_var.as_vec());
    norm.forward(x);
    assert_eq!((norm.running_mean.as_vec(), norm.running_var.as_vec()), before);
}

// Fails if a channel is split among threads.
#[test]
fn the_same_bits_for_any_number_of_threads() {
    let with = |threads| {
        check::with_threads(threads, || {
            let (x, norm) = problem::<7, true>((9, 10, 10));
            let (y, mean, var) = Cpu::try_train_batch_norm2d(x.leaky_trace(), &norm).unwrap();
            let (y, statistics) = (
                y.as_vec()
                    .into_iter()
                    .zip(check::curved(y).backward().get(&x).as_vec())
                    .collect::<Vec<_>>(),
                (mean.as_vec(), var.as_vec()),
            );
            (y, statistics)
        })
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}

// A mean far from 0 in f32. A variance taken as the mean of squares less the square of the mean
// would lose all digits.
#[test]
fn a_large_mean_in_f32() {
    let dev = Cpu::seed_from_u64(2);
    let noise: Tensor<Rank4<8, 1, 32, 32>, f32, _> = dev.sample_normal();
    let mut norm = dev.build_module::<builder::BatchNorm2d<1>, f32>();
    let y = norm.forward_mut((noise + 4096.0).leaky_trace()).as_vec();
    let squares = y.iter().map(|y| f64::from(y * y)).sum::<f64>() / y.len() as f64;
    // Inputs are rounded to 2⁻¹² of their deviation.
    assert!((squares - 1.0).abs() < 1e-3, "{squares}");
}

#[test]
fn a_single_value_has_no_variance() {
    let dev = Cpu::default();
    let mut norm = dev.build_module::<builder::BatchNorm2d<2>, f32>();
    let before = norm.running_var.as_vec();
    let x: Tensor<Rank4<1, 2, 1, 1>, f32, _> = dev.zeros();
    let error = norm.try_forward_mut(x.leaky_trace()).unwrap_err();
    let misfit = Misfit::NoVariance { values: 1 };
    assert!(matches!(error, LayerError::Shape { misfit: found, .. } if found == misfit));
    assert_eq!(norm.running_var.as_vec(), before);
}

// The running statistics must not be trained.
#[test]
fn only_weight_and_bias_are_trained() {
    let norm = Cpu::default().build_module::<builder::BatchNorm2d<3>, f32>();
    assert_eq!(norm.num_trainable_params(), 6);
}
