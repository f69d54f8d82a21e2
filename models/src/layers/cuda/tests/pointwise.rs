//! The rectifier, the sum, and the dense layer.

use super::*;
use crate::layers::{LinearOptions, Rows};

pub(super) fn rectified<E: Real, D: Layers<E>>(dev: &D, len: usize) -> Vec<Vec<f64>> {
    let mut given = values::<E>(len, 1);
    // The derivative at 0 is 0.
    given.iter_mut().step_by(7).for_each(|x| *x = E::zero());
    let x = dev.tensor_from_vec(given, (len,));
    let y = D::try_rectify(x.leaky_trace()).unwrap();
    let mut lists = vec![numbers(&y)];
    lists.push(numbers(&backward(y).get(&x)));
    lists.push(numbers(&D::try_rectify(x).unwrap()));
    lists
}

pub(super) fn summed<E: Real, D: Layers<E>>(dev: &D, len: usize, relu: bool) -> Vec<Vec<f64>> {
    let (x, y) = (tensor::<_, E, D>(dev, (len,), 1), tensor::<_, E, D>(dev, (len,), 2));
    let sum = D::try_sum(x.leaky_trace(), y.clone().put_tape(Default::default()), relu).unwrap();
    let mut lists = vec![numbers(&sum)];
    let gradients = backward(sum);
    lists.extend([numbers(&gradients.get(&x)), numbers(&gradients.get(&y))]);
    // The sum of a tensor and itself.
    let sum = D::try_sum(x.leaky_trace(), x.clone().put_tape(Default::default()), relu).unwrap();
    lists.push(numbers(&sum));
    lists.push(numbers(&backward(sum).get(&x)));
    lists
}

fn all<E: Real>()
where
    Cpu: Layers<E>,
    Cuda: Layers<E>,
{
    let (cpu, gpu) = (Cpu::default(), Cuda::default());
    for len in [1, 2, 31, 255, 256, 257, 1000, 4096, 5001, 70_000] {
        close::<E>(&rectified::<E, Cuda>(&gpu, len), &rectified::<E, Cpu>(&cpu, len), "relu");
        for relu in [false, true] {
            let ours = summed::<E, Cuda>(&gpu, len, relu);
            close::<E>(&ours, &summed::<E, Cpu>(&cpu, len, relu), &format!("{len}, {relu}"));
        }
    }
}

// Fails for an element that is left out, for a wrong mask, and if the sum of a tensor and itself
// loses one of its two gradients.
#[test]
#[ignore = "gpu"]
fn gpu_rectifiers_and_sums() {
    all::<f32>();
    all::<f64>();
}

pub(super) fn dense<E: Real, D: Layers<E>, const IN: usize, const OUT: usize>(
    dev: &D,
    batch: usize,
    options: LinearOptions,
) -> Vec<Vec<f64>> {
    let x: Rows<usize, IN, E, D, NoneTape> = tensor(dev, (batch, Const), 1);
    let weight: Tensor<Rank2<OUT, IN>, E, D> = tensor(dev, Default::default(), 2);
    let bias: Tensor<Rank1<OUT>, E, D> = tensor(dev, Default::default(), 3);
    let y = D::try_linear(x.leaky_trace(), &weight, &bias, options).unwrap();
    let mut lists = vec![numbers(&y)];
    let gradients = backward(y);
    lists.extend([numbers(&gradients.get(&weight)), numbers(&gradients.get(&bias))]);
    if options.input_gradient {
        lists.push(numbers(&gradients.get(&x)));
    }
    lists.push(numbers(&D::try_linear(x, &weight, &bias, options).unwrap()));
    lists
}

fn all_dense<E: Real>()
where
    Cpu: Layers<E>,
    Cuda: Layers<E>,
{
    fn check<E: Real, const IN: usize, const OUT: usize>()
    where
        Cpu: Layers<E>,
        Cuda: Layers<E>,
    {
        let (cpu, gpu) = (Cpu::default(), Cuda::default());
        for batch in [1, 2, 33, 130] {
            for (relu, input_gradient) in [(false, true), (true, true), (true, false)] {
                let options = LinearOptions { relu, input_gradient };
                let ours = dense::<E, Cuda, IN, OUT>(&gpu, batch, options);
                let theirs = dense::<E, Cpu, IN, OUT>(&cpu, batch, options);
                close::<E>(&ours, &theirs, &format!("{batch} of {IN} to {OUT}, {options:?}"));
                assert!(dense::<E, Cuda, IN, OUT>(&gpu, batch, options) == ours);
            }
        }
    }
    check::<E, 1, 1>();
    check::<E, 5, 3>();
    check::<E, 17, 1>();
    check::<E, 1, 300>();
    check::<E, 40, 33>();
}

// Fails for any wrong step, transposition or mask.
#[test]
#[ignore = "gpu"]
fn gpu_dense_layers() {
    all_dense::<f32>();
    all_dense::<f64>();
}

// If NaN became 0, a broken batch would have a loss like any other.
#[test]
#[ignore = "gpu"]
fn gpu_nan_passes() {
    let dev = Cuda::default();
    let x = dev.tensor([f32::NAN, -1.0, 2.0]);
    let y = Cuda::try_rectify(x.clone()).unwrap().array();
    assert!(y[0].is_nan() && y[1..] == [0.0, 2.0]);
    let sum = Cuda::try_sum(x.clone(), x, true).unwrap().array();
    assert!(sum[0].is_nan() && sum[1..] == [0.0, 4.0]);
}

// A permuted tensor's memory is in another order than its elements.
#[test]
#[ignore = "gpu"]
fn gpu_tensors_that_are_not_contiguous() {
    fn run<D: Layers<f64>>(dev: &D) -> Vec<Vec<f64>> {
        let x: Tensor<Rank2<3, 4>, f64, D> = tensor(dev, Default::default(), 1);
        let y: Tensor<Rank2<4, 3>, f64, D> = tensor(dev, Default::default(), 2);
        let flipped = x.leaky_trace().permute::<Rank2<4, 3>, _>();
        let sum = D::try_sum(flipped, y.clone().put_tape(Default::default()), true).unwrap();
        let of_sum = numbers(&sum);
        let gradients = backward(sum);
        vec![of_sum, numbers(&gradients.get(&x)), numbers(&gradients.get(&y))]
    }
    close::<f64>(&run(&Cuda::default()), &run(&Cpu::default()), "permuted");
}
