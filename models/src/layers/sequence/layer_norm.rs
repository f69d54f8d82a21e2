//! Layer norm over the features of each row.

#[cfg(feature = "cuda")]
mod on_cuda;

#[cfg(feature = "cuda")]
pub(super) use on_cuda::on_cuda;

use super::Rows;
use crate::layers::{
    buffer,
    element::Element,
    scratch::Scratch,
    shares::Shares,
    simd::{sum, sum_of_products},
};
use dfdx::prelude::{
    Axis, BroadcastTo, Const, Cpu, CpuError, Device, Dtype, Gradients, HasShape, PutTape, Rank1,
    SplitTape, Tape, Tensor, TryAdd, TryMul,
};
use pulp::NullaryFnOnce;
use rayon::prelude::*;

/// How many rows make a piece of work: fixed, so that sums over rows do not depend on the number of
/// threads.
const ROWS: usize = 32;

/// Layer norm by dfdx's own operations, on any device.
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

/// Layer norm on the CPU, in one pass each way, with the statistics in f64. All tensors are
/// contiguous.
pub(super) fn on_cpu<E: Element + Dtype, T: Tape<E, Cpu>, const M: usize>(
    x: Rows<usize, M, E, Cpu, T>,
    weight: Tensor<Rank1<M>, E, Cpu>,
    bias: Tensor<Rank1<M>, E, Cpu>,
    epsilon: f64,
) -> Result<Rows<usize, M, E, Cpu, T>, CpuError> {
    let (x, mut tape) = x.split_tape();
    let rows = x.shape().0;
    let device = x.device().clone();
    // These become the normalized rows, before weight and bias.
    let mut normal = Scratch::of(&x);
    let weight_values = Scratch::of(&weight);
    let bias_values = Scratch::of(&bias);
    let mut y_values = buffer::zeros(&device, rows * M)?;
    let mut scales = vec![0.0; rows];
    let width = M.max(1);
    y_values
        .shared_chunks_mut(ROWS * width)
        .zip(normal.par_chunks_mut(ROWS * width))
        .zip(scales.par_chunks_mut(ROWS))
        .for_each(|((y, normal), scales)| {
            let affine = (&weight_values[..], &bias_values[..]);
            pulp::Arch::new().dispatch(RowsForward::<_, M> { y, normal, scales, affine, epsilon });
        });
    let y = buffer::tensor(&device, y_values, (rows, Const::<M>))?;

    let ghosts = (x.ghost(), weight.ghost(), bias.ghost(), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, weight, bias, y) = ghosts;
        let y_gradient = buffer::take(gradients.get_or_alloc_mut(&y)?);
        let mut x_gradient = buffer::take(gradients.get_or_alloc_mut(&x)?);
        let shares: Vec<[Vec<f64>; 2]> = x_gradient
            .shared_chunks_mut(ROWS * width)
            .zip(y_gradient.par_chunks(ROWS * width))
            .zip(normal.par_chunks(ROWS * width))
            .zip(scales.par_chunks(ROWS))
            .map(|(((dx, dy), normal), scales)| {
                let weight = &weight_values[..];
                pulp::Arch::new().dispatch(RowsBackward::<_, M> { dx, dy, normal, scales, weight })
            })
            .collect();
        **gradients.get_or_alloc_mut(&y)? = y_gradient;
        **gradients.get_or_alloc_mut(&x)? = x_gradient;
        for (ghost, part) in [
            (weight, shares.iter().map(|[scaled, _]| scaled).collect::<Vec<_>>()),
            (bias, shares.iter().map(|[_, shifted]| shifted).collect()),
        ] {
            let mut total = vec![0.0; M];
            for share in part {
                total.iter_mut().zip(share).for_each(|(total, share)| *total += share);
            }
            let gradient = gradients.get_or_alloc_mut(&ghost)?;
            gradient.iter_mut().zip(total).for_each(|(to, total)| *to += E::of(total));
        }
        Ok(())
    });
    Ok(y.put_tape(tape))
}

/// The forward pass of some rows. This is a type, as is [`RowsBackward`], because the compiler does
/// not inline a closure of this size.
struct RowsForward<'a, E, const M: usize> {
    y: &'a mut [E],
    /// The rows, which are normalized in place, before weight and bias.
    normal: &'a mut [E],
    scales: &'a mut [f64],
    affine: (&'a [E], &'a [E]),
    epsilon: f64,
}

impl<E: Element, const M: usize> NullaryFnOnce for RowsForward<'_, E, M> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let width = M.max(1);
        let rows = self.y.chunks_exact_mut(width).zip(self.normal.chunks_exact_mut(width));
        for ((y, row), scale) in rows.zip(self.scales) {
            let mean = sum(row, E::to) / M as f64;
            let square = |x: E| (x.to() - mean) * (x.to() - mean);
            *scale = 1.0 / (sum(row, square) / M as f64 + self.epsilon).sqrt();
            let affine = self.affine.0.iter().zip(self.affine.1);
            for ((y, x), (weight, bias)) in y.iter_mut().zip(row).zip(affine) {
                *x = E::of((x.to() - mean) * *scale);
                *y = *x * *weight + *bias;
            }
        }
    }
}

/// The backward pass of some rows. It returns what they contribute to the gradients of weight and
/// bias.
struct RowsBackward<'a, E, const M: usize> {
    dx: &'a mut [E],
    dy: &'a [E],
    normal: &'a [E],
    scales: &'a [f64],
    weight: &'a [E],
}

impl<E: Element, const M: usize> NullaryFnOnce for RowsBackward<'_, E, M> {
    type Output = [Vec<f64>; 2];

    #[inline(always)]
    fn call(self) -> [Vec<f64>; 2] {
        let width = M.max(1);
        let [mut scaled, mut shifted, mut through] = [M; 3].map(|len| vec![0.0; len]);
        let rows = self.dx.chunks_exact_mut(width).zip(self.dy.chunks_exact(width));
        for (((dx, dy), normal), scale) in
            rows.zip(self.normal.chunks_exact(width)).zip(self.scales)
        {
            let sums = scaled.iter_mut().zip(&mut shifted).zip(&mut through);
            let values = dy.iter().zip(normal).zip(self.weight);
            for (((scaled, shifted), through), ((dy, x), weight)) in sums.zip(values) {
                *scaled += dy.to() * x.to();
                *shifted += dy.to();
                *through = dy.to() * weight.to();
            }
            // These terms make dx orthogonal to the directions that the norm removes.
            let mean = sum(&through, |dy| dy) / M as f64;
            let along = sum_of_products(&through, normal) / M as f64;
            for ((dx, dy), x) in dx.iter_mut().zip(&through).zip(normal) {
                *dx += E::of(scale * (dy - mean - x.to() * along));
            }
        }
        [scaled, shifted]
    }
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
            // A single feature is its own mean, so only the bias is left.
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

    // Fails if each thread has a sum over rows of its own.
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

    // The deviations are a millionth of the mean. They would be lost if the statistics were in f32.
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
