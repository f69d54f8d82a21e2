//! A dense layer with its bias and rectifier in one pass.

#[cfg(feature = "cuda")]
mod on_cuda;

#[cfg(feature = "cuda")]
pub(super) use on_cuda::on_cuda;

use super::{
    buffer,
    element::Element,
    gemm::{self, Matrix},
    scratch::Scratch,
    simd::vectorized,
    Rows,
};
use dfdx::prelude::{
    BroadcastTo, Cpu, CpuError, Device, Dim, Dtype, Gradients, HasShape, PermuteTo, PutTape, Rank1,
    Rank2, SplitTape, Tape, Tensor, TryAdd, TryMatMul,
};

/// The options of a dense layer. By default it has no rectifier, and the input gets its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearOptions {
    /// Whether the result is rectified; the derivative at 0 is 0.
    pub relu: bool,
    /// Whether the gradient of the input is wanted. It costs as much as the forward pass. If the
    /// input is data, it is not needed: a device may then leave it out.
    pub input_gradient: bool,
}

impl Default for LinearOptions {
    fn default() -> Self {
        Self { relu: false, input_gradient: true }
    }
}

/// A dense layer by dfdx's own operations, on any device.
pub(super) fn composed<B, E, D, T, const IN: usize, const OUT: usize>(
    x: Rows<B, IN, E, D, T>,
    weight: &Tensor<Rank2<OUT, IN>, E, D>,
    bias: &Tensor<Rank1<OUT>, E, D>,
    options: LinearOptions,
) -> Result<Rows<B, OUT, E, D, T>, D::Err>
where
    B: Dim,
    E: Dtype,
    D: Device<E>,
    T: Tape<E, D>,
{
    let product = x.try_matmul(weight.retaped::<T>().try_permute::<Rank2<IN, OUT>, _>()?)?;
    let shape = *product.shape();
    let y = product.try_add(bias.retaped::<T>().try_broadcast_like(&shape)?)?;
    if options.relu {
        y.try_relu()
    } else {
        Ok(y)
    }
}

