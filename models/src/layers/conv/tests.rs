//! Convolution on the CPU against its definition, and against dfdx's own operations.
#![allow(clippy::unwrap_used, clippy::type_complexity)]
use super::*;
use crate::layers::{check, Kernels};
use dfdx::prelude::*;

type Images<const C: usize> = Tensor<(usize, Const<C>, usize, usize), f64, Cpu>;

/// The definition, one multiplication at a time.
fn defined<const I: usize, const O: usize, const K: usize, const G: usize>(
    x: &[f64],
    weight: &[f64],
    g: &Geometry,
) -> Vec<f64> {
    let mut y = Vec::new();
    let pixel = |image, channel, row: usize, column: usize| {
        let row = row.checked_sub(g.padding).filter(|row| *row < g.height);
        let column = column.checked_sub(g.padding).filter(|column| *column < g.width);
        row.zip(column).map_or(0.0, |(row, column)| {
            x[((image * I + channel) * g.height + row) * g.width + column]
        })
    };
    for image in 0..g.batch {
        for output in 0..O {
            let group = output / (O / G);
            for row in 0..g.out_height {
                for column in 0..g.out_width {
                    let mut sum = 0.0;
                    for channel in 0..I / G {
                        for tap in 0..K * K {
                            let w = weight[(output * (I / G) + channel) * K * K + tap];
                            let row = row * g.stride + tap / K * g.dilation;
                            let column = column * g.stride + tap % K * g.dilation;
                            sum += w * pixel(image, group * (I / G) + channel, row, column);
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

fn normal<S: Shape>(dev: &Cpu, shape: S) -> Tensor<S, f64, Cpu> {
    dev.sample_like(&shape, rand_distr::StandardNormal)
}

/// Against the definition, against the composed form, and the gradients of both.
fn agrees<const I: usize, const O: usize, const K: usize, const G: usize>(
    (batch, height, width): (usize, usize, usize),
    (stride, padding, dilation): (usize, usize, usize),
) {
    let dev = Cpu::seed_from_u64(3);
    let sliding = Sliding { stride, padding, dilation };
    let g = geometry::<I, O, K, G, CpuError>((batch, height, width), sliding).unwrap();
    let x: Images<I> = normal(&dev, (batch, Const, height, width));
    let weight: Filters<I, O, K, G, f64, Cpu> = normal(&dev, Default::default());
    let bias: Tensor<Rank1<O>, f64, Cpu> = normal(&dev, Default::default());
    let options = Conv2dOptions { sliding, input_gradient: true };

    let run = |ours: bool, bias: Option<&Tensor<Rank1<O>, f64, Cpu>>| {
        let x = x.leaky_trace();
        let y = match ours {
            true => Cpu::try_conv2d(x, &weight, bias, options).unwrap(),
            false => composed(x, &weight, bias, options).unwrap(),
        };
        let values = y.as_vec();
        let gradients = check::curved(y).backward();
        (values, gradients)
    };
    let ours = run(true, None);
    check::close(&ours.0, &defined::<I, O, K, G>(&x.as_vec(), &weight.as_vec(), &g));
    let theirs = run(false, None);
    check::close(&ours.0, &theirs.0);
    check::close(&ours.1.get(&x).as_vec(), &theirs.1.get(&x).as_vec());
    check::close(&ours.1.get(&weight).as_vec(), &theirs.1.get(&weight).as_vec());
    let (ours, theirs) = (run(true, Some(&bias)), run(false, Some(&bias)));
    check::close(&ours.0, &theirs.0);
    check::close(&ours.1.get(&bias).as_vec(), &theirs.1.get(&bias).as_vec());

    let without = Conv2dOptions { input_gradient: false, ..options };
    let y = Cpu::try_conv2d(x.leaky_trace(), &weight, Some(&bias), without).unwrap();
    let gradients = check::curved(y).backward();
    assert_eq!(gradients.get(&weight).as_vec(), ours.1.get(&weight).as_vec());
}

// Fails for a wrong tap, stride, padding, dilation or group, in either form and either direction.
#[test]
fn as_defined() {
    agrees::<1, 1, 1, 1>((1, 1, 1), (1, 0, 1));
    agrees::<3, 4, 3, 1>((2, 7, 6), (1, 1, 1));
    agrees::<3, 4, 3, 1>((3, 8, 9), (2, 1, 1));
    agrees::<4, 6, 3, 2>((2, 9, 7), (2, 2, 2));
    agrees::<4, 4, 3, 4>((2, 6, 6), (1, 1, 1));
    agrees::<2, 5, 2, 1>((2, 5, 6), (3, 0, 1));
    agrees::<3, 8, 7, 1>((1, 12, 13), (2, 3, 1));
    agrees::<6, 4, 1, 1>((3, 5, 4), (1, 0, 1));
    agrees::<6, 4, 1, 2>((3, 17, 16), (1, 0, 1));
    agrees::<6, 4, 1, 1>((3, 5, 4), (2, 0, 1));
    agrees::<2, 3, 1, 1>((2, 4, 4), (1, 1, 1));
    agrees::<2, 3, 5, 1>((1, 3, 3), (1, 4, 1));
    agrees::<16, 16, 3, 1>((9, 32, 32), (1, 1, 1));
    agrees::<3, 2, 3, 1>((70, 2, 2), (1, 1, 1));
    agrees::<40, 8, 3, 1>((2, 40, 40), (1, 1, 1));
}

/// Compares the direct way with the way by columns, in single precision.
fn direct_agrees<const I: usize, const O: usize, const K: usize>(
    (batch, height, width): (usize, usize, usize),
    (stride, padding, dilation): (usize, usize, usize),
) {
    let dev = Cpu::seed_from_u64(3);
    let sliding = Sliding { stride, padding, dilation };
    let g = geometry::<I, O, K, 1, CpuError>((batch, height, width), sliding).unwrap();
    assert!(direct::suits(&g));
    let values =
        |len: usize| -> Vec<f32> { dev.sample_like(&(len,), rand_distr::StandardNormal).as_vec() };
    let (x, weight) = (values(batch * g.image()), values(O * I * K * K));
    let y_gradient = values(batch * g.out_image());
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
    let close = |ours: Vec<f32>, theirs: Vec<f32>| {
        let (ours, theirs) = (wide(ours), wide(theirs));
        let scale = theirs.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
        // Sums of some thousand products in another order, each to 6e-8.
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours - theirs).abs() <= 2e-5 * scale, "{ours} for {theirs}");
        }
    };
    // Results are added to what is there already.
    let (mut ours, mut theirs) = (vec![1.0; y_gradient.len()], vec![1.0; y_gradient.len()]);
    direct::forward(&g, &x, &weight, &mut ours);
    columns::forward(&g, &x, &weight, &mut theirs);
    close(ours, theirs);
    let gradients =
        |part: fn(&Geometry, &[f32], &[f32], &[f32], Option<&mut [f32]>, &mut [f32])| {
            let (mut of_x, mut of_weight) = (vec![1.0; x.len()], vec![1.0; weight.len()]);
            part(&g, &x, &weight, &y_gradient, Some(&mut of_x), &mut of_weight);
            (of_x, of_weight)
        };
    let (ours, theirs) = (gradients(direct::part), gradients(columns::part));
    close(ours.0, theirs.0);
    close(ours.1, theirs.1);
}

// Sizes below and above those of a register, a block of outputs, a pair of filters and a run of
// images, interleaved and not. Fails for a wrong tap or phase, if a number beyond the end is read,
// and if numbers of earlier images are left over.
#[test]
fn the_direct_way_as_the_other() {
    let plain = (1, 1, 1);
    direct_agrees::<1, 1, 3>((1, 1, 1), plain);
    direct_agrees::<1, 1, 2>((1, 2, 2), (1, 0, 1));
    direct_agrees::<3, 16, 3>((2, 32, 32), plain);
    direct_agrees::<16, 16, 3>((5, 32, 32), plain);
    direct_agrees::<2, 3, 3>((15, 20, 20), plain);
    direct_agrees::<2, 3, 3>((15, 21, 21), plain);
    direct_agrees::<5, 9, 3>((11, 8, 8), plain);
    direct_agrees::<5, 9, 3>((13, 8, 8), plain);
    direct_agrees::<5, 9, 3>((30, 8, 8), plain);
    direct_agrees::<5, 10, 3>((30, 2, 3), plain);
    direct_agrees::<5, 10, 3>((300, 2, 3), plain);
    direct_agrees::<64, 64, 3>((29, 8, 8), plain);
    for batch in [3, 30] {
        direct_agrees::<4, 8, 3>((batch, 11, 10), (1, 0, 1));
        direct_agrees::<4, 11, 3>((batch, 7, 9), (1, 2, 1));
        direct_agrees::<4, 11, 3>((batch, 7, 9), (1, 4, 1));
        direct_agrees::<3, 8, 2>((batch, 9, 9), (1, 1, 1));
        direct_agrees::<3, 8, 4>((batch, 9, 9), (1, 1, 1));
        direct_agrees::<2, 7, 5>((batch, 12, 14), (1, 2, 1));
        direct_agrees::<2, 12, 7>((batch, 17, 16), (1, 3, 1));
        direct_agrees::<2, 7, 3>((batch, 9, 12), (1, 1, 2));
        direct_agrees::<4, 9, 3>((batch, 16, 16), (2, 1, 1));
        direct_agrees::<4, 9, 3>((batch, 13, 12), (2, 1, 1));
        direct_agrees::<2, 9, 3>((batch, 48, 47), (2, 1, 1));
        direct_agrees::<3, 5, 7>((batch, 14, 15), (2, 3, 1));
        direct_agrees::<3, 5, 2>((batch, 14, 15), (3, 0, 1));
        direct_agrees::<3, 5, 2>((batch, 14, 15), (3, 2, 2));
        direct_agrees::<3, 5, 3>((batch, 14, 15), (2, 0, 2));
        direct_agrees::<3, 5, 3>((batch, 14, 15), (3, 5, 2));
    }
}

// Single precision has a way of its own: images as one run, and interleaved.
#[test]
fn the_same_bits_in_single_precision() {
    let with = |threads, (batch, size, stride)| {
        check::with_threads(threads, || {
            let dev = Cpu::seed_from_u64(5);
            let shape = (batch, Const::<5>, size, size);
            let x: Tensor<(usize, Const<5>, usize, usize), f32, _> =
                dev.sample_like(&shape, rand_distr::StandardNormal);
            let filters: (Const<13>, Over<5, 1>, Const<3>, Const<3>) = Default::default();
            let weight: Filters<5, 13, 3, 1, f32, Cpu> =
                dev.sample_like(&filters, rand_distr::StandardNormal);
            let sliding = Sliding { stride, padding: 1, dilation: 1 };
            let options = Conv2dOptions { sliding, input_gradient: true };
            let y = Cpu::try_conv2d(x.leaky_trace(), &weight, None, options).unwrap();
            let values = y.as_vec();
            let gradients = (y + 0.5).square().sum::<Rank0, _>().backward();
            (values, gradients.get(&x).as_vec(), gradients.get(&weight).as_vec())
        })
    };
    for case in [(13, 40, 1), (62, 8, 1), (40, 9, 2), (9, 45, 2)] {
        let one = with(1, case);
        assert_eq!(one, with(2, case));
        assert_eq!(one, with(5, case));
    }
}

// Central differences of the curved sum, over every element of x, weight and bias.
#[test]
fn gradients_are_derivatives() {
    let dev = Cpu::seed_from_u64(5);
    let x: Images<4> = normal(&dev, (2, Const, 5, 4));
    let weight: Filters<4, 6, 3, 2, f64, Cpu> = normal(&dev, Default::default());
    let bias: Tensor<Rank1<6>, f64, Cpu> = normal(&dev, Default::default());
    let sliding = Sliding { stride: 2, padding: 1, dilation: 1 };
    let options = Conv2dOptions { sliding, input_gradient: true };
    let loss = |x: &Images<4>, weight: &_, bias: &_| {
        check::curved(Cpu::try_conv2d(x.leaky_trace(), weight, Some(bias), options).unwrap())
    };
    let gradients = loss(&x, &weight, &bias).backward();
    check::derivative(&x, &gradients.get(&x), |x| loss(x, &weight, &bias).array());
    check::derivative(&weight, &gradients.get(&weight), |w| loss(&x, w, &bias).array());
    check::derivative(&bias, &gradients.get(&bias), |bias| loss(&x, &weight, bias).array());
}

// Fails if the images that a thread takes depend on the number of threads.
#[test]
fn the_same_bits_for_any_number_of_threads() {
    let with = |threads| {
        check::with_threads(threads, || {
            let dev = Cpu::seed_from_u64(5);
            let x = normal(&dev, (13, Const::<5>, 20, 20));
            let weight: Filters<5, 7, 3, 1, f64, Cpu> = normal(&dev, Default::default());
            let options = Conv2dOptions::default();
            let y = Cpu::try_conv2d(x.leaky_trace(), &weight, None, options).unwrap();
            let values = y.as_vec();
            let gradients = check::curved(y).backward();
            (values, gradients.get(&x).as_vec(), gradients.get(&weight).as_vec())
        })
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}

// Fails if a gradient is overwritten: the second layer shares the first's weight and bias.
#[test]
fn gradients_accumulate() {
    let dev = Cpu::seed_from_u64(5);
    let x = normal(&dev, (2, Const::<3>, 4, 4));
    let weight: Filters<3, 3, 3, 1, f64, Cpu> = normal(&dev, Default::default());
    let bias: Tensor<Rank1<3>, f64, Cpu> = normal(&dev, Default::default());
    let options = Conv2dOptions {
        sliding: Sliding { padding: 1, ..Default::default() },
        ..Default::default()
    };
    let twice = |ours: bool| {
        let layer = |x| match ours {
            true => Cpu::try_conv2d(x, &weight, Some(&bias), options).unwrap(),
            false => composed(x, &weight, Some(&bias), options).unwrap(),
        };
        let y = layer(x.leaky_trace());
        let gradients = check::curved(layer(y)).backward();
        (gradients.get(&weight).as_vec(), gradients.get(&bias).as_vec())
    };
    let (ours, theirs) = (twice(true), twice(false));
    check::close(&ours.0, &theirs.0);
    check::close(&ours.1, &theirs.1);
}

#[test]
fn images_smaller_than_the_filter() {
    let dev = Cpu::default();
    let conv = dev.build_module::<builder::Conv2d<1, 1, 5, 1, 1>, f32>();
    let x: Tensor<(usize, Const<1>, usize, usize), f32, _> = dev.zeros_like(&(1, Const, 2, 9));
    let error = conv.try_forward(x).unwrap_err();
    let misfit = Misfit::Filter { height: 2, width: 9 };
    assert!(matches!(&error, LayerError::Shape { misfit: found, .. } if *found == misfit));
    let text = error.to_string();
    assert!(text.contains("5x5") && text.contains("2x9"), "{text}");
    let x: Tensor<(usize, Const<1>, usize, usize), f32, _> = dev.zeros_like(&(1, Const, 3, 9));
    assert_eq!(conv.try_forward(x).unwrap().shape(), &(1, Const, 1, 7));
}

// An empty batch is nothing to do, not a division by zero.
#[test]
fn no_images() {
    let dev = Cpu::default();
    let conv = dev.build_module::<builder::BiasedConv2d<2, 3, 3>, f32>();
    let x: Tensor<(usize, Const<2>, usize, usize), f32, _> = dev.zeros_like(&(0, Const, 4, 4));
    assert_eq!(conv.forward(x).shape(), &(0, Const, 2, 2));
}

// The weights fill the range up to 1/√(IN/GROUPS·K·K).
#[test]
fn starts_as_pytorch_does() {
    let dev = Cpu::seed_from_u64(1);
    let conv = dev.build_module::<builder::BiasedConv2d<8, 64, 3, 1, 1, 1, 2>, f64>();
    let bound = 1.0 / 36f64.sqrt();
    for values in [conv.weight.as_vec(), conv.bias.as_vec()] {
        let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        assert!(largest <= bound && largest > 0.9 * bound, "{largest} for {bound}");
    }
}
