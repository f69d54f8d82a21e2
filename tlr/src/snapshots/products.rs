//! The dot products of a window, computed in one pass over the weights and both snapshots.

use crate::{
    engine::WindowProducts,
    tensors::{is_shared, wide, Bf16, Values, CHUNK, READ},
};
use dfdx::shapes::Dtype;
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

/// The number of elements in a block. The sums over a block are added to those of its chunk.
const BLOCK: usize = 1024;
/// The number of independent sums over a block. With n elements, a result is a sum of BLOCK/LANES,
/// then LANES, then CHUNK/BLOCK, then n/CHUNK terms. So its relative error is at most
/// (80 + n/CHUNK)·2⁻⁵³, which is 2e-13 for 25 million elements. The grouping is fixed, so the
/// result does not depend on the number of threads. With half as many lanes the compiler generates
/// narrow f64 vectors.
const LANES: usize = 32;

/// What is kept of one element of A: the element itself, or a − b in bfloat16.
pub(crate) trait Kept<E>: Copy + Default + Send + Sync {
    /// Whether W is written to the memory of B. Otherwise it is written to the memory of A.
    const REPLACES_LAST: bool;

    /// a − b.
    fn moved(self, last: f64) -> f64;

    /// The value to keep for the next window, in which b − w (given as `moved`) takes the place of
    /// a − b.
    fn next(moved: f64, now: E) -> Self;
}

/// A itself is kept. W overwrites it, and the caller swaps A and B afterwards.
impl<E: Dtype> Kept<E> for E {
    const REPLACES_LAST: bool = false;

    #[inline(always)]
    fn moved(self, last: f64) -> f64 {
        wide(self) - last
    }

    #[inline(always)]
    fn next(_moved: f64, now: E) -> Self {
        now
    }
}

impl<E: Dtype> Kept<E> for Bf16 {
    const REPLACES_LAST: bool = true;

    #[inline(always)]
    fn moved(self, _last: f64) -> f64 {
        self.to_f64()
    }

    #[inline(always)]
    fn next(moved: f64, _now: E) -> Self {
        Self::nearest(moved)
    }
}

/// Computes the dot products of A, B and W. Writes W to the memory of A, or of B if `K` is a
/// direction. All three have the same length.
pub(crate) fn shift<E: Dtype, K: Kept<E>>(
    kept: &mut [K],
    last: &mut [E],
    now: &Values<E>,
) -> WindowProducts {
    // `pulp` compiles the loop for several vector instruction sets and runs the widest one that the
    // CPU has. No version fuses a multiplication with an addition, so all give the same result.
    let widest = Arch::new();
    let dots = |(index, (kept, last)): (usize, (&mut [K], &mut [E]))| {
        widest.dispatch(Chunk { first: index * CHUNK, kept, last, now })
    };
    if is_shared(last.len()) {
        let chunks = kept.par_chunks_mut(CHUNK).zip(last.par_chunks_mut(CHUNK));
        let dots: Vec<_> = chunks.enumerate().map(dots).collect();
        return dots.into_iter().sum();
    }
    kept.chunks_mut(CHUNK).zip(last.chunks_mut(CHUNK)).enumerate().map(dots).sum()
}

/// Computes ‖x‖².
pub(crate) fn square<E: Dtype>(elements: &[E]) -> f64 {
    let widest = Arch::new();
    if is_shared(elements.len()) {
        let squares = elements.par_chunks(CHUNK).map(|chunk| widest.dispatch(Square(chunk)));
        return squares.collect::<Vec<_>>().into_iter().sum();
    }
    elements.chunks(CHUNK).map(|chunk| widest.dispatch(Square(chunk))).sum()
}

/// The work on one chunk. It is a type because the compiler does not inline a closure of this size.
struct Chunk<'a, E: Dtype, K> {
    /// The index in `now` of the chunk's first element.
    first: usize,
    kept: &'a mut [K],
    last: &'a mut [E],
    now: &'a Values<E>,
}

