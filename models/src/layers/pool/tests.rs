//! Pooling on the CPU against its definition, and against dfdx's own operations.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::layers::{check, Kernels};
use dfdx::prelude::*;

type Images = Tensor<(usize, Const<3>, usize, usize), f64, Cpu>;

fn images(batch: usize, height: usize, width: usize) -> Images {
    let dev = Cpu::seed_from_u64(6);
    dev.sample_like(&(batch, Const, height, width), rand_distr::StandardNormal)
}

/// The definition, a window at a time.
fn defined(x: &[f64], g: &Geometry, pooling: Pooling) -> Vec<f64> {
    let mut y = Vec::new();
    for plane in x.chunks(g.height * g.width) {
        for (row, column) in g.positions() {
            let (mut max, mut sum) = (f64::NEG_INFINITY, 0.0);
            for tap in 0..g.kernel * g.kernel {
                let row = (row * g.stride + tap / g.kernel) as isize - g.padding as isize;
                let column = (column * g.stride + tap % g.kernel) as isize - g.padding as isize;
                let inside = |at: isize, size: usize| at >= 0 && (at as usize) < size;
                if inside(row, g.height) && inside(column, g.width) {
                    let value = plane[row as usize * g.width + column as usize];
                    max = max.max(value);
                    sum += value;
                }
            }
            y.push(match pooling {
                Pooling::Max => max,
                Pooling::Mean => sum / (g.kernel * g.kernel) as f64,
            });
        }
    }
    y
}

fn agrees(size: (usize, usize, usize), window: (usize, usize, usize)) {
    let x = images(size.0, size.1, size.2);
    let g =
        geometry::<CpuError>([size.0, 3, size.1, size.2], window.0, window.1, window.2).unwrap();
    for pooling in [Pooling::Max, Pooling::Mean] {
        let ours = Cpu::try_pool2d(x.leaky_trace(), pooling, window).unwrap();
        let theirs = composed(x.leaky_trace(), pooling, window).unwrap();
        assert_eq!(*ours.shape(), (size.0, Const, g.out_height, g.out_width));
        check::close(&ours.as_vec(), &defined(&x.as_vec(), &g, pooling));
        check::close(&ours.as_vec(), &theirs.as_vec());
        let (ours, theirs) = (check::curved(ours).backward(), check::curved(theirs).backward());
        check::close(&ours.get(&x).as_vec(), &theirs.get(&x).as_vec());
        if x.shape().num_elements() < 200 {
            // No two pixels are within 1e-5 of each other.
            check::derivative(&x, &ours.get(&x), |x| {
                check::curved(Cpu::try_pool2d(x.leaky_trace(), pooling, window).unwrap()).array()
            });
        }
    }
}

// Fails for a wrong window, or if padding could be the largest.
#[test]
fn as_defined() {
    agrees((1, 1, 1), (1, 1, 0));
    agrees((2, 4, 6), (2, 2, 0));
    agrees((2, 5, 4), (3, 2, 1));
    agrees((2, 7, 7), (3, 1, 1));
    agrees((1, 6, 5), (2, 3, 1));
    agrees((5, 16, 17), (3, 2, 1));
}

// The figures are PyTorch 2's: torch.nn.functional.max_pool2d of this image and its gradient, and
// the same with a NaN.
#[test]
fn the_first_of_equals_and_nan() {
    let dev = Cpu::default();
    let image = |values: &[f64], size: usize| {
        let shape = (1_usize, Const::<1>, size, size);
        dev.tensor_from_vec(values.to_vec(), shape)
    };
    for forward in [Cpu::try_pool2d, composed] {
        let x = image(&[1.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0], 3);
        let y = forward(x.leaky_trace(), Pooling::Max, (2, 1, 0)).unwrap();
        assert_eq!(y.as_vec(), [2.0, 2.0, 2.0, 2.0]);
        let gradient = y.sum::<Rank0, _>().backward().get(&x);
        assert_eq!(gradient.as_vec(), [0.0, 2.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);

        let x = image(&[1.0, f64::NAN, 2.0, 3.0], 2);
        let y = forward(x.leaky_trace(), Pooling::Max, (2, 1, 0)).unwrap();
        assert!(y.as_vec()[0].is_nan());
        let gradient = y.sum::<Rank0, _>().backward().get(&x);
        assert_eq!(gradient.as_vec(), [0.0, 1.0, 0.0, 0.0]);

        // All pixels are lower than the zeros that padding might be taken for.
        let x = image(&[-1.0, -2.0, -3.0, -4.0], 2);
        let y = forward(x.leaky_trace(), Pooling::Max, (2, 2, 1)).unwrap();
        assert_eq!(y.as_vec(), [-1.0, -2.0, -3.0, -4.0]);
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for pooling in [Pooling::Max, Pooling::Mean] {
        let with = |threads| {
            check::with_threads(threads, || {
                let x = images(7, 20, 20);
                let y = Cpu::try_pool2d(x.leaky_trace(), pooling, (3, 2, 1)).unwrap();
                (y.as_vec(), check::curved(y).backward().get(&x).as_vec())
            })
        };
        assert_eq!(with(1), with(3));
    }
}

#[test]
fn images_smaller_than_the_window() {
    let error = MaxPool2d::<4>.try_forward(images(1, 3, 9)).unwrap_err();
    let misfit = Misfit::Window { height: 3, width: 9 };
    assert!(matches!(&error, LayerError::Shape { misfit: found, .. } if *found == misfit));
    assert!(error.to_string().contains("4x4"));
    assert!(Cpu::try_pool2d(images(1, 9, 9), Pooling::Max, (2, 1, 2)).is_err());
    assert!(Cpu::try_pool2d(images(1, 9, 9), Pooling::Mean, (2, 0, 0)).is_err());
}
