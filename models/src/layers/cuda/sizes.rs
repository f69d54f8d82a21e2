//! Sizes as kernels take them, by value: as the `.cu` files lay them out.

use cudarc::driver::DeviceRepr;

/// As in `conv.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(in crate::layers) struct Part {
    pub(in crate::layers) images: u32,
    pub(in crate::layers) channels: u32,
    pub(in crate::layers) height: u32,
    pub(in crate::layers) width: u32,
    pub(in crate::layers) kernel: u32,
    pub(in crate::layers) stride: u32,
    pub(in crate::layers) padding: u32,
    pub(in crate::layers) dilation: u32,
    pub(in crate::layers) out_width: u32,
    pub(in crate::layers) first_row: u32,
    pub(in crate::layers) rows: u32,
    pub(in crate::layers) top: u32,
    pub(in crate::layers) lines: u32,
}

/// As in `element.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(in crate::layers) struct Planes {
    pub(in crate::layers) images: u32,
    pub(in crate::layers) channels: u32,
    pub(in crate::layers) pixels: u32,
}

/// As in `pool.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(in crate::layers) struct Window {
    pub(in crate::layers) planes: u32,
    pub(in crate::layers) height: u32,
    pub(in crate::layers) width: u32,
    pub(in crate::layers) kernel: u32,
    pub(in crate::layers) stride: u32,
    pub(in crate::layers) padding: u32,
    pub(in crate::layers) out_height: u32,
    pub(in crate::layers) out_width: u32,
}

/// As in `softmax.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(in crate::layers) struct Scores {
    pub(in crate::layers) heads: u32,
    pub(in crate::layers) queries: u32,
    pub(in crate::layers) keys: u32,
    pub(in crate::layers) causal: u32,
}

/// As in `drop.cu`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(in crate::layers) struct Dropping {
    pub(in crate::layers) seed: u64,
    pub(in crate::layers) below: u64,
    pub(in crate::layers) scale: f64,
}

// SAFETY: numbers of 32 bits, one after the other, as in the kernels' structs.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Part {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Planes {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Window {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Scores {}
// SAFETY: three numbers of 64 bits, likewise.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Dropping {}
