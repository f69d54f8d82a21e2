//! A channel's statistics as the CPU applies them to its planes.

use crate::layers::{element::Element, shares::Shares as _, simd::vectorized};
use dfdx::prelude::Dtype;
use rayon::prelude::*;

/// A channel's mean, the factor 1/√(var + eps), and y = (x − mean)·slope + bias. The mean is
/// subtracted first: numbers far from 0 would otherwise lose their digits.
#[derive(Clone, Copy)]
pub(super) struct Channel<E> {
    pub(super) mean: E,
    pub(super) inverse: E,
    pub(super) slope: E,
    pub(super) bias: E,
}

impl<E: Dtype + Element> Channel<E> {
    pub(super) fn new(mean: f64, var: f64, eps: f64, weight: E, bias: E) -> Self {
        let inverse = 1.0 / (var + eps).sqrt();
        let slope = inverse * weight.to();
        Self { mean: E::of(mean), inverse: E::of(inverse), slope: E::of(slope), bias }
    }
}

/// How many small planes are taken together: to enter code for the widest registers takes as long
/// as the work on a plane.
pub(super) const TOGETHER: usize = 8;

/// y = (x − mean)·slope + bias on each plane, rectified or not.
pub(super) fn apply<E: Element, const RELU: bool>(
    channels: &[Channel<E>],
    pixels: usize,
    x: &[E],
    y: &mut [E],
) {
    let planes = y.shared_chunks_mut(TOGETHER * pixels).zip(x.par_chunks(TOGETHER * pixels));
    planes.enumerate().for_each(|(group, (y, x))| {
        vectorized(|| {
            let planes = y.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels));
            for (plane, (y, x)) in planes.enumerate() {
                let Channel { mean, slope, bias, .. } =
                    channels[(group * TOGETHER + plane) % channels.len()];
                for (y, x) in y.iter_mut().zip(x) {
                    let value = (*x - mean) * slope + bias;
                    *y = if RELU && value < E::ZERO { E::ZERO } else { value };
                }
            }
        });
    });
}

/// The gradient, or 0 if the rectifier did not let `x` pass.
#[inline(always)]
pub(super) fn passing<E: Element, const RELU: bool>(gradient: E, x: E, channel: Channel<E>) -> E {
    if RELU && (x - channel.mean) * channel.slope + channel.bias <= E::ZERO {
        E::ZERO
    } else {
        gradient
    }
}