impl<E: Dtype, K: Kept<E>> NullaryFnOnce for Chunk<'_, E, K> {
    type Output = WindowProducts;

    #[inline(always)]
    fn call(self) -> WindowProducts {
        let mut total = WindowProducts::default();
        let mut room = [E::default(); READ];
        let mut first = self.first;
        for (kept, last) in self.kept.chunks_mut(BLOCK).zip(self.last.chunks_mut(BLOCK)) {
            let mut sums = Lanes { across: [0.0; LANES], own: [0.0; LANES] };
            for (kept, last) in kept.chunks_mut(READ).zip(last.chunks_mut(READ)) {
                let len = last.len();
                sums.shift(kept, last, self.now.read(first, len, &mut room));
                first += len;
            }
            total.across += sums.across.iter().sum::<f64>();
            total.own += sums.own.iter().sum::<f64>();
        }
        total
    }
}

struct Lanes {
    across: [f64; LANES],
    own: [f64; LANES],
}

impl Lanes {
    #[inline(always)]
    fn shift<E: Dtype, K: Kept<E>>(&mut self, kept: &mut [K], last: &mut [E], now: &[E]) {
        let (now, now_rest) = now.as_chunks::<LANES>();
        let (last, last_rest) = last.as_chunks_mut::<LANES>();
        let (kept, kept_rest) = kept.as_chunks_mut::<LANES>();
        for ((kept, last), now) in kept.iter_mut().zip(last).zip(now) {
            for lane in 0..LANES {
                self.add(lane, &mut kept[lane], &mut last[lane], now[lane]);
            }
        }
        if now_rest.is_empty() {
            return;
        }
        // The missing lanes are padded with zeros in all three, so they add 0 to the sums.
        let (mut kept, mut last, now) = (filled(kept_rest), filled(last_rest), filled(now_rest));
        for lane in 0..LANES {
            self.add(lane, &mut kept[lane], &mut last[lane], now[lane]);
        }
        kept_rest.iter_mut().zip(kept).for_each(|(to, from)| *to = from);
        last_rest.iter_mut().zip(last).for_each(|(to, from)| *to = from);
    }

    #[inline(always)]
    fn add<E: Dtype, K: Kept<E>>(&mut self, lane: usize, kept: &mut K, last: &mut E, now: E) {
        let b = wide(*last);
        let moved = b - wide(now);
        self.across[lane] += kept.moved(b) * moved;
        self.own[lane] += moved * moved;
        *kept = K::next(moved, now);
        if K::REPLACES_LAST {
            *last = now;
        }
    }
}

/// Pads `some` with zeros to the full number of lanes.
fn filled<T: Copy + Default>(some: &[T]) -> [T; LANES] {
    let mut all = [T::default(); LANES];
    all.iter_mut().zip(some).for_each(|(to, from)| *to = *from);
    all
}

struct Square<'a, E>(&'a [E]);

