//! Memory that a thread keeps for its next piece of work. To get fresh memory takes longer than the
//! work in it, and dfdx fills its memory with zeros first.

use super::shares::{least, Shares};
use dfdx::prelude::{Cpu, Dtype, HasShape, NoneTape, ReshapeTo, Shape, Tensor};
use rayon::prelude::*;
use std::{
    cell::RefCell,
    collections::VecDeque,
    ops::{Deref, DerefMut},
    thread::LocalKey,
};

/// Bytes in a line of a cache. A register that starts where a line does touches one line only.
pub(super) const LINE: usize = 64;

/// How many buffers a thread keeps: enough for all that wait for a deep network's backward pass.
const KEPT: usize = 256;

type Buffers<E> = RefCell<VecDeque<Vec<E>>>;

/// A type whose buffers are kept.
pub(super) trait Kept: Copy + Default + Send + Sync + 'static {
    fn buffers() -> &'static LocalKey<Buffers<Self>>;
}

macro_rules! kept {
    ($($E:ty),*) => {$(
        impl Kept for $E {
            fn buffers() -> &'static LocalKey<Buffers<Self>> {
                thread_local! {
                    static BUFFERS: Buffers<$E> = const { RefCell::new(VecDeque::new()) };
                }
                &BUFFERS
            }
        }
    )*};
}

kept!(f32, f64, u8);

/// A buffer, which goes back to the thread that drops it.
#[derive(Debug)]
pub(super) struct Scratch<E: Kept> {
    buffer: Vec<E>,
    /// The index of the first element that starts a line of a cache.
    start: usize,
    len: usize,
}

impl<E: Kept> Scratch<E> {
    /// `len` elements with anything in them.
    pub(super) fn any(len: usize) -> Self {
        let line = LINE / size_of::<E>();
        let room = len + line;
        let buffer = E::buffers().with_borrow_mut(|buffers| {
            let fits = |buffer: &Vec<E>| (room..=2 * room).contains(&buffer.len());
            let fitting = buffers.iter().enumerate().filter(|(_, buffer)| fits(buffer));
            let (best, _) = fitting.min_by_key(|(_, buffer)| buffer.len())?;
            buffers.remove(best)
        });
        let buffer = buffer.unwrap_or_else(|| vec![E::default(); room]);
        // If the address is not known, the start of the memory will do.
        let start = buffer.as_ptr().align_offset(LINE).min(line);
        Self { buffer, start, len }
    }

    pub(super) fn zeros(len: usize) -> Self {
        let mut scratch = Self::any(len);
        scratch.fill(E::default());
        scratch
    }
}

/// From this number of elements on, all threads copy: one thread alone would wait for memory.
const LARGE: usize = if cfg!(test) { 1 << 10 } else { 1 << 18 };
/// The elements that a thread copies at a time.
const SHARE: usize = if cfg!(test) { 300 } else { 1 << 14 };
/// The elements that are read in one call.
const READ: usize = 128;

impl<E: Kept + Dtype> Scratch<E> {
    /// The values of a contiguous tensor. dfdx offers no way to borrow them: it copies all, on one
    /// thread, or lends them one by one.
    pub(super) fn of<S: Shape, T>(tensor: &Tensor<S, E, Cpu, T>) -> Self {
        let len = tensor.shape().num_elements();
        let mut scratch = Self::any(len);
        let shared = len >= LARGE && least(len) == 1;
        // A reshape of a contiguous tensor copies nothing.
        let flat = || tensor.retaped::<NoneTape>().try_reshape_like(&(len,)).ok();
        match shared.then(flat).flatten() {
            Some(flat) => {
                let shares = scratch.shared_chunks_mut(SHARE).enumerate();
                shares.for_each(|(share, to)| read(&flat, share * SHARE, to));
            }
            None => tensor.copy_into(&mut scratch),
        }
        scratch
    }
}

/// Copies the elements from index `first` on.
fn read<E: Dtype>(tensor: &Tensor<(usize,), E, Cpu>, first: usize, to: &mut [E]) {
    let (whole, rest) = to.as_chunks_mut::<READ>();
    let after = first + whole.len() * READ;
    for (index, to) in whole.iter_mut().enumerate() {
        read_some(tensor, first + index * READ, to);
    }
    for (index, to) in rest.as_chunks_mut::<1>().0.iter_mut().enumerate() {
        read_some(tensor, after + index, to);
    }
}

/// The function is not inlined, and its length is a constant. Only then does the compiler see that
/// `to` does not overlap the tensor, and leave out dfdx's check of each index.
#[inline(never)]
fn read_some<E: Dtype, const N: usize>(
    tensor: &Tensor<(usize,), E, Cpu>,
    first: usize,
    to: &mut [E; N],
) {
    let (len,) = *tensor.shape();
    if first <= len && N <= len - first {
        for (index, to) in to.iter_mut().enumerate() {
            *to = tensor[[first + index]];
        }
    }
}

impl<E: Kept> Drop for Scratch<E> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // If the thread itself ends, its buffers are gone already.
        let _ = E::buffers().try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() == KEPT {
                // The oldest one has not been used for long.
                buffers.pop_front();
            }
            buffers.push_back(buffer);
        });
    }
}

impl<E: Kept> Deref for Scratch<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.buffer[self.start..][..self.len]
    }
}

impl<E: Kept> DerefMut for Scratch<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.buffer[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfdx::prelude::TensorFromVec;

    /// Fails where a share begins or ends at the wrong element.
    #[test]
    fn large_tensors_are_copied_by_all_threads() {
        let dev = Cpu::default();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build();
        for len in [LARGE - 1, LARGE, LARGE + 1, 3 * SHARE + READ, 4 * SHARE + READ + 5] {
            let values: Vec<_> = (0..len).map(|at| at as f32).collect();
            let tensor = dev.tensor_from_vec(values.clone(), (len,));
            let copied = || Scratch::of(&tensor).to_vec();
            assert!(pool.as_ref().is_ok_and(|pool| pool.install(copied) == values), "{len}");
        }
    }

    /// Fails if a buffer has two users at a time, if one that is too short or far too long is
    /// reused, and if a reused one is taken for zeros.
    #[test]
    fn buffers_come_back_to_who_can_use_them() {
        let first = |scratch: &Scratch<f32>| scratch.as_ptr();
        let (mut one, mut two) = (Scratch::<f32>::any(100), Scratch::<f32>::any(100));
        assert_eq!((one.len(), two.len()), (100, 100));
        one.fill(1.0);
        two.fill(2.0);
        assert!(one.iter().all(|value| *value == 1.0));
        let place = first(&one);
        assert_eq!(place.align_offset(LINE), 0);
        drop(one);
        let three = Scratch::<f32>::zeros(90);
        assert_eq!((first(&three), three.len()), (place, 90));
        assert!(three.iter().all(|value| *value == 0.0));
        drop(three);
        let (shorter, longer) = (Scratch::<f32>::any(10), Scratch::<f32>::any(101));
        assert!(first(&shorter) != place && first(&longer) != place);
        assert!(two.iter().all(|value| *value == 2.0));
        for _ in 0..2 * KEPT {
            let many: Vec<_> = (0..KEPT + 1).map(Scratch::<f64>::any).collect();
            drop(many);
        }
        assert_eq!(f64::buffers().with_borrow(VecDeque::len), KEPT);
    }
}
