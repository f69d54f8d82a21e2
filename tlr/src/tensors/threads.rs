//! How threads share the work on the elements of tensors.

use dfdx::shapes::Dtype;

/// The number of elements that one thread works on at a time. This many elements of three tensors
/// fit in a core's own caches.
pub(crate) const CHUNK: usize = 1 << 14;

/// Whether the work on this number of elements is worth sharing between threads. Waking a sleeping
/// thread takes as long as working on a million elements. The threads of a pool are already awake
/// while this thread works in it.
pub(crate) fn is_shared(elements: usize) -> bool {
    let alone = if rayon::current_thread_index().is_some() { 1 << 16 } else { 1 << 20 };
    elements > alone
}

/// Converts an element to f64.
#[inline(always)]
pub(crate) fn wide<E: Dtype>(element: E) -> f64 {
    element.to_f64().unwrap_or(f64::NAN)
}
