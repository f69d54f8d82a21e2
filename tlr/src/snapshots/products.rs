//! The dot products of a window, computed in one pass over the weights and both snapshots.

use super::sums::{filled, of_chunks, Chunk, Lanes, LANES};
use crate::{
    engine::WindowProducts,
    tensors::{wide, Bf16, ReadBuffer, Values, CHUNK},
};
use dfdx::shapes::Dtype;
use std::ops::Range;

/// What is kept of one element of A: the element itself, or a − b in bfloat16.
pub(crate) trait Kept<E>: Copy + Default + Send + Sync {
    /// a − b.
    fn moved(self, last: f64) -> f64;

    /// The value to keep for the next window, in which b − w (given as `moved`) takes the place of
    /// a − b.
    fn next(moved: f64, now: E) -> Self;
}

/// A itself is kept. W overwrites it, and the caller swaps A and B afterwards.
impl<E: Dtype> Kept<E> for E {
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
    #[inline(always)]
    fn moved(self, _last: f64) -> f64 {
        self.to_f64()
    }

    #[inline(always)]
    fn next(moved: f64, _now: E) -> Self {
        Self::nearest(moved)
    }
}

/// Computes the dot products of A, B and W. Writes to the memory of A what the next window needs
/// there, and W to that of B if `B_TOO`. A and B have the same length, and begin with element
/// `first` of W.
pub(crate) fn shift<E: Dtype, K: Kept<E>, const B_TOO: bool>(
    kept: &mut [K],
    last: &mut [E],
    now: &Values<E>,
    first: usize,
) -> WindowProducts {
    let len = last.len();
    let chunks = kept.chunks_mut(CHUNK).zip(last.chunks_mut(CHUNK));
    let chunks = chunks.enumerate().map(|(index, (kept, last))| ChunkShift::<_, _, B_TOO> {
        first: first + index * CHUNK,
        kept,
        last,
        now,
        room: ReadBuffer::new(),
    });
    let [across, own] = of_chunks(len, chunks);
    WindowProducts { across, own }
}

/// The work on one chunk.
struct ChunkShift<'a, E: Dtype, K, const B_TOO: bool> {
    /// The index in `now` of the chunk's first element.
    first: usize,
    kept: &'a mut [K],
    last: &'a mut [E],
    now: &'a Values<E>,
    room: ReadBuffer<E>,
}

impl<E: Dtype, K: Kept<E>, const B_TOO: bool> Chunk<2> for ChunkShift<'_, E, K, B_TOO> {
    fn len(&self) -> usize {
        self.last.len()
    }

    #[inline(always)]
    fn add(&mut self, range: Range<usize>, sums: &mut Lanes<2>) {
        let now = self.now.read(self.first + range.start, range.len(), &mut self.room);
        let kept = self.kept.get_mut(range.clone()).unwrap_or_default();
        let last = self.last.get_mut(range).unwrap_or_default();
        let (now, now_rest) = now.as_chunks::<LANES>();
        let (kept, kept_rest) = kept.as_chunks_mut::<LANES>();
        let (last, last_rest) = last.as_chunks_mut::<LANES>();
        for ((kept, last), now) in kept.iter_mut().zip(last).zip(now) {
            shift_lanes::<_, _, B_TOO>(kept, last, now, sums);
        }
        if now_rest.is_empty() {
            return;
        }
        // The missing lanes are padded with zeros in all three, so they add 0 to the sums.
        let (mut kept, mut last) = (filled(kept_rest), filled(last_rest));
        shift_lanes::<_, _, B_TOO>(&mut kept, &mut last, &filled(now_rest), sums);
        kept_rest.iter_mut().zip(kept).for_each(|(to, from)| *to = from);
        last_rest.iter_mut().zip(last).for_each(|(to, from)| *to = from);
    }
}

#[inline(always)]
fn shift_lanes<E: Dtype, K: Kept<E>, const B_TOO: bool>(
    kept: &mut [K; LANES],
    last: &mut [E; LANES],
    now: &[E; LANES],
    [across, own]: &mut Lanes<2>,
) {
    for lane in 0..LANES {
        let b = wide(last[lane]);
        let moved = b - wide(now[lane]);
        across[lane] += kept[lane].moved(b) * moved;
        own[lane] += moved * moved;
        kept[lane] = K::next(moved, now[lane]);
        if B_TOO {
            last[lane] = now[lane];
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::sums::tests::{exact, is_the_same_with_any_threads, values, LENGTHS},
        *,
    };
    use dfdx::prelude::{Cpu, TensorFromVec};

    fn lent(values: &[f32]) -> Values<f32> {
        Values::Lent(Cpu::default().tensor_from_vec(values.to_vec(), (values.len(),)))
    }

    /// Checks that `shift` gives the same products for copied and for lent weights, and that A's
    /// memory holds W afterwards.
    fn dots(before: &[f32], last: &[f32], now: &[f32]) -> WindowProducts {
        let shifted = |values: Values<f32>| {
            let (mut before, mut still) = (before.to_vec(), last.to_vec());
            let dots = shift::<_, _, false>(&mut before, &mut still, &values, 0);
            assert_eq!(before, now);
            assert_eq!(still, last);
            dots
        };
        let dots = shifted(lent(now));
        assert_eq!(dots, shifted(Values::Copied(now.to_vec())));
        dots
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
            let (mut last, mut still, mut again) = (last.clone(), last, kept.clone());
            let dots = shift::<_, _, true>(&mut kept, &mut last, &lent(&now), 0);
            // The products are the same without writing to B.
            let before = still.clone();
            assert_eq!(shift::<_, _, false>(&mut again, &mut still, &lent(&now), 0), dots);
            assert!(still == before && again == kept);
            assert!((dots.own - own).abs() <= 1e-12 * own, "{len}");
            assert!((dots.across - across).abs() <= 1e-12 * own, "{len}");
            assert_eq!(last, now);
            let nearest: Vec<_> = moved.into_iter().map(Bf16::nearest).collect();
            assert_eq!(kept, nearest);
        }
    }

    #[test]
    fn dots_are_exact_to_1e_12_at_any_length() {
        for len in LENGTHS {
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
        assert!(is_the_same_with_any_threads(|| {
            let dots = dots(&before, &last, &now);
            [dots.own.to_bits(), dots.across.to_bits()]
        }));
    }
}
