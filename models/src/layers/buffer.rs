//! The memory of CPU tensors and their gradients, as slices.

use dfdx::prelude::{Cpu, CpuError, HasShape, Shape, Storage, Tensor, TensorFromVec, Unit};

/// Memory of the device, which goes back to its cache when it is dropped.
pub(super) type Buffer<E> = <Cpu as Storage<E>>::Vec;

/// Memory of `len` zeros: dfdx has no way to get memory that is not filled.
pub(super) fn zeros<E: Unit>(device: &Cpu, len: usize) -> Result<Buffer<E>, CpuError> {
    device.try_alloc_len(len)
}

/// The values of a contiguous tensor, in memory that may become another tensor.
pub(super) fn read<S: Shape, E: Unit, T>(
    tensor: &Tensor<S, E, Cpu, T>,
) -> Result<Buffer<E>, CpuError> {
    let mut buffer = zeros(tensor.device(), tensor.shape().num_elements())?;
    tensor.copy_into(&mut buffer);
    Ok(buffer)
}

/// A tensor of these values.
pub(super) fn tensor<S: Shape, E: Unit>(
    device: &Cpu,
    mut values: Buffer<E>,
    shape: S,
) -> Result<Tensor<S, E, Cpu>, CpuError> {
    device.try_tensor_from_vec(std::mem::take(&mut *values), shape)
}

/// Moves a gradient out, so that several can be used at a time. The caller moves it back.
pub(super) fn take<E: Unit>(gradient: &mut Buffer<E>) -> Vec<E> {
    std::mem::take(&mut **gradient)
}
