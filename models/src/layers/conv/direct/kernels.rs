//! Sums over taps and over pixels, in registers.

use super::layout::Span;
use pulp::{Simd, WithSimd};

/// How many outputs are computed at a time.
pub(super) const BLOCK: usize = 8;
/// The outputs whose filters' gradients are summed at a time, for [`TAPS`] taps each: 20 sums, a
/// pixel of each output and an input of each tap, which the compiler reads together, take 29
/// registers.
pub(super) const FILTERS: usize = 4;
const TAPS: usize = 5;
/// The registers of each output that are worked on at a time, for all channels and taps. They stay
/// in the nearest cache.
const AT_ONCE: usize = 128;

/// How many floats a register holds.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// Computes a block of outputs: Σ over channels and taps of filter times input, for each place in
/// the spans, and sometimes for places behind them.
pub(super) struct Convolve<'a> {
    pub(super) x: &'a [f32],
    /// The distance from a channel of `x` to the next.
    pub(super) channel: usize,
    /// `[channel][tap][output in the block]`.
    pub(super) filters: &'a [f32],
    pub(super) offsets: &'a [usize],
    pub(super) spans: &'a [Span],
    pub(super) y: &'a mut [f32],
    /// The distance from an output of `y` to the next, and the first place of the first output.
    pub(super) output: usize,
    pub(super) first: usize,
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let lanes = S::F32_LANES;
        for span in self.spans {
            let mut at = span.start;
            let mut left = span.len().div_ceil(lanes);
            // 8 × 3 sums, 3 inputs and a weight are 28 registers.
            while S::REGISTER_COUNT >= 32 && (left == 3 || left > 4) {
                self.sums::<S, 3>(simd, at);
                (at, left) = (at + 3 * lanes, left - 3);
            }
            while left >= 2 {
                self.sums::<S, 2>(simd, at);
                (at, left) = (at + 2 * lanes, left - 2);
            }
            if left == 1 {
                self.sums::<S, 1>(simd, at);
            }
        }
    }
}

impl Convolve<'_> {
    /// The places from `at` on, N registers of them, of each output.
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(&mut self, simd: S, at: usize) {
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); N]; BLOCK];
        let channels = self.filters.chunks_exact(self.offsets.len() * BLOCK);
        for (channel, filters) in channels.enumerate() {
            let first = channel * self.channel + at;
            for (offset, weights) in self.offsets.iter().zip(filters.chunks_exact(BLOCK)) {
                let Some(x) = self.x.get(first + offset..first + offset + N * lanes) else {
                    return;
                };
                let x = registers::<S, N>(x);
                for (sums, weight) in sums.iter_mut().zip(weights) {
                    let weight = simd.splat_f32s(*weight);
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum = simd.mul_add_e_f32s(weight, x, *sum);
                    }
                }
            }
        }
        for (plane, sums) in self.y.chunks_exact_mut(self.output).zip(sums) {
            let (to, _) = S::as_mut_simd_f32s(&mut plane[self.first + at..]);
            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum);
        }
    }
}

/// The first N registers of a slice that has as many.
#[inline(always)]
fn registers<S: Simd, const N: usize>(values: &[f32]) -> [S::f32s; N] {
    let (values, _) = S::as_simd_f32s(values);
    std::array::from_fn(|index| values[index])
}

