//! Convolution, batch norm and pooling.

use super::{super::memory::BLIND, *};
use crate::layers::{builder, BatchNorm2d, Conv2dOptions, Filters, Planes, Pooling, Sliding};

type Images<const C: usize, E, D> = Planes<usize, C, usize, usize, E, D, NoneTape>;

/// The result, and the gradients of the filters, the bias and the images, of those there are.
pub(super) fn convolved<
    E: Real,
    D: Layers<E>,
    const I: usize,
    const O: usize,
    const K: usize,
    const G: usize,
>(
    dev: &D,
    (batch, height, width): (usize, usize, usize),
    options: Conv2dOptions,
    biased: bool,
) -> Vec<Vec<f64>> {
    let x: Images<I, E, D> = tensor(dev, (batch, Const, height, width), 1);
    let weight: Filters<I, O, K, G, E, D> = tensor(dev, Default::default(), 2);
    let bias: Option<Tensor<Rank1<O>, E, D>> = biased.then(|| tensor(dev, Rank1::default(), 3));
    let y = D::try_conv2d(x.leaky_trace(), &weight, bias.as_ref(), options).unwrap();
    let mut lists = vec![numbers(&y)];
    let gradients = backward(y);
    lists.push(numbers(&gradients.get(&weight)));
    lists.extend(bias.map(|bias| numbers(&gradients.get(&bias))));
    if options.input_gradient {
        lists.push(numbers(&gradients.get(&x)));
    }
    lists
}

pub(super) fn convolution<E: Real, const I: usize, const O: usize, const K: usize, const G: usize>(
    size: (usize, usize, usize),
    (stride, padding, dilation): (usize, usize, usize),
) where
    Cpu: Layers<E>,
    Cuda: Layers<E>,
{
    let (cpu, gpu) = (Cpu::default(), Cuda::default());
    let sliding = Sliding { stride, padding, dilation };
    for (biased, input_gradient) in [(false, true), (true, true), (true, false)] {
        let options = Conv2dOptions { sliding, input_gradient };
        let ours = convolved::<E, Cuda, I, O, K, G>(&gpu, size, options, biased);
        let theirs = convolved::<E, Cpu, I, O, K, G>(&cpu, size, options, biased);
        let case = format!("{I} to {O} by {K}, {G} groups, of {size:?}, {options:?}, {biased}");
        close::<E>(&ours, &theirs, &case);
        // The result does not depend on the order in which the GPU works.
        assert!(convolved::<E, Cuda, I, O, K, G>(&gpu, size, options, biased) == ours, "{case}");
    }
}

pub(super) fn convolutions<E: Real>()
where
    Cpu: Layers<E>,
    Cuda: Layers<E>,
{
    convolution::<E, 1, 1, 1, 1>((1, 1, 1), (1, 0, 1));
    convolution::<E, 3, 4, 3, 1>((2, 7, 6), (1, 1, 1));
    convolution::<E, 3, 4, 3, 1>((3, 8, 9), (2, 1, 1));
    convolution::<E, 4, 6, 3, 2>((2, 9, 7), (2, 2, 2));
    convolution::<E, 4, 4, 3, 4>((2, 6, 6), (1, 1, 1));
    convolution::<E, 12, 24, 3, 12>((3, 5, 6), (1, 1, 1));
    convolution::<E, 2, 5, 2, 1>((2, 5, 6), (3, 0, 1));
    convolution::<E, 3, 8, 7, 1>((1, 12, 13), (2, 3, 1));
    convolution::<E, 2, 3, 5, 1>((1, 3, 3), (1, 4, 1));
    convolution::<E, 3, 2, 3, 1>((70, 2, 2), (1, 1, 1));
    convolution::<E, 16, 16, 3, 1>((9, 32, 32), (1, 1, 1));
    // Weights' gradients over all images at once, split and not.
    convolution::<E, 16, 24, 3, 1>((8, 3, 3), (1, 1, 1));
    convolution::<E, 32, 70, 3, 2>((7, 2, 2), (1, 1, 1));
    convolution::<E, 4, 4, 3, 2>((9, 1, 1), (1, 1, 1));
    convolution::<E, 4, 4, 3, 2>((10, 2, 1), (1, 1, 1));
    // One image is larger than a part.
    convolution::<E, 8, 4, 3, 1>((2, 21, 17), (1, 1, 1));
    convolution::<E, 8, 4, 3, 1>((2, 21, 17), (3, 2, 2));
    // Pixels that no output reads.
    convolution::<E, 2, 3, 2, 1>((5, 11, 10), (4, 0, 1));
    // Filters of one pixel: some need no columns, and some do.
    convolution::<E, 6, 4, 1, 1>((3, 5, 4), (1, 0, 1));
    convolution::<E, 6, 4, 1, 2>((3, 17, 16), (1, 0, 1));
    convolution::<E, 40, 50, 1, 1>((6, 2, 3), (1, 0, 1));
    convolution::<E, 40, 50, 1, 5>((6, 2, 3), (1, 0, 1));
    convolution::<E, 6, 4, 1, 1>((3, 5, 4), (2, 0, 1));
    convolution::<E, 2, 3, 1, 1>((2, 4, 4), (1, 1, 1));
}

