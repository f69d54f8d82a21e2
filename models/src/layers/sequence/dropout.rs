//! Dropout, and with it the end of a residual branch.

#[cfg(feature = "cuda")]
mod on_cuda;

#[cfg(feature = "cuda")]
pub(super) use on_cuda::on_cuda;

use super::Rows;
use crate::layers::{
    buffer, element::Element, scratch::Scratch, shares::Shares, simd::vectorized, LayerError,
    Misfit,
};
use dfdx::prelude::{
    Const, Cpu, CpuError, Device, Dtype, Gradients, HasErr, HasShape, NoneTape, PutTape, RandomU64,
    SplitTape, Storage, Tape, TryAdd,
};
use rayon::prelude::*;
use std::cell::Cell;

/// The probability with which an element is dropped: at least 0 and below 1. By default 0.1, as in
/// `torch.nn.Transformer`.
///
/// # Example
/// ```
/// use tlr_models::layers::DropoutRate;
///
/// assert_eq!(DropoutRate::new(0.3)?.get(), 0.3);
/// assert!(DropoutRate::new(1.0).is_err());
/// # Ok::<(), tlr_models::layers::InvalidDropout>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutRate(f64);

/// A dropout rate that is not in `[0, 1)`.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a dropout rate is at least 0 and below 1, not {0}")]
pub struct InvalidDropout(pub f64);

impl DropoutRate {
    /// Nothing is dropped.
    pub const NONE: Self = Self(0.0);

    /// Makes a rate: the probability that an element is dropped.
    ///
    /// # Errors
    /// [`InvalidDropout`] for a number that is not at least 0 and below 1.
    ///
    /// Example: [`DropoutRate`].
    pub fn new(rate: f64) -> Result<Self, InvalidDropout> {
        if (0.0..1.0).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(InvalidDropout(rate))
        }
    }

    /// The probability.
    ///
    /// Example: [`DropoutRate`].
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for DropoutRate {
    fn default() -> Self {
        Self(0.1)
    }
}

thread_local! {
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

/// How many numbers this thread has drawn for dropout, ever. A device's generator can be neither
/// read nor set. But another one of the same seed is in the same state after as many draws.
pub(crate) fn drawn() -> u64 {
    DRAWN.get()
}

fn draw(device: &impl RandomU64) -> u64 {
    DRAWN.set(DRAWN.get().wrapping_add(1));
    device.random_u64()
}

/// Which elements are dropped. This is a function of a seed and the element's index, so the
/// backward pass and any thread find the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropped {
    seed: u64,
    /// Elements whose hash is below it are dropped.
    below: u64,
    scale: f64,
}

impl Dropped {
    /// Draws a seed for the next dropout. At a rate of 0 there is `None`, and nothing is drawn.
    pub(super) fn new(rate: DropoutRate, device: &impl RandomU64) -> Option<Self> {
        (rate.0 > 0.0).then(|| Self {
            seed: draw(device),
            below: (rate.0 * 2f64.powi(64)) as u64,
            scale: 1.0 / (1.0 - rate.0),
        })
    }

