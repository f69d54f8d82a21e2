//! The address of a tensor in a GPU's memory.

use dfdx::{
    shapes::{Dtype, Shape},
    tensor::{Cuda, Tensor},
};
use std::fmt::{self, Write};

/// The address of the first element of `tensor` in a GPU's memory, if it has `len` elements there.
///
/// dfdx does not expose the address, but its `Debug` output shows it. That output depends on the
/// versions of dfdx and cudarc, and this crate requires exactly one version of each. If the output
/// looks different, the result is `None`, and the elements are copied by way of the host.
pub(super) fn of<S: Shape, E: Dtype>(tensor: &Tensor<S, E, Cuda>, len: usize) -> Option<u64> {
    let mut start = Start(String::new());
    // Writing stops with an error as soon as the text suffices, so the error is ignored.
    let _ = write!(start, "{tensor:?}");
    parse(&start.0, len)
}

/// Finds the pointer in `… cu_device_ptr: 140, len: 12, …`. `None` unless the length is `len`.
fn parse(shown: &str, len: usize) -> Option<u64> {
    let (_, slice) = shown.split_once("CudaSlice { cu_device_ptr: ")?;
    let (address, rest) = slice.split_once(", len: ")?;
    let (elements, _) = rest.split_once(", ")?;
    let same = elements.parse::<usize>().ok()? == len;
    address.parse().ok().filter(|&address| same && address != 0)
}

/// The beginning of a tensor's `Debug` output, up to the fields after the slice's length.
struct Start(String);

impl Write for Start {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.push_str(part);
        match self.0.contains("CudaSlice {") && self.0.contains("device: ") {
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
        let shown = "Tensor { id: UniqueId(7), data: CachableCudaSlice { \
                     data: CudaSlice { cu_device_ptr: 1402, len: 12, device: ";
        assert_eq!(parse(shown, 12), Some(1402));
        assert_eq!(parse(shown, 11), None);
        assert_eq!(parse("Tensor { id: UniqueId(7), data: [1.0, 2.0]", 2), None);
        assert_eq!(parse(&shown.replace("1402", "0"), 12), None);
    }
}