/// Adds to the gradients of some filters: for each channel and each tap, the sum over all places in
/// the spans of the outputs' gradient times the input.
pub(super) struct Correlate<'a> {
    pub(super) x: &'a [f32],
    /// The outputs' gradient, from the first of these outputs on.
    pub(super) upstream: &'a [f32],
    /// The distance from a channel of `x` to the next.
    pub(super) channel: usize,
    /// The distance from an output of `upstream` to the next.
    pub(super) output: usize,
    pub(super) channels: usize,
    pub(super) offsets: &'a [usize],
    pub(super) spans: &'a [Span],
    /// `[output][channel][tap]`, added to.
    pub(super) gradient: &'a mut [f32],
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // The spans in registers. Each span starts with a whole register and ends with one, but for
        // the last, which has zeros behind it.
        let registers = |span: &Span| span.start / S::F32_LANES..span.end.div_ceil(S::F32_LANES);
        let places: Vec<_> = self.spans.iter().flat_map(registers).collect();
        let outputs = self.gradient.len() / (self.channels * self.offsets.len());
        for places in places.chunks(AT_ONCE) {
            let end = places.iter().max().map_or(0, |last| last + 1);
            let places = Places { places, end };
            let mut output = 0;
            while output < outputs {
                let together = match S::REGISTER_COUNT >= 32 && outputs - output >= FILTERS {
                    true => FILTERS,
                    false => 1,
                };
                for channel in 0..self.channels {
                    if together == FILTERS {
                        self.taps::<S, FILTERS>(simd, places, channel, output);
                    } else {
                        self.taps::<S, 1>(simd, places, channel, output);
                    }
                }
                output += together;
            }
        }
    }
}

/// The numbers of registers, all of them below `end`.
#[derive(Clone, Copy)]
struct Places<'a> {
    places: &'a [usize],
    end: usize,
}

impl Correlate<'_> {
    #[inline(always)]
    fn taps<S: Simd, const O: usize>(
        &mut self,
        simd: S,
        places: Places<'_>,
        channel: usize,
        output: usize,
    ) {
        let mut tap = 0;
        while tap < self.offsets.len() {
            let first = (channel, output, tap);
            // The taps are divided as evenly as possible: nine into five and four.
            let left = self.offsets.len() - tap;
            tap += match left.div_ceil(left.div_ceil(TAPS)) {
                TAPS.. => self.dots::<S, O, TAPS>(simd, places, first),
                4 => self.dots::<S, O, 4>(simd, places, first),
                3 => self.dots::<S, O, 3>(simd, places, first),
                2 => self.dots::<S, O, 2>(simd, places, first),
                _ => self.dots::<S, O, 1>(simd, places, first),
            };
        }
    }

    /// Adds the sums of O outputs and T taps, and returns T.
    #[inline(always)]
    fn dots<S: Simd, const O: usize, const T: usize>(
        &mut self,
        simd: S,
        places: Places<'_>,
        (channel, output, tap): (usize, usize, usize),
    ) -> usize {
        let Places { places, end } = places;
        let upstream: [&[S::f32s]; O] = std::array::from_fn(|index| {
            let first = (output + index) * self.output;
            S::as_simd_f32s(&self.upstream[first..first + end * S::F32_LANES]).0
        });
        let x: [&[S::f32s]; T] = std::array::from_fn(|index| {
            let first = channel * self.channel + self.offsets[tap + index];
            S::as_simd_f32s(&self.x[first..first + end * S::F32_LANES]).0
        });
        let mut sums = [[simd.splat_f32s(0.0); T]; O];
        for place in places {
            // SAFETY: each run has `end` registers, and no place is behind them. To check the
            // bounds of nine runs would take registers that their pointers need.
            #[allow(unsafe_code)]
            let at = |run: &[S::f32s]| unsafe { *run.get_unchecked(*place) };
            let upstream = upstream.map(at);
            for (tap, x) in x.iter().enumerate() {
                let x = at(x);
                for (sums, upstream) in sums.iter_mut().zip(upstream) {
                    sums[tap] = simd.mul_add_e_f32s(upstream, x, sums[tap]);
                }
            }
        }
        let taps = self.offsets.len();
        for (index, sums) in sums.into_iter().enumerate() {
            let first = ((output + index) * self.channels + channel) * taps + tap;
            for (to, sum) in self.gradient[first..].iter_mut().zip(sums) {
                *to += simd.reduce_sum_f32s(sum);
            }
        }
        T
    }
}