    /// What the element is multiplied by. The hash is SplitMix64's (Steele, Lea and Flood 2014).
    #[inline(always)]
    pub(super) fn factor<E: Element>(&self, index: usize) -> E {
        let mut hash = self
            .seed
            .wrapping_add((index as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        if hash < self.below {
            E::ZERO
        } else {
            E::of(self.scale)
        }
    }
}

/// Checks that the two can be added.
pub(super) fn same_rows<E, D, T, const M: usize>(
    x: &Rows<usize, M, E, D, T>,
    onto: &Rows<usize, M, E, D, NoneTape>,
) -> Result<(), LayerError<<D as HasErr>::Err>>
where
    E: Dtype,
    D: Storage<E>,
{
    let (x, onto) = (x.shape().0, onto.shape().0);
    if x == onto {
        Ok(())
    } else {
        Err(LayerError::Shape {
            layer: format!("residual sum of rows of {M}"),
            misfit: Misfit::Rows { rows: x, onto },
        })
    }
}

/// Dropout by dfdx's own operation, on any device.
pub(super) fn composed<E: Dtype, D: Device<E>, T: Tape<E, D>, const M: usize>(
    x: Rows<usize, M, E, D, T>,
    rate: DropoutRate,
) -> Result<Rows<usize, M, E, D, T>, D::Err> {
    if rate.0 > 0.0 {
        x.try_dropout(rate.0)
    } else {
        Ok(x)
    }
}

/// As [`composed`], added to `onto`.
pub(super) fn composed_add<E: Dtype, D: Device<E>, T: Tape<E, D>, const M: usize>(
    x: Rows<usize, M, E, D, T>,
    onto: &Rows<usize, M, E, D, NoneTape>,
    rate: DropoutRate,
) -> Result<Rows<usize, M, E, D, T>, D::Err> {
    composed(x, rate)?.try_add(onto.retaped::<T>())
}

fn add<E: Element>(to: &mut [E], values: &[E]) {
    vectorized(|| to.iter_mut().zip(values).for_each(|(to, value)| *to += *value));
}

/// How many elements make a piece of work.
const PIECE: usize = 1 << 14;

/// Dropout on the CPU, in one pass each way, added to `onto` if there is one. All tensors are
/// contiguous, and `onto` has as many rows as `x`.
pub(super) fn on_cpu<E: Element + Dtype, T: Tape<E, Cpu>, const M: usize>(
    x: Rows<usize, M, E, Cpu, T>,
    onto: Option<Rows<usize, M, E, Cpu, NoneTape>>,
    rate: DropoutRate,
) -> Result<Rows<usize, M, E, Cpu, T>, CpuError> {
    let dropped = Dropped::new(rate, x.device());
    if dropped.is_none() && onto.is_none() {
        return Ok(x);
    }
    let (x, mut tape) = x.split_tape();
    let rows = x.shape().0;
    let device = x.device().clone();
    let mut values = buffer::read(&x)?;
    if let Some(dropped) = dropped {
        values.shared_chunks_mut(PIECE).enumerate().for_each(|(piece, values)| {
            vectorized(|| {
                for (index, value) in values.iter_mut().enumerate() {
                    *value *= dropped.factor(piece * PIECE + index);
                }
            });
        });
    }
    if let Some(onto) = &onto {
        let onto = Scratch::of(onto);
        values.shared_chunks_mut(PIECE).zip(onto.par_chunks(PIECE)).for_each(|(values, onto)| {
            add(values, onto);
        });
    }
    let y = buffer::tensor(&device, values, (rows, Const::<M>))?;

    let ghosts = (x.ghost(), onto.map(|onto| onto.ghost()), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, onto, y) = ghosts;
        let y_gradient = buffer::take(gradients.get_or_alloc_mut(&y)?);
        // The two gradients are updated one after the other, because they may be the same tensor's.
        let x_gradient = gradients.get_or_alloc_mut(&x)?;
        x_gradient.shared_chunks_mut(PIECE).zip(y_gradient.par_chunks(PIECE)).enumerate().for_each(
            |(piece, (dx, dy))| match dropped {
                Some(dropped) => vectorized(|| {
                    for (index, (dx, dy)) in dx.iter_mut().zip(dy).enumerate() {
                        *dx += *dy * dropped.factor(piece * PIECE + index);
                    }
                }),
                None => add(dx, dy),
            },
        );
        if let Some(onto) = onto {
            let onto_gradient = gradients.get_or_alloc_mut(&onto)?;
            onto_gradient
                .shared_chunks_mut(PIECE)
                .zip(y_gradient.par_chunks(PIECE))
                .for_each(|(onto, dy)| add(onto, dy));
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
    use crate::layers::check::*;
    use crate::layers::SequenceKernels;
    use dfdx::prelude::*;

    type Matrix = Tensor<(usize, Const<50>), f64, Cpu>;

    fn rate(rate: f64) -> DropoutRate {
        DropoutRate::new(rate).unwrap()
    }

    // Of 50 000 draws the dropped share is within 5 standard deviations (0.2 %) of the rate. So are
    // the shares after a dropped and after a kept element: that catches a hash that is alike for
    // neighbours.
    #[test]
    fn drops_as_often_as_asked() {
        for p in [0.1, 0.5, 0.9] {
            let dev = Cpu::seed_from_u64(1);
            let x: Matrix = dev.ones_like(&(1000, Const));
            let y = Cpu::try_drop(x, rate(p)).unwrap().as_vec();
            assert!(y.iter().all(|y| *y == 0.0 || *y == 1.0 / (1.0 - p)));
            let share = |of: &[bool]| of.iter().filter(|d| **d).count() as f64 / of.len() as f64;
            let dropped: Vec<bool> = y.iter().map(|y| *y == 0.0).collect();
            let after = |outcome| -> Vec<bool> {
                dropped.windows(2).filter(|w| w[0] == outcome).map(|w| w[1]).collect()
            };
            for dropped in [dropped.clone(), after(true), after(false)] {
                let deviation = (p * (1.0 - p) / dropped.len() as f64).sqrt();
                assert!((share(&dropped) - p).abs() < 5.0 * deviation);
            }
        }
    }

    // The seed comes from the device, and is a different one at each call.
    #[test]
    fn drawn_from_the_device() {
        let draw = |seed| {
            let dev = Cpu::seed_from_u64(seed);
            let x: Matrix = dev.ones_like(&(10, Const));
            let first = Cpu::try_drop(x.clone(), rate(0.5)).unwrap().as_vec();
            (first, Cpu::try_drop(x, rate(0.5)).unwrap().as_vec())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1).0, draw(1).1);
    }

    #[test]
    fn nothing_is_drawn_at_rate_0() {
        let dev = Cpu::seed_from_u64(5);
        let x: Matrix = dev.ones_like(&(10, Const));
        let y = Cpu::try_drop(x.clone(), DropoutRate::NONE).unwrap();
        assert_eq!(y.as_vec(), x.as_vec());
        assert_eq!(dev.random_u64(), Cpu::seed_from_u64(5).random_u64());
    }

    // Without dropout, because each evaluation would draw anew.
    #[test]
    fn gradients_are_those_of_finite_differences() {
        let dev = Cpu::seed_from_u64(5);
        let x: Matrix = dev.sample_like(&(2, Const), rand_distr::StandardNormal);
        let onto: Matrix = dev.sample_like(&(2, Const), rand_distr::StandardNormal);
        let sum = |x, onto: &_| Cpu::try_drop_and_add(x, onto, DropoutRate::NONE).unwrap();
        differences(&x, |x| curved(sum(x, &onto)));
        differences(&onto, |onto| curved(sum(x.retaped(), &onto.retaped())));
    }

    // At any dropout rate the gradient of Σ c·y is c·y/x, and that of `onto` is c.
    #[test]
    fn what_was_dropped_gets_no_gradient() {
        let dev = Cpu::seed_from_u64(5);
        let x: Matrix = dev.ones_like(&(700, Const));
        let onto: Matrix = dev.zeros_like(&(700, Const));
        let c: Matrix = dev.sample_like(&(700, Const), rand_distr::StandardNormal);
        let y = Cpu::try_drop_and_add(x.leaky_trace(), &onto, rate(0.4)).unwrap();
        let kept = y.as_vec();
        let g = (y * c.clone()).sum().backward();
        let expected: Vec<f64> = kept.iter().zip(c.as_vec()).map(|(y, c)| y * c).collect();
        assert_eq!(g.get(&x).as_vec(), expected);
        assert_eq!(g.get(&onto).as_vec(), c.as_vec());
    }

    // x + x. Fails if one gradient replaces the other.
    #[test]
    fn both_operands_can_be_one_tensor() {
        let dev = Cpu::default();
        let x: Matrix = dev.ones_like(&(1, Const));
        let y = Cpu::try_drop_and_add(x.leaky_trace(), &x, DropoutRate::NONE).unwrap();
        let g = y.sum().backward();
        assert_eq!(g.get(&x).as_vec(), [2.0; 50]);
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        same_for_any_threads(|| {
            let dev = Cpu::seed_from_u64(5);
            let x: Matrix = dev.sample_like(&(2000, Const), rand_distr::StandardNormal);
            let y = Cpu::try_drop_and_add(x.leaky_trace(), &x, rate(0.3)).unwrap();
            let values = y.as_vec();
            (values, curved(y).backward().get(&x).as_vec())
        });
    }

    #[test]
    fn other_rows_are_an_error() {
        let dev = Cpu::default();
        let x: Matrix = dev.ones_like(&(2, Const));
        let onto: Matrix = dev.ones_like(&(3, Const));
        let error = Cpu::try_drop_and_add(x, &onto, DropoutRate::NONE).err().unwrap();
        let misfit = Misfit::Rows { rows: 2, onto: 3 };
        assert!(matches!(&error, LayerError::Shape { misfit: found, .. } if *found == misfit));
    }

    #[test]
    fn rates_out_of_range_are_errors() {
        for wrong in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            assert!(DropoutRate::new(wrong).is_err());
        }
    }
}
