//! Layer norm over the features of each row.

use super::Rows;
use crate::layers::{buffer, element::Element};
use dfdx::prelude::{
    Axis, BroadcastTo, Const, Cpu, CpuError, Device, Dtype, Gradients, HasShape, PutTape, Rank1,
    SplitTape, Tape, Tensor, TryAdd, TryMul,
};
use rayon::prelude::*;

/// Rows in a piece of work: fixed, so that sums over rows do not depend on the number of threads.
const ROWS: usize = 32;

/// By dfdx's own operations, on any device.
pub(super) fn composed<E: Dtype, D: Device<E>, T: Tape<E, D>, const M: usize>(
    x: Rows<usize, M, E, D, T>,
    weight: &Tensor<Rank1<M>, E, D>,
    bias: &Tensor<Rank1<M>, E, D>,
    epsilon: f64,
) -> Result<Rows<usize, M, E, D, T>, D::Err> {
    let shape = *x.shape();
    x.try_normalize::<Axis<1>>(epsilon)?
        .try_mul(weight.retaped::<T>().try_broadcast_like(&shape)?)?
        .try_add(bias.retaped::<T>().try_broadcast_like(&shape)?)
}

/// In one pass each way, with the statistics in f64. All tensors are contiguous.
pub(super) fn on_cpu<E: Element + Dtype, T: Tape<E, Cpu>, const M: usize>(
    x: Rows<usize, M, E, Cpu, T>,
    weight: Tensor<Rank1<M>, E, Cpu>,
    bias: Tensor<Rank1<M>, E, Cpu>,
    epsilon: f64,
) -> Result<Rows<usize, M, E, Cpu, T>, CpuError> {
    let (x, mut tape) = x.split_tape();
    let rows = x.shape().0;
    let device = x.device().clone();
    // Becomes what the rows are before weight and bias.
    let mut normal = buffer::read(&x)?;
    let weight_values = buffer::read(&weight)?;
    let bias_values = buffer::read(&bias)?;
    let mut y_values = buffer::any(&device, rows * M)?;
    let mut scales = vec![0.0; rows];
    let width = M.max(1);
    y_values
        .par_chunks_mut(ROWS * width)
        .zip(normal.par_chunks_mut(ROWS * width))
        .zip(scales.par_chunks_mut(ROWS))
        .for_each(|((y, normal), scales)| {
            let rows = y.chunks_exact_mut(width).zip(normal.chunks_exact_mut(width));
            for ((y, row), scale) in rows.zip(scales) {
                let mean = row.iter().map(|x| x.to()).sum::<f64>() / M as f64;
                let variance =
                    row.iter().map(|x| (x.to() - mean) * (x.to() - mean)).sum::<f64>() / M as f64;
                *scale = 1.0 / (variance + epsilon).sqrt();
                let affine = weight_values.iter().zip(bias_values.iter());
                for ((y, x), (weight, bias)) in y.iter_mut().zip(row).zip(affine) {
                    *x = E::of((x.to() - mean) * *scale);
                    *y = *x * *weight + *bias;
                }
            }
        });
    let y = buffer::tensor(&device, y_values, (rows, Const::<M>))?;

    let ghosts = (x.ghost(), weight.ghost(), bias.ghost(), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, weight, bias, y) = ghosts;
        let y_gradient = buffer::take(gradients.get_or_alloc_mut(&y)?);
        let mut x_gradient = buffer::take(gradients.get_or_alloc_mut(&x)?);
        let sums: Vec<Vec<(f64, f64)>> = x_gradient
            .par_chunks_mut(ROWS * width)
            .zip(y_gradient.par_chunks(ROWS * width))
            .zip(normal.par_chunks(ROWS * width))
            .zip(scales.par_chunks(ROWS))
            .map(|(((dx, dy), normal), scales)| {
                let mut sums = vec![(0.0, 0.0); M];
                let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width));
                for (((dx, dy), normal), scale) in rows.zip(normal.chunks_exact(width)).zip(scales)
                {
                    // Both per feature, and the means over the features that make dx orthogonal to
                    // what the norm takes out.
                    let (mut mean, mut along) = (0.0, 0.0);
                    for (((dy, x), weight), sums) in
                        dy.iter().zip(normal).zip(weight_values.iter()).zip(&mut sums)
                    {
                        let (dy, x) = (dy.to(), x.to());
                        sums.0 += dy * x;
                        sums.1 += dy;
                        mean += dy * weight.to();
                        along += dy * weight.to() * x;
                    }
                    mean /= M as f64;
                    along /= M as f64;
                    for (((dx, dy), x), weight) in
                        dx.iter_mut().zip(dy).zip(normal).zip(weight_values.iter())
                    {
                        *dx += E::of(scale * (dy.to() * weight.to() - mean - x.to() * along));
                    }
                }
                sums
            })
            .collect();
        let total = sums.into_iter().fold(vec![(0.0, 0.0); M], |mut total, sums| {
            total.iter_mut().zip(sums).for_each(|(total, sum)| {
                total.0 += sum.0;
                total.1 += sum.1;
            });
            total
        });
        **gradients.get_or_alloc_mut(&y)? = y_gradient;
        **gradients.get_or_alloc_mut(&x)? = x_gradient;
        let weight = gradients.get_or_alloc_mut(&weight)?;
        weight.iter_mut().zip(&total).for_each(|(weight, sum)| *weight += E::of(sum.0));
        let bias = gradients.get_or_alloc_mut(&bias)?;
        bias.iter_mut().zip(&total).for_each(|(bias, sum)| *bias += E::of(sum.1));
        Ok(())
    });
    Ok(y.put_tape(tape))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::check::*;
    use crate::layers::SequenceKernels;
    use dfdx::prelude::*;

    fn run<const M: usize>(
        rows: usize,
        layer: impl Fn(
            Rows<usize, M, f64, Cpu, Owned>,
            &Tensor<Rank1<M>, f64, Cpu>,
            &Tensor<Rank1<M>, f64, Cpu>,
            f64,
        ) -> Result<Rows<usize, M, f64, Cpu, Owned>, CpuError>,
    ) -> Vec<Vec<f64>> {
        let dev = Cpu::seed_from_u64(7);
        let x = dev.sample_like(&(rows, Const::<M>), rand_distr::StandardNormal);
        let weight: Tensor<Rank1<M>, f64, _> = dev.sample_normal();
        let bias: Tensor<Rank1<M>, f64, _> = dev.sample_normal();
        let y = layer(x.leaky_trace(), &weight, &bias, 1e-5).unwrap();
        let values = y.as_vec();
        let g = curved(y).backward();
        vec![values, g.get(&x).as_vec(), g.get(&weight).as_vec(), g.get(&bias).as_vec()]
    }

    // Fails for any wrong mean, scale or sum.
    #[test]
    fn as_composed_of_dfdx_operations() {
        for rows in [1, 3, 31, 65] {
            let (ours, theirs) = (run::<1>(rows, Cpu::try_layer_norm), run::<1>(rows, composed));
            // One feature is its own mean: what is left is bias.
            all_close(&ours, &theirs);
            all_close(&run::<7>(rows, Cpu::try_layer_norm), &run::<7>(rows, composed));
            all_close(&run::<96>(rows, Cpu::try_layer_norm), &run::<96>(rows, composed));
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let dev = Cpu::seed_from_u64(3);
        let x = dev.sample_like(&(3, Const::<5>), rand_distr::StandardNormal);
        let weight: Tensor<Rank1<5>, f64, _> = dev.sample_normal();
        let bias: Tensor<Rank1<5>, f64, _> = dev.sample_normal();
        differences(&x, |x| curved(Cpu::try_layer_norm(x, &weight, &bias, 1e-2).unwrap()));
        differences(&weight, |w| {
            curved(Cpu::try_layer_norm(x.retaped(), &w.retaped(), &bias, 1e-2).unwrap())
        });
        differences(&bias, |b| {
            curved(Cpu::try_layer_norm(x.retaped(), &weight, &b.retaped(), 1e-2).unwrap())
        });
    }

    // Fails if the sums over rows were one a thread.
    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        same_for_any_threads(|| run::<33>(333, Cpu::try_layer_norm));
    }

    // Fails if a gradient is overwritten.
    #[test]
    fn gradients_accumulate() {
        let dev = Cpu::seed_from_u64(7);
        let weight: Tensor<Rank1<3>, f64, _> = dev.sample_normal();
        let bias: Tensor<Rank1<3>, f64, _> = dev.sample_normal();
        let x = dev.sample_like(&(4, Const::<3>), rand_distr::StandardNormal);
        let twice = |layer: fn(_, &_, &_, f64) -> Result<_, CpuError>| {
            let y: Rows<usize, 3, f64, Cpu, Owned> =
                layer(x.leaky_trace(), &weight, &bias, 1e-5).unwrap();
            let y = layer(y, &weight, &bias, 1e-5).unwrap() + x.clone();
            let g = curved(y).backward();
            vec![g.get(&x).as_vec(), g.get(&weight).as_vec(), g.get(&bias).as_vec()]
        };
        all_close(&twice(Cpu::try_layer_norm), &twice(composed));
    }

    // Deviations of a millionth of the mean: lost if the statistics were in f32.
    #[test]
    fn statistics_in_f64() {
        let dev = Cpu::default();
        let x: Vec<f32> = (0..1024).map(|i| 1000.0 + (i % 2) as f32 * 0.001).collect();
        let x = dev.tensor_from_vec(x, (1, Const::<1024>));
        let expected: Vec<f64> = x.as_vec().iter().map(|x| f64::from(*x)).collect();
        let mean = expected.iter().sum::<f64>() / 1024.0;
        let variance = expected.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1024.0;
        let y = Cpu::try_layer_norm(x, &dev.ones(), &dev.zeros(), 0.0).unwrap().as_vec();
        for (y, x) in y.iter().zip(&expected) {
            let expected = (x - mean) / variance.sqrt();
            assert!((f64::from(*y) - expected).abs() < 1e-6, "{y} for {expected}");
        }
    }
}