// Fails for a wrong tap, part, group, step or transposition, in either direction, for an element
// that is not written, and if a gradient depends on the order of the blocks.
#[test]
#[ignore = "gpu"]
fn gpu_convolutions_in_single_precision() {
    convolutions::<f32>();
}

#[test]
#[ignore = "gpu"]
fn gpu_convolutions_in_double_precision() {
    convolutions::<f64>();
}

// The way by the host, for tensors whose addresses are unknown.
#[test]
#[ignore = "gpu"]
fn gpu_without_addresses() {
    BLIND.set(true);
    convolution::<f32, 3, 4, 3, 1>((3, 8, 9), (2, 1, 1));
    norm::<f64, 3, true>((4, 5, 7));
    let gpu = Cuda::default();
    let (size, window) = ((2, 5, 4), (3, 2, 1));
    let ours = pooled::<f32, Cuda>(&gpu, size, Pooling::Max, window);
    let theirs = pooled::<f32, Cpu>(&Cpu::default(), size, Pooling::Max, window);
    close::<f32>(&ours, &theirs, "pooling");
    BLIND.set(false);
}

/// The result with the statistics, and the gradients; and the result of inference.
pub(super) fn normed<E: Real, D: Layers<E>, const C: usize, const RELU: bool>(
    dev: &D,
    (batch, height, width): (usize, usize, usize),
) -> Vec<Vec<f64>> {
    let norm: BatchNorm2d<C, RELU, E, D> = BatchNorm2d {
        weight: tensor(dev, Rank1::default(), 1),
        bias: tensor(dev, Rank1::default(), 2),
        running_mean: tensor(dev, Rank1::default(), 3),
        running_var: dev.tensor_from_vec(
            values::<E>(C, 4).into_iter().map(|x| x.abs()).collect(),
            Rank1::default(),
        ),
        eps: 1e-5,
        momentum: 0.1,
    };
    let shape = (batch, Const::<C>, height, width);
    // Far from 0, so that it matters which is subtracted.
    let far = |x: f64| half::f16::from_f64(3.0 * x + 20.0).to_f64();
    let far = wide(values::<E>(shape.num_elements(), 5)).into_iter().map(far);
    let x = far.map(|x| E::from_f64(x).unwrap()).collect();
    let x: Images<C, E, D> = dev.tensor_from_vec(x, shape);
    let (y, mean, var) = D::try_train_batch_norm2d(x.leaky_trace(), &norm).unwrap();
    let mut lists = vec![numbers(&y), numbers(&mean), numbers(&var)];
    let gradients = backward(y);
    lists.push(numbers(&gradients.get(&x)));
    lists.push(numbers(&gradients.get(&norm.weight)));
    lists.push(numbers(&gradients.get(&norm.bias)));
    lists.push(numbers(&D::try_infer_batch_norm2d(x, &norm).unwrap()));
    lists
}

fn norm<E: Real, const C: usize, const RELU: bool>(size: (usize, usize, usize))
where
    Cpu: Layers<E>,
    Cuda: Layers<E>,
{
    let (cpu, gpu) = (Cpu::default(), Cuda::default());
    let ours = normed::<E, Cuda, C, RELU>(&gpu, size);
    let theirs = normed::<E, Cpu, C, RELU>(&cpu, size);
    close::<E>(&ours, &theirs, &format!("{C} channels of {size:?}, rectified: {RELU}"));
    assert!(normed::<E, Cuda, C, RELU>(&gpu, size) == ours);
}

fn norms<E: Real>()
where
    Cpu: Layers<E>,
    Cuda: Layers<E>,
{
    norm::<E, 1, false>((2, 1, 1));
    norm::<E, 5, true>((9, 1, 1));
    norm::<E, 3, false>((4, 5, 7));
    norm::<E, 3, true>((4, 5, 7));
    norm::<E, 16, true>((3, 8, 8));
    norm::<E, 5, false>((1, 33, 3));
    norm::<E, 2, true>((1, 40, 41));
    norm::<E, 7, true>((300, 1, 2));
    norm::<E, 64, false>((2, 3, 3));
    norm::<E, 1, true>((2, 16, 16));
    norm::<E, 4, true>((20, 16, 15));
}

// Fails for a wrong mean, factor or mask, in either direction, and for an element that is left out
// or taken twice.
#[test]
#[ignore = "gpu"]
fn gpu_norms_in_single_precision() {
    norms::<f32>();
}

#[test]
#[ignore = "gpu"]
fn gpu_norms_in_double_precision() {
    norms::<f64>();
}

// A variance taken as the mean of squares less the square of the mean would lose all digits.
#[test]
#[ignore = "gpu"]
fn gpu_norm_of_a_large_mean() {
    let dev = Cuda::default();
    let noise: Tensor<Rank4<8, 1, 32, 32>, f32, _> = tensor(&dev, Default::default(), 5);
    let mut norm = dev.build_module::<builder::BatchNorm2d<1>, f32>();
    let y = norm.forward_mut((noise + 4096.0).leaky_trace()).as_vec();
    let squares = y.iter().map(|y| f64::from(y * y)).sum::<f64>() / y.len() as f64;
    // Inputs are rounded to 2⁻¹² of their deviation.
    assert!((squares - 1.0).abs() < 1e-3, "{squares}");
}

