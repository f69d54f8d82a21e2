//! Sums over the elements of tensors, in one pass, on all threads and in the widest vectors.
//!
//! The grouping of the terms is fixed, so a result does not depend on the number of threads. With n
//! elements, a result is a sum of BLOCK/LANES, then LANES, then CHUNK/BLOCK, then n/CHUNK terms. So
//! its relative error is at most (80 + n/CHUNK)·2⁻⁵³, which is 2e-13 for 25 million elements.

use crate::tensors::{is_shared, wide, CHUNK, READ};
use dfdx::shapes::Dtype;
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;
use std::ops::Range;

/// The number of elements in a block. The sums over a block are added to those of its chunk.
const BLOCK: usize = 1024;
/// The number of parts that each sum over a block has. With half as many the compiler generates
/// narrow f64 vectors.
pub(super) const LANES: usize = 32;

/// N sums in LANES parts each. Element i is added to part i mod LANES.
pub(super) type Lanes<const N: usize> = [[f64; LANES]; N];

/// Up to [`CHUNK`] elements of one tensor, over which N sums are taken.
///
/// It is a trait because the compiler does not inline a closure of this size.
pub(super) trait Chunk<const N: usize> {
    fn len(&self) -> usize;

    /// Adds what a range of at most [`READ`] elements contributes to each sum.
    fn add(&mut self, range: Range<usize>, sums: &mut Lanes<N>);
}

/// `pulp` compiles the loop for several vector instruction sets and runs the widest one that the
/// CPU has. No version fuses a multiplication with an addition, so all give the same result.
fn of_chunk<const N: usize>(chunk: impl Chunk<N>) -> [f64; N] {
    Arch::new().dispatch(Dispatched(chunk))
}

struct Dispatched<C, const N: usize>(C);

impl<C: Chunk<N>, const N: usize> NullaryFnOnce for Dispatched<C, N> {
    type Output = [f64; N];

    #[inline(always)]
    fn call(mut self) -> [f64; N] {
        let len = self.0.len();
        let mut total = [0.0; N];
        for block in (0..len).step_by(BLOCK) {
            let mut sums = [[0.0; LANES]; N];
            let end = len.min(block + BLOCK);
            for first in (block..end).step_by(READ) {
                self.0.add(first..end.min(first + READ), &mut sums);
            }
            // A loop and not `sums.map`, whose closure would be compiled for narrow vectors.
            for (total, lanes) in total.iter_mut().zip(&sums) {
                *total += lanes.iter().sum::<f64>();
            }
        }
        total
    }
}

/// Takes the sums over all chunks of a tensor with `len` elements.
pub(super) fn of_chunks<C: Chunk<N> + Send, const N: usize>(
    len: usize,
    chunks: impl Iterator<Item = C>,
) -> [f64; N] {
    let zero = [0.0; N];
    if is_shared(len) {
        let chunks: Vec<_> = chunks.collect();
        let sums: Vec<_> = chunks.into_par_iter().map(of_chunk).collect();
        return sums.into_iter().fold(zero, plus);
    }
    chunks.map(of_chunk).fold(zero, plus)
}

/// Computes ‖x‖².
pub(super) fn square<E: Dtype>(elements: &[E]) -> f64 {
    let [square] = of_chunks(elements.len(), elements.chunks(CHUNK).map(Squares));
    square
}

struct Squares<'a, E>(&'a [E]);

impl<E: Dtype> Chunk<1> for Squares<'_, E> {
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn add(&mut self, range: Range<usize>, [squares]: &mut Lanes<1>) {
        for elements in self.0.get(range).unwrap_or_default().chunks(LANES) {
            for (sum, element) in squares.iter_mut().zip(elements) {
                *sum += wide(*element) * wide(*element);
            }
        }
    }
}

fn plus<const N: usize>(mut sums: [f64; N], more: [f64; N]) -> [f64; N] {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    sums
}

/// Applies `of` to each item, on all threads if `shared`, and on this thread otherwise.
pub(super) fn each<T: Send, R: Send>(
    items: &mut [T],
    shared: bool,
    of: impl Fn(&mut T) -> R + Sync + Send,
) -> Vec<R> {
    match shared {
        true => items.par_iter_mut().map(of).collect(),
        false => items.iter_mut().map(of).collect(),
    }
}

/// Pads `some` with zeros to the full number of lanes.
#[inline(always)]
pub(super) fn filled<T: Copy + Default>(some: &[T]) -> [T; LANES] {
    let mut all = [T::default(); LANES];
    all.iter_mut().zip(some).for_each(|(to, from)| *to = *from);
    all
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn squares_by_hand_and_over_chunks() {
        assert_eq!(square(&[3.0f32, 4.0]), 25.0);
        assert_eq!(square::<f64>(&[]), 0.0);
        let len = 2 * CHUNK + LANES + 3;
        assert_eq!(square(&vec![2.0f32; len]), 4.0 * len as f64);
    }

    /// Lengths around lanes, reads, blocks and chunks.
    pub(in crate::snapshots) const LENGTHS: [usize; 15] = [
        1,
        7,
        LANES - 1,
        LANES,
        LANES + 1,
        READ - 1,
        READ + 1,
        BLOCK - 1,
        BLOCK,
        BLOCK + 1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 5,
        3 * CHUNK + BLOCK + LANES + 1,
        1_000_003,
    ];

    /// Deterministic values of both signs and of different sizes.
    pub(in crate::snapshots) fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    /// A sum with compensation of the rounding errors (Neumaier).
    pub(in crate::snapshots) fn exact(terms: impl Iterator<Item = f64>) -> f64 {
        let (mut sum, mut lost) = (0.0f64, 0.0);
        for term in terms {
            let next = sum + term;
            lost += if sum.abs() >= term.abs() { sum - next + term } else { term - next + sum };
            sum = next;
        }
        sum + lost
    }

    /// Checks that `of` gives the same with any number of threads, and outside a pool.
    pub(in crate::snapshots) fn is_the_same_with_any_threads<T: PartialEq + Send>(
        mut of: impl FnMut() -> T + Send,
    ) -> bool {
        let outside = Some(of());
        let mut with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.ok().map(|pool| pool.install(&mut of))
        };
        [1, 2, 3, 8].into_iter().all(|threads| with(threads) == outside)
    }
}
