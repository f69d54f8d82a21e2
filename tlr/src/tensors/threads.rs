//! How work on the elements of tensors is shared between threads.

use dfdx::shapes::Dtype;

/// Elements that one thread works on at a time. Of three tensors, so many fit its own caches.
pub(crate) const CHUNK: usize = 1 << 14;

/// Whether so many elements are worth a second thread. A thread that sleeps takes as long to wake as
/// this one takes for a million elements; the threads of a pool that this one works in are awake.
pub(crate) fn is_shared(elements: usize) -> bool {
    let alone = if rayon::current_thread_index().is_some() { 1 << 16 } else { 1 << 20 };
    elements > alone
}

/// An element as an f64.
#[inline(always)]
pub(crate) fn wide<E: Dtype>(element: E) -> f64 {
    element.to_f64().unwrap_or(f64::NAN)
}
