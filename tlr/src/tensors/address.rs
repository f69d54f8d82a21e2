//! The address of a tensor in a GPU's memory.

use dfdx::{
    shapes::{Dtype, Shape},
    tensor::{Cuda, Tensor},
};
use std::{
    fmt::{self, Write},
    sync::Once,
};

/// Where a tensor is in a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuPlace {
    /// The address of the first element.
    pub address: u64,
    /// CUDA's number of the GPU.
    pub device: i32,
}

/// The place of `tensor` in a GPU's memory, if it has `len` elements there.
///
/// dfdx does not expose the address, but its `Debug` output shows it. That output depends on the
/// versions of dfdx and cudarc, and this crate requires exactly one version of each. If the output
/// looks different, or if the tensor has another number of elements, the result is `None`, and the
/// elements are copied by way of the host. The first time, this is a `tracing` event: it is slow.
pub fn gpu_place<S: Shape, E: Dtype>(tensor: &Tensor<S, E, Cuda>, len: usize) -> Option<GpuPlace> {
    let mut start = Start(String::with_capacity(256));
    // Writing stops with an error as soon as the text suffices, so the error is ignored.
    let _ = write!(start, "{tensor:?}");
    let place = parse(&start.0, len);
    if place.is_none() && len > 0 {
        warn_once();
    }
    place
}

fn warn_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "the address of a tensor on a GPU is unknown, because dfdx or cudarc shows tensors in \
             another way: they are copied by way of the host, which is slow"
        );
    });
}

/// Finds the pointer and the device in `… cu_device_ptr: 140, len: 12, device: CudaDevice {
/// cu_device: 0, …`. `None` unless the length is `len`.
fn parse(shown: &str, len: usize) -> Option<GpuPlace> {
    let (_, slice) = shown.split_once("CudaSlice { cu_device_ptr: ")?;
    let (address, rest) = slice.split_once(", len: ")?;
    let (elements, rest) = rest.split_once(", device: CudaDevice { cu_device: ")?;
    let (device, _) = rest.split_once(", ")?;
    let same = elements.parse::<usize>().ok()? == len;
    let address = address.parse().ok().filter(|&address| same && address != 0)?;
    Some(GpuPlace { address, device: device.parse().ok()? })
}

/// The beginning of a tensor's `Debug` output, up to the field after the device's number.
struct Start(String);

impl Write for Start {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.push_str(part);
        match part.contains("cu_primary_ctx") {
            true => Err(fmt::Error),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_as_many_elements() {
        let shown = "Tensor { id: UniqueId(7), data: CachableCudaSlice { data: CudaSlice { \
                     cu_device_ptr: 1402, len: 12, device: CudaDevice { cu_device: 3, cu_primary";
        assert_eq!(parse(shown, 12), Some(GpuPlace { address: 1402, device: 3 }));
        assert_eq!(parse(shown, 11), None);
        assert_eq!(parse("Tensor { id: UniqueId(7), data: [1.0, 2.0]", 2), None);
        assert_eq!(parse(&shown.replace("1402", "0"), 12), None);
        assert_eq!(parse(&shown.replace("3, ", "?, "), 12), None);
    }
}