/// A dense layer on the CPU by three matrix products. The work element by element is done while the
/// elements are in the cache. All tensors are contiguous.
pub(super) fn on_cpu<B, E, T, const IN: usize, const OUT: usize>(
    x: Rows<B, IN, E, Cpu, T>,
    weight: Tensor<Rank2<OUT, IN>, E, Cpu>,
    bias: Tensor<Rank1<OUT>, E, Cpu>,
    options: LinearOptions,
) -> Result<Rows<B, OUT, E, Cpu, T>, CpuError>
where
    B: Dim,
    E: Dtype + Element,
    T: Tape<E, Cpu>,
{
    let (x, mut tape) = x.split_tape();
    let batch = x.shape().0;
    let rows = batch.size();
    let device = x.device().clone();
    let x_values = Scratch::of(&x);
    let weight_values = Scratch::of(&weight);
    let bias_values = Scratch::of(&bias);

    let mut y_values = buffer::zeros(&device, rows * OUT)?;
    for row in y_values.chunks_exact_mut(OUT.max(1)) {
        row.copy_from_slice(&bias_values);
    }
    gemm::add_product(
        &mut y_values,
        Matrix::new(&x_values, rows, IN),
        Matrix::new(&weight_values, OUT, IN).transposed(),
    );
    if options.relu {
        vectorized(|| {
            // NaN stays NaN: otherwise a broken batch would go unnoticed.
            y_values.iter_mut().for_each(|y| *y = if *y < E::ZERO { E::ZERO } else { *y });
        });
    }
    // The rectifier has let the values through that are above 0.
    let passed = if options.relu && T::OWNS_TAPE { Some(y_values.clone()) } else { None };
    let y = buffer::tensor(&device, y_values, (batch, dfdx::prelude::Const::<OUT>))?;

    let ghosts = (x.ghost(), weight.ghost(), bias.ghost(), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, weight, bias, y) = ghosts;
        let mut y_gradient = buffer::take(gradients.get_or_alloc_mut(&y)?);
        if let Some(passed) = passed {
            vectorized(|| {
                for (gradient, passed) in y_gradient.iter_mut().zip(passed.iter()) {
                    *gradient = if *passed <= E::ZERO { E::ZERO } else { *gradient };
                }
            });
        }
        let upstream = Matrix::new(&y_gradient, rows, OUT);

        let mut sums = Scratch::<f64>::zeros(OUT);
        vectorized(|| {
            for row in y_gradient.chunks_exact(OUT.max(1)) {
                sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += y.to());
            }
        });
        let bias_gradient = gradients.get_or_alloc_mut(&bias)?;
        bias_gradient.iter_mut().zip(sums.iter()).for_each(|(to, sum)| *to += E::of(*sum));
        let mut weight_gradient = buffer::take(gradients.get_or_alloc_mut(&weight)?);
        gemm::add_product(
            &mut weight_gradient,
            upstream.transposed(),
            Matrix::new(&x_values, rows, IN),
        );
        **gradients.get_or_alloc_mut(&weight)? = weight_gradient;
        if options.input_gradient {
            let mut x_gradient = buffer::take(gradients.get_or_alloc_mut(&x)?);
            gemm::add_product(&mut x_gradient, upstream, Matrix::new(&weight_values, OUT, IN));
            **gradients.get_or_alloc_mut(&x)? = x_gradient;
        }
        **gradients.get_or_alloc_mut(&y)? = y_gradient;
        Ok(())
    });
    Ok(y.put_tape(tape))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::Kernels;
    use dfdx::prelude::*;

    type Values = (Vec<f64>, Vec<f64>, Vec<f64>, Vec<f64>);

    /// y, and the gradients of Σ y·(y + 1) with respect to x, W and b, which differ everywhere.
    fn run<const IN: usize, const OUT: usize>(
        batch: usize,
        options: LinearOptions,
        layer: impl Fn(
            Rows<usize, IN, f64, Cpu, OwnedTape<f64, Cpu>>,
            &Tensor<Rank2<OUT, IN>, f64, Cpu>,
            &Tensor<Rank1<OUT>, f64, Cpu>,
            LinearOptions,
        ) -> Result<Rows<usize, OUT, f64, Cpu, OwnedTape<f64, Cpu>>, CpuError>,
    ) -> Values {
        let dev = Cpu::seed_from_u64(7);
        let x = dev.sample_like(&(batch, Const::<IN>), rand_distr::StandardNormal);
        let weight: Tensor<Rank2<OUT, IN>, f64, _> = dev.sample_normal();
        let bias: Tensor<Rank1<OUT>, f64, _> = dev.sample_normal();
        let y = layer(x.leaky_trace(), &weight, &bias, options).unwrap();
        let values = y.as_vec();
        let (y, tape) = y.split_tape();
        let loss = (y.clone().put_tape(tape) * (y + 1.0)).sum();
        let gradients = loss.backward();
        let x = if options.input_gradient { gradients.get(&x).as_vec() } else { Vec::new() };
        (values, x, gradients.get(&weight).as_vec(), gradients.get(&bias).as_vec())
    }

    fn close(ours: &[f64], theirs: &[f64]) {
        assert_eq!(ours.len(), theirs.len());
        let scale = theirs.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
        for (ours, theirs) in ours.iter().zip(theirs) {
            // Sums of at most 130 terms in another order.
            assert!((ours - theirs).abs() <= 1e-13 * scale, "{ours} for {theirs}");
        }
    }

    // dfdx's own operations are the oracle. Fails for any wrong step, transposition or sign.
    fn equals_composed<const IN: usize, const OUT: usize>() {
        for batch in [1, 2, 7, 130] {
            for relu in [false, true] {
                let options = LinearOptions { relu, ..Default::default() };
                let ours = run::<IN, OUT>(batch, options, Cpu::try_linear);
                let theirs = run::<IN, OUT>(batch, options, composed);
                close(&ours.0, &theirs.0);
                close(&ours.1, &theirs.1);
                close(&ours.2, &theirs.2);
                close(&ours.3, &theirs.3);
                let options = LinearOptions { input_gradient: false, ..options };
                let without = run::<IN, OUT>(batch, options, Cpu::try_linear);
                assert_eq!((without.0, without.2, without.3), (ours.0, ours.2, ours.3));
            }
        }
    }

    #[test]
    fn as_composed_of_dfdx_operations() {
        equals_composed::<1, 1>();
        equals_composed::<5, 3>();
        equals_composed::<17, 1>();
        equals_composed::<64, 33>();
        equals_composed::<128, 100>();
    }

    // Fails if the work were split by threads along a sum.
    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let options = LinearOptions { relu: true, ..Default::default() };
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run::<300, 200>(130, options, Cpu::try_linear))
        };
        let one = with(1);
        assert_eq!(one, with(2));
        assert_eq!(one, with(5));
    }

    // If NaN became 0, a broken batch would have a loss like any other.
    #[test]
    fn nan_passes_the_rectifier() {
        let dev = Cpu::seed_from_u64(7);
        let weight: Tensor<Rank2<3, 2>, f64, _> = dev.sample_normal();
        let bias: Tensor<Rank1<3>, f64, _> = dev.sample_normal();
        let x: Tensor<Rank2<1, 2>, f64, _> = dev.tensor([[f64::NAN, 1.0]]);
        let options = LinearOptions { relu: true, ..Default::default() };
        let y = Cpu::try_linear(x, &weight, &bias, options).unwrap();
        assert!(y.as_vec().iter().all(|y| y.is_nan()));
    }

    // Gradients are added to those that are there. Fails if a gradient is overwritten.
    #[test]
    fn gradients_accumulate() {
        let dev = Cpu::seed_from_u64(7);
        let weight: Tensor<Rank2<3, 3>, f64, _> = dev.sample_normal();
        let bias: Tensor<Rank1<3>, f64, _> = dev.sample_normal();
        let x: Tensor<(usize, Const<3>), f64, _> =
            dev.sample_like(&(4, Const), rand_distr::StandardNormal);
        let twice = |layer: fn(_, &_, &_, _) -> Result<_, CpuError>| {
            let options = LinearOptions::default();
            let y: Rows<usize, 3, f64, Cpu, _> =
                layer(x.leaky_trace(), &weight, &bias, options).unwrap();
            let y = layer(y, &weight, &bias, options).unwrap();
            let gradients = y.square().sum().backward();
            (gradients.get(&weight).as_vec(), gradients.get(&bias).as_vec())
        };
        let (ours, theirs) = (twice(Cpu::try_linear), twice(composed));
        close(&ours.0, &theirs.0);
        close(&ours.1, &theirs.1);
    }

    // A weight that was permuted is not contiguous, nor is a broadcast bias.
    #[test]
    fn tensors_that_are_not_contiguous() {
        let dev = Cpu::seed_from_u64(7);
        let x: Tensor<Rank2<2, 3>, f64, _> = dev.sample_normal();
        let flipped: Tensor<Rank2<3, 4>, f64, _> = dev.sample_normal();
        let weight: Tensor<Rank2<4, 3>, f64, _> = flipped.permute();
        let bias: Tensor<Rank1<4>, f64, _> = dev.tensor(0.5).broadcast();
        let options = LinearOptions::default();
        let ours = Cpu::try_linear(x.clone(), &weight, &bias, options).unwrap();
        close(&ours.as_vec(), &composed(x, &weight, &bias, options).unwrap().as_vec());
    }
}