pub(super) fn pooled<E: Real, D: Layers<E>>(
    dev: &D,
    (batch, height, width): (usize, usize, usize),
    pooling: Pooling,
    window: (usize, usize, usize),
) -> Vec<Vec<f64>> {
    let shape = (batch, Const::<3>, height, width);
    // There are few different values, so that some pixels are equal.
    let few = wide(values::<E>(shape.num_elements(), 1)).into_iter().map(|x| (2.0 * x * x).round());
    let few = few.map(|x| E::from_f64(x).unwrap()).collect();
    let x: Images<3, E, D> = dev.tensor_from_vec(few, shape);
    let y = D::try_pool2d(x.leaky_trace(), pooling, window).unwrap();
    let mut lists = vec![numbers(&y)];
    lists.push(numbers(&backward(y).get(&x)));
    lists.push(numbers(&D::try_pool2d(x, pooling, window).unwrap()));
    lists
}

fn pools<E: Real>()
where
    Cpu: Layers<E>,
    Cuda: Layers<E>,
{
    let (cpu, gpu) = (Cpu::default(), Cuda::default());
    let cases = [
        ((1, 1, 1), (1, 1, 0)),
        ((2, 4, 6), (2, 2, 0)),
        ((2, 5, 4), (3, 2, 1)),
        ((2, 7, 7), (3, 1, 1)),
        ((1, 6, 5), (2, 3, 1)),
        ((5, 16, 17), (3, 2, 1)),
        ((3, 8, 8), (8, 8, 0)),
        ((2, 9, 3), (2, 1, 1)),
        ((4, 5, 5), (4, 3, 2)),
        ((1, 12, 7), (1, 3, 0)),
        ((70, 2, 2), (2, 2, 0)),
    ];
    for (size, window) in cases {
        for pooling in [Pooling::Max, Pooling::Mean] {
            let ours = pooled::<E, Cuda>(&gpu, size, pooling, window);
            let theirs = pooled::<E, Cpu>(&cpu, size, pooling, window);
            close::<E>(&ours, &theirs, &format!("{pooling:?} of {window:?} of {size:?}"));
        }
    }
}

// Fails for a wrong window, if padding could be the largest, and if another of equals gets the
// gradient.
#[test]
#[ignore = "gpu"]
fn gpu_pools() {
    pools::<f32>();
    pools::<f64>();
}

// PyTorch 2: torch.nn.functional.max_pool2d and its gradient.
#[test]
#[ignore = "gpu"]
fn gpu_pool_of_nan() {
    let dev = Cuda::default();
    let shape = (1_usize, Const::<1>, 2_usize, 2_usize);
    let x = dev.tensor_from_vec(vec![1.0, f64::NAN, 2.0, 3.0], shape);
    let y = Cuda::try_pool2d(x.leaky_trace(), Pooling::Max, (2, 1, 0)).unwrap();
    assert!(y.as_vec()[0].is_nan());
    let gradient = y.sum::<Rank0, _>().backward().get(&x);
    assert_eq!(gradient.as_vec(), [0.0, 1.0, 0.0, 0.0]);
}

// An empty batch is nothing to do, and its gradients are 0.
#[test]
#[ignore = "gpu"]
fn gpu_no_images() {
    let dev = Cuda::default();
    let conv = dev.build_module::<builder::BiasedConv2d<2, 3, 3>, f32>();
    let x: Images<2, f32, Cuda> = dev.zeros_like(&(0, Const, 4, 4));
    assert_eq!(conv.forward(x).shape(), &(0, Const, 2, 2));
}

// Fails if a gradient is overwritten: the second layer shares the first's weights.
#[test]
#[ignore = "gpu"]
fn gpu_gradients_accumulate() {
    fn twice<D: Layers<f64>>(dev: &D) -> Vec<Vec<f64>> {
        let x: Images<3, f64, D> = tensor(dev, (2, Const, 4, 4), 1);
        let weight: Filters<3, 3, 3, 1, f64, D> = tensor(dev, Default::default(), 2);
        let bias: Tensor<Rank1<3>, f64, D> = tensor(dev, Default::default(), 3);
        let sliding = Sliding { padding: 1, ..Default::default() };
        let options = Conv2dOptions { sliding, ..Default::default() };
        let y = D::try_conv2d(x.leaky_trace(), &weight, Some(&bias), options).unwrap();
        let y = D::try_conv2d(y, &weight, Some(&bias), options).unwrap();
        let gradients = backward(y);
        let of_parameters = [numbers(&gradients.get(&weight)), numbers(&gradients.get(&bias))];
        of_parameters.into_iter().chain([numbers(&gradients.get(&x))]).collect()
    }
    close::<f64>(&twice(&Cuda::default()), &twice(&Cpu::default()), "twice");
}
