//! The buffers of an [`Elementwise`](super::Elementwise): made, saved and loaded. Nothing here
//! depends on the model's type, so that it is compiled once for all models and layers.

use super::{OptimizerState, RestoreError};
use crate::tensors::{Backend, Buffer, Element, Stored, TensorInfo};
use dfdx::{
    shapes::Dtype,
    tensor::{Storage, UniqueId},
    tensor_ops::Device,
};
use std::collections::HashMap;

/// The N buffers of each tensor.
pub(super) type Buffers<E, D, const N: usize> = HashMap<UniqueId, [Buffer<E, D>; N]>;

pub(super) fn zeros<E: Dtype, D: Device<E>, const N: usize>(
    device: &D,
    len: usize,
) -> Result<[Buffer<E, D>; N], D::Err> {
    let zeros: Buffer<E, D> = Storage::<E>::try_alloc_len(device, len)?;
    Ok(std::array::from_fn(|_| zeros.clone()))
}

pub(super) fn all_zeros<E: Dtype, D: Backend<E>, const N: usize>(
    tensors: Vec<(TensorInfo, D)>,
) -> Result<Buffers<E, D, N>, D::Err> {
    let mut buffers = HashMap::new();
    for (tensor, device) in tensors.into_iter().filter(|(tensor, _)| tensor.trainable) {
        buffers.insert(tensor.id, zeros(&device, tensor.len)?);
    }
    Ok(buffers)
}

pub(super) fn store<E: Element, D: Backend<E>, const N: usize>(
    names: [&str; N],
    buffers: &Buffers<E, D, N>,
    tensors: Vec<TensorInfo>,
    state: &mut OptimizerState,
) -> Result<(), D::Err> {
    for tensor in tensors.into_iter().filter(|tensor| tensor.trainable) {
        let buffers = buffers.get(&tensor.id);
        for (index, name) in names.iter().enumerate() {
            let shape = tensor.shape.clone();
            let stored = match buffers.and_then(|buffers| buffers.get(index)) {
                Some(buffer) => D::read(buffer, |values| Stored::new(shape, values))?,
                // Before the first update every buffer is 0.
                None => Stored::new(shape, &vec![E::default(); tensor.len]),
            };
            state.insert(name, &tensor.name, stored);
        }
    }
    Ok(())
}

pub(super) fn load<E: Element, D: Backend<E>, const N: usize>(
    names: [&str; N],
    tensors: Vec<(TensorInfo, D)>,
    state: &OptimizerState,
) -> Result<Buffers<E, D, N>, RestoreError<D::Err>> {
    let mut loaded = HashMap::new();
    for (tensor, device) in tensors.into_iter().filter(|(tensor, _)| tensor.trainable) {
        let zeros = zeros(&device, tensor.len).map_err(RestoreError::Device);
        let mut buffers: [Buffer<E, D>; N] = zeros?;
        for (name, buffer) in names.iter().zip(&mut buffers) {
            let mut copied = Ok(());
            let copy = |values: &mut [E]| {
                copied = state.copy(name, &tensor.name, &tensor.shape, values);
            };
            D::write(buffer, copy).map_err(RestoreError::Device)?;
            copied?;
        }
        loaded.insert(tensor.id, buffers);
    }
    Ok(loaded)
}
