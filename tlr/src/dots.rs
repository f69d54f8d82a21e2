//! The dot products of a window, in one pass over the weights and both snapshots.

use crate::tensors::Lent;
use dfdx::shapes::Dtype;
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;
use std::{iter::Sum, ops::AddAssign};

/// ⟨A−B, B−W⟩ and ⟨B−W, B−W⟩ over one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Dots {
    pub(crate) across: f64,
    pub(crate) own: f64,
}

impl AddAssign for Dots {
    fn add_assign(&mut self, other: Self) {
        self.across += other.across;
        self.own += other.own;
    }
}

impl Sum for Dots {
    fn sum<I: Iterator<Item = Self>>(dots: I) -> Self {
        let mut total = Self::default();
        dots.for_each(|dots| total += dots);
        total
    }
}

/// W, and how it is read.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a, E: Dtype> {
    Copied(&'a [E]),
    /// One by one, at about two cycles each.
    Lent(&'a Lent<E>),
}

/// Elements that one thread sums at a time: some of the nearest caches for all three.
const CHUNK: usize = 1 << 14;
/// Elements whose products are summed before their sum joins a chunk's, in so many independent lanes. With n
/// elements a sum is of BLOCK/LANES, LANES, CHUNK/BLOCK and n/CHUNK terms in turn, so that its relative error is at most
/// (80 + n/CHUNK)·2⁻⁵³: 2e-13 for 25 million. The grouping is fixed, so the result is too, whatever the
/// number of threads. With half as many lanes the compiler builds narrow vectors of f64.
const BLOCK: usize = 1024;
const LANES: usize = 32;
/// Elements of a lent tensor that are read before they are summed.
const READ: usize = 256;

/// The dot products of A, B and W, and W in A's place. Of all three there are as many elements as of B: no index can be out of range.
pub(crate) fn shift<E: Dtype>(before: &mut [E], last: &[E], now: Weights<'_, E>) -> Dots {
    // Compiled for each generation of registers, of which the widest runs. None of them fuses a product with a sum, so that
    // the result is the same on all.
    let widest = Arch::new();
    if last.len() <= CHUNK {
        return widest.dispatch(Chunk { first: 0, before, last, now });
    }
    let chunks = before.par_chunks_mut(CHUNK).zip(last.par_chunks(CHUNK)).enumerate();
    let dots = chunks.map(|(index, (before, last))| {
        widest.dispatch(Chunk { first: index * CHUNK, before, last, now })
    });
    dots.collect::<Vec<_>>().into_iter().sum()
}

/// The upper half of an f32: eight bits of precision over its whole range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bf16(pub(crate) u16);

impl Bf16 {
    /// The nearest to a number, and of two the even one.
    pub(crate) fn nearest(x: f64) -> Self {
        let bits = (x as f32).to_bits();
        let even = (bits >> 16) & 1;
        Self((bits.wrapping_add(0x7fff + even) >> 16) as u16)
    }

    pub(crate) fn to_f64(self) -> f64 {
        f64::from(f32::from_bits(u32::from(self.0) << 16))
    }
}

/// The dot products of A, B and W from A − B, in whose place is B − W then, and W in B's. All three have as many elements.
pub(crate) fn shift_direction<E: Dtype>(direction: &mut [Bf16], last: &mut [E], now: &[E]) -> Dots {
    let widest = Arch::new();
    let chunks = direction.par_chunks_mut(CHUNK).zip(last.par_chunks_mut(CHUNK));
    let dots = chunks
        .zip(now.par_chunks(CHUNK))
        .map(|((direction, last), now)| widest.dispatch(DirectionChunk { direction, last, now }));
    dots.collect::<Vec<_>>().into_iter().sum()
}

/// ‖x‖².
pub(crate) fn square<E: Dtype>(elements: &[E]) -> f64 {
    let widest = Arch::new();
    if elements.len() <= CHUNK {
        return widest.dispatch(Square(elements));
    }
    let squares = elements.par_chunks(CHUNK).map(|chunk| widest.dispatch(Square(chunk)));
    squares.collect::<Vec<_>>().into_iter().sum()
}

fn wide<E: Dtype>(element: E) -> f64 {
    element.to_f64().unwrap_or(f64::NAN)
}

/// A type, because the compiler does not inline a closure of this size.
struct Chunk<'a, E: Dtype> {
    /// The index of its first element in `now`.
    first: usize,
    before: &'a mut [E],
    last: &'a [E],
    now: Weights<'a, E>,
}

impl<E: Dtype> NullaryFnOnce for Chunk<'_, E> {
    type Output = Dots;

    #[inline(always)]
    fn call(self) -> Dots {
        let mut total = Dots::default();
        let mut read = [E::default(); READ];
        let mut first = self.first;
        for (before, last) in self.before.chunks_mut(BLOCK).zip(self.last.chunks(BLOCK)) {
            let mut sums = Lanes { across: [0.0; LANES], own: [0.0; LANES] };
            for (before, last) in before.chunks_mut(READ).zip(last.chunks(READ)) {
                let now = match self.now {
                    Weights::Copied(all) => &all[first..first + last.len()],
                    Weights::Lent(tensor) => {
                        let read = &mut read[..last.len()];
                        get(tensor, first, read);
                        read
                    }
                };
                sums.shift(before, last, now);
                first += last.len();
            }
            total.across += sums.across.iter().sum::<f64>();
            total.own += sums.own.iter().sum::<f64>();
        }
        total
    }
}

