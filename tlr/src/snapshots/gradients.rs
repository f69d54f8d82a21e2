//! The elements of a model's gradients, for any thread to read.

use crate::{
    error::{DeviceError, Error},
    optim::gradients,
    tensors::{device_error, Buffer, Model},
};
use dfdx::{
    shapes::Dtype,
    tensor::{Cpu, Gradients, UniqueId},
    tensor_ops::Device,
};
use std::{
    any::Any,
    collections::{btree_map::Entry, BTreeMap},
    mem,
};

/// Calls `look` with the gradient of each trainable tensor, until it fails. A tensor without a
/// gradient is given one of zeros.
pub(super) fn each<E, D>(
    model: &dyn Model<E, D>,
    gradients: &mut Gradients<E, D>,
    mut look: impl FnMut(UniqueId, &mut Buffer<E, D>) -> Result<(), Error>,
) -> Result<(), Error>
where
    E: Dtype,
    D: Device<E>,
{
    let mut looked = Ok(());
    let walked = gradients::each(model, gradients, |id, buffer| {
        if looked.is_ok() {
            looked = look(id, buffer);
        }
        Ok(())
    });
    walked.map_err(|error| device_error(format!("{error:?}"), &error))?;
    looked
}

/// Calls `work` with the elements of all gradients.
///
/// dfdx lends one gradient at a time. So the memory of all is taken out of the set, and given back
/// after `work`. Only gradients on a GPU are copied.
pub(super) fn with_all<E, D, T>(
    model: &dyn Model<E, D>,
    gradients: &mut Gradients<E, D>,
    work: impl FnOnce(&BTreeMap<UniqueId, Vec<E>>) -> T,
) -> Result<T, Error>
where
    E: Dtype,
    D: Device<E>,
{
    let mut all = BTreeMap::new();
    let taken = each(model, gradients, |id, buffer| {
        // A model may contain a tensor twice.
        if let Entry::Vacant(place) = all.entry(id) {
            place.insert(take::<E, D>(buffer)?);
        }
        Ok(())
    });
    let done = taken.map(|()| work(&all));
    each(model, gradients, |id, buffer| {
        if let Some(elements) = all.remove(&id) {
            give_back::<E, D>(buffer, elements);
        }
        Ok(())
    })?;
    done
}

/// Calls `work` with the elements of one gradient.
pub(super) fn with<E: Dtype, D: Device<E>>(
    buffer: &mut Buffer<E, D>,
    work: impl FnOnce(&[E]),
) -> Result<(), Error> {
    let elements = take::<E, D>(buffer)?;
    work(&elements);
    give_back::<E, D>(buffer, elements);
    Ok(())
}

fn take<E: Dtype, D: Device<E>>(buffer: &mut Buffer<E, D>) -> Result<Vec<E>, Error> {
    let buffer: &mut dyn Any = buffer;
    #[cfg(feature = "cuda")]
    if let Some(gradient) = buffer.downcast_ref::<Buffer<E, dfdx::tensor::Cuda>>() {
        return super::gpu::read(gradient);
    }
    match buffer.downcast_mut::<Buffer<E, Cpu>>() {
        Some(gradient) => Ok(mem::take(gradient)),
        None => {
            let words = "gradients on this device cannot be read";
            Err(Error::Device(DeviceError::new(words)))
        }
    }
}

/// Where a gradient's elements are, if it is on a GPU.
#[cfg(feature = "cuda")]
pub(crate) fn on_gpu<E: Dtype, D: Device<E>>(
    buffer: &Buffer<E, D>,
) -> Option<super::gpu::Gradient> {
    let buffer: &dyn Any = buffer;
    let gradient = buffer.downcast_ref::<Buffer<E, dfdx::tensor::Cuda>>()?;
    Some(super::gpu::Gradient::of::<E>(gradient))
}

/// Gives the elements back that were taken out of a gradient on the CPU. Those of a GPU were
/// copied.
fn give_back<E: Dtype, D: Device<E>>(buffer: &mut Buffer<E, D>, elements: Vec<E>) {
    let buffer: &mut dyn Any = buffer;
    if let Some(gradient) = buffer.downcast_mut::<Buffer<E, Cpu>>() {
        **gradient = elements;
    }
}
