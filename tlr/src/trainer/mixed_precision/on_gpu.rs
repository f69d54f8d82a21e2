//! The copies between a model and its master where both are in a GPU's memory. Each function says
//! whether it has done its work. If not, it has changed nothing, and the caller copies by way of
//! the host.

use super::master::{failed, Unscaled};
use crate::{
    error::Error,
    optim,
    snapshots::convert::{on_gpu, Converter, Transfer},
    tensors::{self, Backend, Model},
};
use dfdx::{
    shapes::Dtype,
    tensor::{Cuda, Gradients, UniqueId},
    tensor_ops::Device,
};
use std::any::TypeId;

#[cfg(test)]
thread_local! {
    /// Whether all is left to the host's way.
    static BY_HOST: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn is_here<D: 'static>() -> bool {
    #[cfg(test)]
    if BY_HOST.get() {
        return false;
    }
    TypeId::of::<D>() == TypeId::of::<Cuda>()
}

/// The gradients of `model` times `factor`, as those of its master. `None` on the CPU, and if these
/// are not the tensors with the `expected` identities.
pub(super) fn unscale<E, D>(
    converter: &mut Converter,
    (model, master): (&dyn Model<E, D>, &dyn Model<f32, D>),
    gradients: &Gradients<E, D>,
    expected: &[UniqueId],
    factor: f32,
) -> Result<Option<Unscaled<D>>, Error>
where
    E: Dtype,
    D: Backend<E> + Backend<f32>,
{
    if !is_here::<D>() {
        return Ok(None);
    }
    // dfdx shows a gradient's memory only to who may change the whole set.
    let mut scaled = gradients.clone();
    let (mut ids, mut from) = (Vec::new(), Vec::new());
    let read = optim::gradients::each(model, &mut scaled, |id, gradient| {
        ids.push(id);
        from.extend(on_gpu::<E, D>(gradient));
        Ok(())
    });
    read.map_err(failed)?;
    let (mut own, mut to) = (Gradients::leaky(), Vec::new());
    let made = optim::gradients::each(master, &mut own, |_, gradient| {
        to.extend(on_gpu::<f32, D>(gradient));
        Ok(())
    });
    made.map_err(failed)?;
    let same_sizes = from.len() == to.len() && from.iter().zip(&to).all(|(a, b)| a.len == b.len);
    let Some(first) = from.first().filter(|_| ids == expected && same_sizes) else {
        return Ok(None);
    };
    let copies = from.iter().zip(&to);
    let copies: Vec<_> = copies
        .map(|(from, to)| Transfer { from: from.address, to: to.address, len: to.len })
        .collect();
    // SAFETY: `scaled` holds the sources until the kernel has been waited for. `own` is new, so
    // that nothing else has its memory.
    #[allow(unsafe_code)]
    let seen = unsafe { converter.unscale::<E>(first.device.clone(), &copies, factor) }?;
    let Some(seen) = seen else { return Ok(None) };
    if seen.iter().any(|seen| seen.is_zero) {
        // dfdx has made one of zeros where there was none.
        let checked = optim::gradients::check(model, gradients);
        checked.map_err(|error| optim::gradients::to_error(model, &error))?;
    }
    let are_finite = Some(seen.iter().all(|seen| seen.is_finite));
    Ok(Some(Unscaled { gradients: own, are_finite }))
}

/// Copies the model's buffers to its master. `false` if they have to go by way of the host.
pub(super) fn widen<E, D>(
    converter: &mut Converter,
    model: &dyn Model<E, D>,
    master: &mut dyn Model<f32, D>,
) -> bool
where
    E: Dtype,
    D: Device<E> + Device<f32>,
{
    // SAFETY: the addresses are those of tensors of these types, and the master's have their memory
    // for themselves. Both models are there, and dfdx changes them later in the same stream.
    #[allow(unsafe_code)]
    let copy = |copies: &[Transfer]| unsafe { converter.widen::<E>(copies) };
    copied::<E, f32, D>(model, master, false, copy)
}

/// Copies the master's buffers, and the weights too if `weights` is set, to the model, rounded.
/// `false` if they have to go by way of the host.
pub(super) fn narrow<E, D>(
    converter: &mut Converter,
    master: &dyn Model<f32, D>,
    model: &mut dyn Model<E, D>,
    weights: bool,
) -> bool
where
    E: Dtype,
    D: Device<E> + Device<f32>,
{
    // SAFETY: as for `widen`, with the model in the master's place.
    #[allow(unsafe_code)]
    let copy = |copies: &[Transfer]| unsafe { converter.narrow::<E>(copies) };
    copied::<f32, E, D>(master, model, weights, copy)
}

/// Hands the addresses of the tensors to `copy`.
fn copied<E, F, D>(
    from: &dyn Model<E, D>,
    to: &mut dyn Model<F, D>,
    weights: bool,
    copy: impl FnOnce(&[Transfer]) -> Result<bool, Error>,
) -> bool
where
    E: Dtype,
    F: Dtype,
    D: Device<E> + Device<F>,
{
    if !is_here::<D>() {
        return false;
    }
    let mut sources = Vec::new();
    tensors::read(from, |tensor| {
        if (weights || !tensor.trainable) && tensor.len() > 0 {
            sources.push((tensor.address(tensor.len()), tensor.len()));
        }
    });
    if sources.is_empty() {
        return true;
    }
    if sources.iter().any(|(address, _)| address.is_none()) {
        return false;
    }
    let places =
        tensors::writable_addresses(to, |trainable, len| (weights || !trainable) && len > 0);
    let copies = sources.iter().zip(&places).map(|(source, place)| {
        let ((from, len), (to, room)) = (source, place);
        Some(Transfer { from: (*from)?, to: (*to)?, len: *len }).filter(|_| len == room)
    });
    let all = copies.collect::<Option<Vec<_>>>().filter(|all| all.len() == places.len());
    let Some(all) = all else { return false };
    // The host's way meets the same error, or writes all that was to be written.
    copy(&all).unwrap_or_else(|error| {
        tracing::debug!(%error, "tensors are copied by way of the host");
        false
    })
}

#[cfg(all(test, feature = "f16", target_os = "linux"))]
mod tests;
