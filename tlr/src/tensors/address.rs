//! Where a tensor lies in a GPU's memory.

use dfdx::{
    shapes::{Dtype, Shape},
    tensor::{Cuda, Tensor},
};
use std::fmt::{self, Write};

/// Where a tensor with `len` elements begins in a GPU's memory.
///
/// dfdx lends the address to nobody, but shows it by `Debug`. How that looks depends on the versions
/// of dfdx and cudarc; this crate asks for exactly one of each. Where it looks different, the answer is
/// `None`, and the elements go by way of the host.
pub(super) fn of<S: Shape, E: Dtype>(tensor: &Tensor<S, E, Cuda>, len: usize) -> Option<u64> {
    let mut start = Start(String::new());
    // It stops as soon as it knows enough, with an error.
    let _ = write!(start, "{tensor:?}");
    parse(&start.0, len)
}

/// The pointer in `… cu_device_ptr: 140, len: 12, …`, of exactly so many elements.
fn parse(shown: &str, len: usize) -> Option<u64> {
    let (_, slice) = shown.split_once("CudaSlice { cu_device_ptr: ")?;
    let (address, rest) = slice.split_once(", len: ")?;
    let (elements, _) = rest.split_once(", ")?;
    let same = elements.parse::<usize>().ok()? == len;
    address.parse().ok().filter(|&address| same && address != 0)
}

/// Text up to the fields after a slice's length.
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
        let shown = "Tensor { id: UniqueId(7), data: CachableCudaSlice { data: CudaSlice { cu_device_ptr: 1402, len: 12, device: ";
        assert_eq!(parse(shown, 12), Some(1402));
        assert_eq!(parse(shown, 11), None);
        assert_eq!(parse("Tensor { id: UniqueId(7), data: [1.0, 2.0]", 2), None);
        assert_eq!(parse(&shown.replace("1402", "0"), 12), None);
    }
}
