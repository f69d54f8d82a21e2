//! Element by element: the rectifier, and the sum that closes a residual block.

mod layers;
#[cfg(feature = "cuda")]
mod on_cuda;

pub use layers::{Identity, Relu};
#[cfg(feature = "cuda")]
pub(super) use on_cuda::{relu_on_cuda, sum_on_cuda};

use super::{buffer, element::Element, scratch::Scratch, shares::Shares, simd::vectorized};
use dfdx::prelude::{
    Cpu, CpuError, Device, Dtype, Gradients, HasShape, PutTape, Shape, SplitTape, Tape, Tensor,
    TryAdd,
};
use rayon::prelude::*;

/// How many elements a thread takes at a time: enough that sharing is worth its cost.
pub(super) const SHARE: usize = 1 << 15;

/// The sum of two tensors by dfdx's own operations, on any device.
pub(super) fn composed_sum<S: Shape, E: Dtype, D: Device<E>, T: Tape<E, D>>(
    x: Tensor<S, E, D, T>,
    y: Tensor<S, E, D, T>,
    relu: bool,
) -> Result<Tensor<S, E, D, T>, D::Err> {
    let sum = x.try_add(y)?;
    if relu {
        sum.try_relu()
    } else {
        Ok(sum)
    }
}

/// The value, rectified if `relu` says so. NaN stays NaN.
fn rectified<E: Element>(value: E, relu: bool) -> E {
    if relu && value < E::ZERO {
        E::ZERO
    } else {
        value
    }
}

/// The sum of two tensors on the CPU, in one pass. Both are contiguous.
pub(super) fn sum_on_cpu<S: Shape, E: Dtype + Element, T: Tape<E, Cpu>>(
    x: Tensor<S, E, Cpu, T>,
    y: Tensor<S, E, Cpu, T>,
    relu: bool,
) -> Result<Tensor<S, E, Cpu, T>, CpuError> {
    let (x, x_tape) = x.split_tape();
    let (y, y_tape) = y.split_tape();
    let mut tape = x_tape.merge(y_tape);
    let mut sums = buffer::read(&x)?;
    let addends = Scratch::of(&y);
    sums.shared_chunks_mut(SHARE).zip(addends.par_chunks(SHARE)).for_each(|(sums, addends)| {
        vectorized(|| {
            for (sum, addend) in sums.iter_mut().zip(addends) {
                *sum = rectified(*sum + *addend, relu);
            }
        });
    });
    let passed = match relu && T::OWNS_TAPE {
        true => Some(passed(&sums)),
        false => None,
    };
    let sum = buffer::tensor(x.device(), sums, *x.shape())?;
    let ghosts = (x.ghost(), y.ghost(), sum.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, y, sum) = ghosts;
        let upstream = buffer::take(gradients.get_or_alloc_mut(&sum)?);
        for ghost in [x, y] {
            add_passed(gradients.get_or_alloc_mut(&ghost)?, &upstream, passed.as_deref());
        }
        **gradients.get_or_alloc_mut(&sum)? = upstream;
        Ok(())
    });
    Ok(sum.put_tape(tape))
}

/// The rectifier on the CPU, in one pass. `x` is contiguous.
pub(super) fn relu_on_cpu<S: Shape, E: Dtype + Element, T: Tape<E, Cpu>>(
    x: Tensor<S, E, Cpu, T>,
) -> Result<Tensor<S, E, Cpu, T>, CpuError> {
    let (x, mut tape) = x.split_tape();
    let mut values = buffer::read(&x)?;
    let passed = rectify(&mut values, T::OWNS_TAPE);
    let y = buffer::tensor(x.device(), values, *x.shape())?;
    let ghosts = (x.ghost(), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, y) = ghosts;
        let upstream = buffer::take(gradients.get_or_alloc_mut(&y)?);
        add_passed(gradients.get_or_alloc_mut(&x)?, &upstream, passed.as_deref());
        **gradients.get_or_alloc_mut(&y)? = upstream;
        Ok(())
    });
    Ok(y.put_tape(tape))
}

/// Rectifies `values`. If `noted`, returns which values were let through: 1 for those above 0.
fn rectify<E: Element>(values: &mut [E], noted: bool) -> Option<Scratch<u8>> {
    if !noted {
        values.shared_chunks_mut(SHARE).for_each(|values| {
            vectorized(|| values.iter_mut().for_each(|value| *value = rectified(*value, true)));
        });
        return None;
    }
    let mut passed = Scratch::any(values.len());
    values.shared_chunks_mut(SHARE).zip(passed.par_chunks_mut(SHARE)).for_each(
        |(values, passed)| {
            vectorized(|| {
                for (value, passed) in values.iter_mut().zip(passed) {
                    *passed = u8::from(*value > E::ZERO);
                    *value = rectified(*value, true);
                }
            });
        },
    );
    Some(passed)
}

