//! Access to the gradients of a model: visit and change them, fill in or report missing ones.

use crate::{
    error::Error,
    tensors::{self, all_finite, device_error, lends, Backend, Buffer, Model, Names},
};
use dfdx::{
    optim::{OptimizerUpdateError, UnusedTensors},
    shapes::Dtype,
    tensor::{Gradients, UniqueId},
    tensor_ops::Device,
};

/// The gradients of one step. An owned set may be changed, a borrowed set may not.
pub(crate) enum StepGradients<'a, E: Dtype, D: Device<E>> {
    Borrowed(&'a Gradients<E, D>),
    Owned(&'a mut Gradients<E, D>),
}

/// Gives each trainable tensor of `model` without a gradient a gradient of zeros.
pub(crate) fn fill<E, D>(
    model: &dyn Model<E, D>,
    gradients: &mut Gradients<E, D>,
) -> Result<(), D::Err>
where
    E: Dtype,
    D: Device<E>,
{
    each(model, gradients, |_, _| Ok(()))
}

/// Copies `gradients`, after checking that every trainable tensor of `model` has one.
///
/// The copy is needed because dfdx gives access to a gradient's buffer only through a mutable
/// reference to the whole set.
///
/// # Errors
/// The tensors without a gradient, or an error of the device.
pub(crate) fn complete<E, D>(
    model: &dyn Model<E, D>,
    gradients: &Gradients<E, D>,
) -> Result<Gradients<E, D>, OptimizerUpdateError<D::Err>>
where
    E: Dtype,
    D: Backend<E>,
{
    let mut own = gradients.clone();
    // `each` gives a tensor without a gradient one of zeros. So a zero gradient may be a missing
    // one. On a GPU each may be: to read it there, the host would wait for all that was launched.
    let mut suspicious = !lends::<E, D>();
    each(model, &mut own, |_, gradient| {
        if !suspicious {
            suspicious = D::read(gradient, |values| values.iter().all(|v| *v == E::default()))?;
        }
        Ok(())
    })
    .map_err(OptimizerUpdateError::DeviceError)?;
    if suspicious {
        check(model, gradients)?;
    }
    Ok(own)
}

/// Checks that every trainable tensor of `model` has a gradient, but for those of a field with
/// `#[tlr(untrained)]`.
///
/// # Errors
/// The tensors without a gradient, or an error of the device.
pub(crate) fn check<E, D>(
    model: &dyn Model<E, D>,
    gradients: &Gradients<E, D>,
) -> Result<(), OptimizerUpdateError<D::Err>>
where
    E: Dtype,
    D: Device<E>,
{
    let (mut unused, mut failed) = (UnusedTensors::default(), None);
    model.look(Names::Untold, &mut |mut seen| {
        if !seen.trainable || failed.is_some() {
            return;
        }
        match seen.has_gradient(gradients) {
            Ok(true) => (),
            Ok(false) => unused.ids.extend(seen.tensor().id()),
            Err(error) => failed = Some(error),
        }
    });
    failed.map_or_else(|| unused.into(), |error| Err(OptimizerUpdateError::DeviceError(error)))
}

/// Whether the gradients of all trainable tensors are finite.
pub(crate) fn are_finite<E, D>(
    model: &dyn Model<E, D>,
    gradients: &mut Gradients<E, D>,
) -> Result<bool, D::Err>
where
    E: Dtype,
    D: Backend<E>,
{
    let mut finite = true;
    each(model, gradients, |_, gradient| {
        finite &= D::read(gradient, all_finite)?;
        Ok(())
    })?;
    Ok(finite)
}

/// Calls `visit` on the gradient of each trainable tensor, in the order in which dfdx walks them.
pub(crate) fn each<E, D>(
    model: &dyn Model<E, D>,
    gradients: &mut Gradients<E, D>,
    mut visit: impl FnMut(UniqueId, &mut Buffer<E, D>) -> Result<(), D::Err>,
) -> Result<(), D::Err>
where
    E: Dtype,
    D: Device<E>,
{
    let mut visited = Ok(());
    model.look(Names::Untold, &mut |seen| {
        let tensor = seen.tensor();
        if let (true, true, Some(id)) = (visited.is_ok(), seen.trainable, tensor.id()) {
            visited = tensor.gradient(gradients).and_then(|gradient| visit(id, gradient));
        }
    });
    visited
}

/// The error of an update or a check as this crate's, with the names of the tensors.
pub(crate) fn to_error<E, D>(model: &dyn Model<E, D>, error: &OptimizerUpdateError<D::Err>) -> Error
where
    E: Dtype,
    D: Device<E>,
{
    match error {
        OptimizerUpdateError::DeviceError(error) => device_error(error.to_string(), error),
        OptimizerUpdateError::UnusedParams(unused) => {
            let tensors = tensors::list(model).into_iter();
            let tensors = tensors.filter(|tensor| unused.ids.contains(&tensor.id));
            Error::UnusedParameters { tensors: tensors.map(|tensor| tensor.name).collect() }
        }
    }
}
