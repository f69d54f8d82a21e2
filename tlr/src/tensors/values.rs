//! [`Values`]: the elements of one tensor, for any thread to read.

use super::threads::{is_shared, wide, CHUNK};
use dfdx::{
    shapes::{Dtype, HasShape, Shape},
    tensor::{Cpu, Tensor},
};
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;
use std::ops::Range;

/// The elements of a contiguous tensor, for any thread to read.
pub(crate) enum Values<E: Dtype> {
    /// The tensor itself, reshaped to one dimension. dfdx gives access to its elements one by one.
    Lent(Tensor<(usize,), E, Cpu>),
    /// A copy of the elements, if the tensor is small or on another device.
    Copied(Vec<E>),
}

/// The number of elements read at a time. Reads of this size alternate with reads of the snapshots,
/// so that the memory system can fetch all three at once.
pub(crate) const READ: usize = 128;

/// Memory for [`READ`] elements. It begins with a cache line, so that no vector lies across two.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct ReadBuffer<E>(pub(crate) [E; READ]);

impl<E: Dtype> ReadBuffer<E> {
    pub(crate) fn new() -> Self {
        Self([E::default(); READ])
    }
}

/// Up to this number of elements, a copy is faster than reading one by one. The copy fits in the L1
/// cache.
pub(super) const SMALL: usize = 1 << 13;

impl<E: Dtype> Values<E> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Lent(tensor) => tensor.shape().num_elements(),
            Self::Copied(values) => values.len(),
        }
    }

    /// All elements in f64.
    pub(crate) fn to_f64(&self) -> Vec<f64> {
        let mut all = Vec::with_capacity(self.len());
        self.read_range(0..self.len(), |part| all.extend(part.iter().map(|value| wide(*value))));
        all
    }

    /// `len` elements from index `first` on, at most [`READ`] of them. A lent tensor's elements are
    /// copied to `room` first. Empty if the tensor has fewer elements.
    #[inline(always)]
    pub(crate) fn read<'a>(
        &'a self,
        first: usize,
        len: usize,
        ReadBuffer(room): &'a mut ReadBuffer<E>,
    ) -> &'a [E] {
        match self {
            Self::Copied(values) => values.get(first..first + len).unwrap_or_default(),
            Self::Lent(tensor) if first + len <= self.len() => {
                if len == READ {
                    get(tensor, first, room);
                } else {
                    let each = room.as_chunks_mut::<1>().0.iter_mut().take(len);
                    each.enumerate().for_each(|(index, one)| get(tensor, first + index, one));
                }
                room.get(..len).unwrap_or_default()
            }
            Self::Lent(_) => &[],
        }
    }

    /// Calls `look` with the elements of a range, [`READ`] at a time.
    #[inline(always)]
    pub(crate) fn read_range(&self, range: Range<usize>, mut look: impl FnMut(&[E])) {
        let mut room = ReadBuffer::new();
        for first in range.clone().step_by(READ) {
            look(self.read(first, READ.min(range.end - first), &mut room));
        }
    }
}

/// Copies N elements from index `first` on to `to`. Does nothing if the tensor has fewer elements.
///
/// The function is not inlined, and the number of elements is a constant. The compiler then knows
/// that `tensor` and `to` do not overlap, removes dfdx's bounds check of each index, and loads the
/// address of the tensor's memory once. An element takes 1 cycle instead of 2.5.
#[inline(never)]
fn get<E: Dtype, const N: usize>(tensor: &Tensor<(usize,), E, Cpu>, first: usize, to: &mut [E; N]) {
    let (all,) = *tensor.shape();
    if first <= all && N <= all - first {
        for index in 0..N {
            to[index] = tensor[[first + index]];
        }
    }
}

/// Whether all elements are finite. The loop has no early exit, so that the compiler vectorizes it.
#[inline(always)]
pub(crate) fn all_finite<E: Dtype>(elements: &[E]) -> bool {
    let is_finite = |element: &E| element.to_f64().is_some_and(f64::is_finite);
    elements.iter().fold(true, |all, element| all & is_finite(element))
}

/// Whether all elements are finite.
pub(crate) fn are_finite<E: Dtype>(values: &Values<E>) -> bool {
    let widest = Arch::new();
    let finite = |first| widest.dispatch(Finite { first, values });
    let chunks = values.len().div_ceil(CHUNK);
    if is_shared(values.len()) {
        return (0..chunks).into_par_iter().all(|index| finite(index * CHUNK));
    }
    (0..chunks).all(|index| finite(index * CHUNK))
}

/// Whether all elements of one chunk are finite. The chunk begins at index `first`.
struct Finite<'a, E: Dtype> {
    first: usize,
    values: &'a Values<E>,
}

impl<E: Dtype> NullaryFnOnce for Finite<'_, E> {
    type Output = bool;

    #[inline(always)]
    fn call(self) -> bool {
        let end = self.values.len().min(self.first + CHUNK);
        let mut finite = true;
        self.values.read_range(self.first..end, |part| finite &= all_finite(part));
        finite
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use dfdx::prelude::TensorFromVec;

    fn lent(values: &[f32]) -> Values<f32> {
        Values::Lent(Cpu::default().tensor_from_vec(values.to_vec(), (values.len(),)))
    }

    /// Places one bad element at many positions. Fails if the check skips a part of a chunk.
    #[test]
    fn finite_means_all_of_them() {
        let mut values = vec![1.5f32; 2 * CHUNK + READ + 3];
        let check = |values: &[f32]| {
            let all = are_finite(&lent(values));
            assert_eq!(all, are_finite(&Values::Copied(values.to_vec())));
            all
        };
        assert!(check(&values));
        for index in [0, READ - 1, READ, CHUNK - 1, CHUNK, values.len() - 4, values.len() - 1] {
            let good = std::mem::replace(&mut values[index], f32::INFINITY);
            assert!(!check(&values), "{index}");
            values[index] = f32::NAN;
            assert!(!check(&values), "{index}");
            values[index] = good;
        }
    }
}
