//! How often a test asks a GPU for something. Only the stand-in for a GPU counts it.
#![allow(unsafe_code, unreachable_pub)]

use std::{
    ffi::{c_char, c_void},
    mem, ptr,
};

/// What this thread has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub launches: u64,
    pub copies_to_gpu: u64,
    pub copies_to_host: u64,
    pub copies_within_gpu: u64,
    pub fills: u64,
    pub allocations: u64,
    pub frees: u64,
    /// How often the host waits until the GPU has done all.
    pub waits: u64,
}

/// What `work` asks for. `None` on a real GPU.
pub fn counted(work: impl FnOnce()) -> Option<Counts> {
    let count = stand_in()?;
    let now = || [0, 1, 2, 3, 4, 5, 6, 7].map(|what| count(what));
    let before = now();
    work();
    let mut asked = now();
    asked.iter_mut().zip(before).for_each(|(asked, before)| *asked -= before);
    let [launches, copies_to_gpu, copies_to_host, copies_within_gpu, ..] = asked;
    let [.., fills, allocations, frees, waits] = asked;
    Some(Counts {
        launches,
        copies_to_gpu,
        copies_to_host,
        copies_within_gpu,
        fills,
        allocations,
        frees,
        waits,
    })
}

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The stand-in's function that counts. `Counted` in its `gpu.h` has the numbers of what it counts.
fn stand_in() -> Option<extern "C" fn(i32) -> u64> {
    // SAFETY: the name ends with a zero, and a null pointer stands for all libraries.
    let found = unsafe { dlsym(ptr::null_mut(), c"gpu_on_host_count".as_ptr()) };
    // SAFETY: only the stand-in has a function of this name, from a number to a count.
    (!found.is_null()).then(|| unsafe { mem::transmute::<*mut c_void, _>(found) })
}
