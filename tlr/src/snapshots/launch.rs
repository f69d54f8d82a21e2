//! The kernels of `window.cu` and `half.cu`, and what they are launched with.
#![cfg(any(feature = "cuda", all(test, target_os = "linux")))]

use crate::error::{DeviceError, Error};
use std::any::TypeId;

/// The threads of a block. Must equal the constant in `window.cu`.
#[cfg(feature = "cuda")]
pub(super) const THREADS: u32 = 256;
/// The elements that a block sums. Must equal the constant in `window.cu`.
const ELEMENTS: usize = 4096;

/// The name of a kernel that takes N sums over the elements of each group.
#[derive(Clone, Copy)]
pub(super) struct KernelName<const N: usize>(pub(super) &'static str);

/// The kernels for one element type.
pub(super) struct Kernels {
    pub(super) shift: KernelName<2>,
    pub(super) square: KernelName<1>,
    pub(super) slope: KernelName<4>,
    #[cfg(feature = "cuda")]
    pub(super) unscale: KernelName<2>,
    #[cfg(feature = "cuda")]
    pub(super) widen: KernelName<1>,
    #[cfg(feature = "cuda")]
    pub(super) narrow: KernelName<1>,
}

macro_rules! kernels {
    ($name:literal) => {
        Kernels {
            shift: KernelName(concat!("shift_", $name)),
            square: KernelName(concat!("square_", $name)),
            slope: KernelName(concat!("slope_", $name)),
            #[cfg(feature = "cuda")]
            unscale: KernelName(concat!("unscale_", $name)),
            #[cfg(feature = "cuda")]
            widen: KernelName(concat!("widen_", $name)),
            #[cfg(feature = "cuda")]
            narrow: KernelName(concat!("narrow_", $name)),
        }
    };
}

const F32: Kernels = kernels!("f32");
const F64: Kernels = kernels!("f64");
#[cfg(any(feature = "cuda", feature = "f16"))]
const F16: Kernels = kernels!("f16");

/// The names of all kernels.
#[cfg(feature = "cuda")]
pub(super) fn names() -> Vec<&'static str> {
    let all = [F32, F64, F16].map(|Kernels { shift, square, slope, unscale, widen, narrow }| {
        [shift.0, square.0, slope.0, unscale.0, widen.0, narrow.0]
    });
    all.into_iter().flatten().collect()
}

pub(super) fn kernels<E: 'static>() -> Option<&'static Kernels> {
    let element = TypeId::of::<E>();
    if element == TypeId::of::<f32>() {
        return Some(&F32);
    }
    if element == TypeId::of::<f64>() {
        return Some(&F64);
    }
    #[cfg(feature = "f16")]
    if element == TypeId::of::<half::f16>()
        || element == TypeId::of::<dfdx::dtypes::AMP<half::f16>>()
    {
        return Some(&F16);
    }
    None
}

/// The addresses of one tensor's A, B, W and gradient, each with `len` elements. Those that a
/// kernel does not use are 0.
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    pub(super) group: usize,
    pub(super) before: u64,
    /// B, or the snapshot that a slope is measured from.
    pub(super) last: u64,
    pub(super) now: u64,
    pub(super) gradient: u64,
    pub(super) len: usize,
}

/// One launch over all tensors.
pub(super) struct Launch {
    /// Seven numbers for each tensor; then the first block of each group, and the number of blocks.
    pub(super) table: Vec<u64>,
    /// The number of tensors.
    pub(super) tensors: u64,
    pub(super) groups: usize,
    pub(super) blocks: u32,
}

impl Launch {
    /// `None` if there is nothing to sum.
    pub(super) fn new(mut rows: Vec<Row>, groups: usize) -> Result<Option<Self>, Error> {
        rows.sort_by_key(|row| row.group);
        let mut table = Vec::with_capacity(7 * rows.len() + groups + 1);
        let mut first = vec![0; groups + 1];
        let mut blocks = 0;
        for row in &rows {
            let Row { group, before, last, now, gradient, len } = *row;
            table.extend([before, last, now, gradient, len as u64, blocks, group as u64]);
            blocks += len.div_ceil(ELEMENTS) as u64;
            // All later groups begin after the blocks of this row. Later rows move them further.
            first.iter_mut().skip(group + 1).for_each(|first| *first = blocks);
        }
        table.extend(first);
        let Ok(blocks) = u32::try_from(blocks) else {
            return Err(Error::Device(DeviceError::new("more elements than a GPU has blocks for")));
        };
        let launch = Self { table, tensors: rows.len() as u64, groups, blocks };
        Ok((blocks > 0 && groups > 0).then_some(launch))
    }

    /// Whether a group has any block. The kernels write sums of these groups only.
    pub(super) fn has_blocks(&self, group: usize) -> bool {
        let first = self.table.get(7 * self.tensors as usize..).unwrap_or_default();
        first.get(group).zip(first.get(group + 1)).is_some_and(|(begin, end)| begin < end)
    }
}