/// Elements from the `first` on. Not inlined: of arguments the compiler knows that they do not overlap, and it looks the tensor's memory up
/// once, not for every element.
#[inline(never)]
fn get<E: Dtype>(tensor: &Lent<E>, first: usize, to: &mut [E]) {
    for (index, to) in to.iter_mut().enumerate() {
        *to = tensor[[first + index]];
    }
}

struct Lanes {
    across: [f64; LANES],
    own: [f64; LANES],
}

impl Lanes {
    /// And W in A's place.
    #[inline(always)]
    fn shift<E: Dtype>(&mut self, before: &mut [E], last: &[E], now: &[E]) {
        let (last, last_rest) = last.as_chunks::<LANES>();
        let (now, now_rest) = now.as_chunks::<LANES>();
        let (before, before_rest) = before.as_chunks_mut::<LANES>();
        for ((before, last), now) in before.iter_mut().zip(last).zip(now) {
            for lane in 0..LANES {
                self.add(lane, before[lane], last[lane], now[lane]);
            }
            *before = *now;
        }
        let rest = before_rest.iter_mut().zip(last_rest).zip(now_rest);
        for (lane, ((before, last), now)) in rest.enumerate() {
            self.add(lane, *before, *last, *now);
            *before = *now;
        }
    }

    #[inline(always)]
    fn add<E: Dtype>(&mut self, lane: usize, before: E, last: E, now: E) {
        let moved_then = wide(before) - wide(last);
        let moved_now = wide(last) - wide(now);
        self.across[lane] += moved_then * moved_now;
        self.own[lane] += moved_now * moved_now;
    }
}

struct DirectionChunk<'a, E> {
    direction: &'a mut [Bf16],
    last: &'a mut [E],
    now: &'a [E],
}

impl<E: Dtype> NullaryFnOnce for DirectionChunk<'_, E> {
    type Output = Dots;

    #[inline(always)]
    fn call(self) -> Dots {
        let mut total = Dots::default();
        let blocks = self.direction.chunks_mut(BLOCK).zip(self.last.chunks_mut(BLOCK));
        for ((direction, last), now) in blocks.zip(self.now.chunks(BLOCK)) {
            let mut sums = Lanes { across: [0.0; LANES], own: [0.0; LANES] };
            let lanes = direction.chunks_mut(LANES).zip(last.chunks_mut(LANES));
            for ((direction, last), now) in lanes.zip(now.chunks(LANES)) {
                let elements = direction.iter_mut().zip(last).zip(now).enumerate();
                for (lane, ((direction, last), now)) in elements {
                    let moved = wide(*last) - wide(*now);
                    sums.across[lane] += direction.to_f64() * moved;
                    sums.own[lane] += moved * moved;
                    *direction = Bf16::nearest(moved);
                    *last = *now;
                }
            }
            total.across += sums.across.iter().sum::<f64>();
            total.own += sums.own.iter().sum::<f64>();
        }
        total
    }
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

    /// Of weights that are copied and of those that are lent, which then lie where A was.
    fn dots(before: &[f32], last: &[f32], now: &[f32]) -> Dots {
        let shifted = |now_from: Weights<'_, f32>| {
            let mut before = before.to_vec();
            let dots = shift(&mut before, last, now_from);
            assert_eq!(before, now);
            dots
        };
        let tensor = Cpu::default().tensor_from_vec(now.to_vec(), (now.len(),));
        let dots = shifted(Weights::Lent(&tensor));
        assert_eq!(dots, shifted(Weights::Copied(now)));
        dots
    }

    #[test]
    fn squares_by_hand_and_over_chunks() {
        assert_eq!(square(&[3.0f32, 4.0]), 25.0);
        assert_eq!(square::<f64>(&[]), 0.0);
        let len = 2 * CHUNK + LANES + 3;
        assert_eq!(square(&vec![2.0f32; len]), 4.0 * len as f64);
    }

    /// By hand, from the format; and everywhere to half of 2⁻⁷, which cutting bits off is not.
    #[test]
    fn bf16_is_the_nearest() {
        let bits = |x: f64| Bf16::nearest(x).0;
        assert_eq!([bits(1.0), bits(-2.0), bits(0.0)], [0x3f80, 0xc000, 0]);
        // Between 1 and 1 + 2⁻⁷, and between that and the next: to the even one.
        assert_eq!([bits(1.0 + 2f64.powi(-8)), bits(1.0 + 3.0 * 2f64.powi(-8))], [0x3f80, 0x3f82]);
        for x in values(1000, 4).into_iter().map(f64::from) {
            let error = (Bf16::nearest(x).to_f64() - x).abs();
            assert!(error <= x.abs() * 2f64.powi(-8), "{x}");
        }
    }

    /// As the exact ones of the direction as it was kept, at lengths around chunks and lanes.
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
            let dots = shift_direction(&mut kept, &mut last, &now);
            assert!((dots.own - own).abs() <= 1e-12 * own, "{len}");
            assert!((dots.across - across).abs() <= 1e-12 * own, "{len}");
            assert_eq!(last, now);
            let nearest: Vec<_> = moved.into_iter().map(Bf16::nearest).collect();
            assert_eq!(kept, nearest);
        }
    }

    /// Deterministic values of mixed sign and size.
    fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    /// Sums with the rounding errors carried along (Neumaier).
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
            // Relative to the norms: the product itself may cancel.
            assert!((dots.across - across).abs() <= 1e-12 * own, "{len}");
        }
    }

    /// Fails where threads share a sum.
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
    }
}