/// Which values a rectifier lets through: 1 for those above 0.
fn passed<E: Element>(values: &[E]) -> Scratch<u8> {
    let mut passed = Scratch::any(values.len());
    passed.shared_chunks_mut(SHARE).zip(values.par_chunks(SHARE)).for_each(|(passed, values)| {
        vectorized(|| {
            for (passed, value) in passed.iter_mut().zip(values) {
                *passed = u8::from(*value > E::ZERO);
            }
        });
    });
    passed
}

/// `gradient` ← `gradient` + `upstream` where `passed` is 1, or everywhere if `passed` is `None`.
fn add_passed<E: Element>(gradient: &mut [E], upstream: &[E], passed: Option<&[u8]>) {
    let shares = gradient.shared_chunks_mut(SHARE).zip(upstream.par_chunks(SHARE));
    match passed {
        None => shares.for_each(|(gradient, upstream)| {
            vectorized(|| gradient.iter_mut().zip(upstream).for_each(|(to, from)| *to += *from));
        }),
        Some(passed) => {
            shares.zip(passed.par_chunks(SHARE)).for_each(|((gradient, upstream), passed)| {
                vectorized(|| {
                    for ((to, from), passed) in gradient.iter_mut().zip(upstream).zip(passed) {
                        *to += if *passed == 0 { E::ZERO } else { *from };
                    }
                });
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::{check, Kernels};
    use dfdx::prelude::*;

    fn pair(len: usize) -> [Tensor<(usize,), f64, Cpu>; 2] {
        let dev = Cpu::seed_from_u64(8);
        [0, 1].map(|_| dev.sample_like(&(len,), rand_distr::StandardNormal))
    }

    // dfdx's own operations are the oracle, on tensors longer than one thread's share. Fails for a
    // wrong mask or a lost operand.
    #[test]
    fn as_composed_of_dfdx_operations() {
        let [x, y] = pair(2 * SHARE + 5);
        for relu in [false, true] {
            let ours = Cpu::try_sum(x.leaky_trace(), y.leaky_trace(), relu).unwrap();
            let theirs = composed_sum(x.leaky_trace(), y.leaky_trace(), relu).unwrap();
            assert_eq!(ours.as_vec(), theirs.as_vec());
            let (ours, theirs) = (check::curved(ours).backward(), check::curved(theirs).backward());
            assert_eq!(ours.get(&x).as_vec(), theirs.get(&x).as_vec());
            assert_eq!(ours.get(&y).as_vec(), theirs.get(&y).as_vec());
        }
        let (ours, theirs) = (Relu.forward(x.leaky_trace()), x.leaky_trace().relu());
        assert_eq!(ours.as_vec(), theirs.as_vec());
        let (ours, theirs) = (check::curved(ours).backward(), check::curved(theirs).backward());
        assert_eq!(ours.get(&x).as_vec(), theirs.get(&x).as_vec());
    }

    // A block's shortcut: both operands come from the same tensor. Fails if a gradient is
    // overwritten.
    #[test]
    fn both_operands_from_one_tensor() {
        let [x, _] = pair(10);
        let sum = |x: &Tensor<(usize,), f64, Cpu>| {
            let x = x.leaky_trace();
            let double = x.retaped::<OwnedTape<f64, Cpu>>() * 2.0;
            check::curved(Cpu::try_sum(x, Relu.forward(double), false).unwrap())
        };
        let gradient = sum(&x).backward().get(&x);
        check::derivative(&x, &gradient, |x| sum(x).array());
    }

    #[test]
    fn at_zero_and_nan() {
        let dev = Cpu::default();
        let x = dev.tensor([-0.0, 0.0, f64::NAN, f64::INFINITY, -1.0]);
        let y = Relu.forward(x.leaky_trace());
        let values = y.as_vec();
        assert!(values[2].is_nan());
        assert_eq!([values[0], values[1], values[3], values[4]], [0.0, 0.0, f64::INFINITY, 0.0]);
        let gradient = y.sum::<Rank0, _>().backward().get(&x).as_vec();
        assert_eq!([gradient[0], gradient[1], gradient[3], gradient[4]], [0.0, 0.0, 1.0, 0.0]);
    }
}