impl<E: Dtype> NullaryFnOnce for Square<'_, E> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut sums = [0.0; LANES];
        for elements in self.0.chunks(LANES) {
            for (sum, element) in sums.iter_mut().zip(elements) {
                *sum += wide(*element) * wide(*element);
            }
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use dfdx::prelude::{Cpu, TensorFromVec};

    fn lent(values: &[f32]) -> Values<f32> {
        Values::Lent(Cpu::default().tensor_from_vec(values.to_vec(), (values.len(),)))
    }

    /// Checks that `shift` gives the same products for copied and for lent weights, and that A's
    /// memory holds W afterwards.
    fn dots(before: &[f32], last: &[f32], now: &[f32]) -> WindowProducts {
        let shifted = |values: Values<f32>| {
            let (mut before, mut still) = (before.to_vec(), last.to_vec());
            let dots = shift(&mut before, &mut still, &values);
            assert_eq!(before, now);
            assert_eq!(still, last);
            dots
        };
        let dots = shifted(lent(now));
        assert_eq!(dots, shifted(Values::Copied(now.to_vec())));
        dots
    }

    #[test]
    fn squares_by_hand_and_over_chunks() {
        assert_eq!(square(&[3.0f32, 4.0]), 25.0);
        assert_eq!(square::<f64>(&[]), 0.0);
        let len = 2 * CHUNK + LANES + 3;
        assert_eq!(square(&vec![2.0f32; len]), 4.0 * len as f64);
    }

    /// Compares with exact products of the direction in bfloat16, at lengths around chunks and
    /// lanes.
    #[test]
    fn dots_of_a_direction() {
        for len in [1, 31, 33, CHUNK + 5] {
            let (direction, last, now) = (values(len, 1), values(len, 2), values(len, 3));
            let mut kept: Vec<_> = direction.iter().map(|x| Bf16::nearest(f64::from(*x))).collect();
            let moved: Vec<_> =
                last.iter().zip(&now).map(|(b, w)| f64::from(*b) - f64::from(*w)).collect();
            let own = exact(moved.iter().map(|s| s * s));
            let across = exact(kept.iter().zip(&moved).map(|(d, s)| d.to_f64() * s));
            let mut last = last;
            let dots = shift(&mut kept, &mut last, &lent(&now));
            assert!((dots.own - own).abs() <= 1e-12 * own, "{len}");
            assert!((dots.across - across).abs() <= 1e-12 * own, "{len}");
            assert_eq!(last, now);
            let nearest: Vec<_> = moved.into_iter().map(Bf16::nearest).collect();
            assert_eq!(kept, nearest);
        }
    }

    /// Deterministic values of both signs and of different sizes.
    fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    /// A sum with compensation of the rounding errors (Neumaier).
    fn exact(terms: impl Iterator<Item = f64>) -> f64 {
        let (mut sum, mut lost) = (0.0f64, 0.0);
        for term in terms {
            let next = sum + term;
            lost += if sum.abs() >= term.abs() { sum - next + term } else { term - next + sum };
            sum = next;
        }
        sum + lost
    }

    #[test]
    fn dots_are_exact_to_1e_12_at_any_length() {
        let around_a_chunk = [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + BLOCK + LANES + 1];
        for len in [1, 7, 8, 9, 1023, 1024, 1025, 1_000_003].into_iter().chain(around_a_chunk) {
            let (before, last, now) = (values(len, 1), values(len, 2), values(len, 3));
            let then = || before.iter().zip(&last).map(|(a, b)| f64::from(*a) - f64::from(*b));
            let here = || last.iter().zip(&now).map(|(b, w)| f64::from(*b) - f64::from(*w));
            let own = exact(here().map(|s| s * s));
            let across = exact(then().zip(here()).map(|(s, t)| s * t));

            let dots = dots(&before, &last, &now);
            assert!((dots.own - own).abs() <= 1e-12 * own, "{len}");
            // The tolerance is relative to the norms, because the product itself may cancel.
            assert!((dots.across - across).abs() <= 1e-12 * own, "{len}");
        }
    }

    /// Fails if the result depends on which thread adds which terms.
    #[test]
    fn dots_are_the_same_with_any_number_of_threads() {
        let len = 10 * CHUNK + 5;
        let (before, last, now) = (values(len, 1), values(len, 2), values(len, 3));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let dots = pool.install(|| dots(&before, &last, &now));
            (dots.own.to_bits(), dots.across.to_bits())
        };
        let alone = with(1);
        assert!([2, 3, 8].into_iter().all(|threads| with(threads) == alone));
        // Outside any pool. The length is then below the limit for sharing, so one thread does it
        // all.
        let dots = dots(&before, &last, &now);
        assert_eq!((dots.own.to_bits(), dots.across.to_bits()), alone);
    }
}
