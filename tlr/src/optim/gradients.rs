//! Access to the gradients of a model: visit and change them, fill in or report missing ones.

use crate::tensors::{self, all_finite, Backend, Buffer};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    optim::{Optimizer, OptimizerUpdateError, Sgd, SgdConfig},
    shapes::{Dtype, Shape},
    tensor::{Gradients, HasErr, Storage, Tensor, UniqueId},
    tensor_ops::Device,
};

/// The gradients of one step. An owned set may be changed, a borrowed set may not.
pub(crate) enum StepGradients<'a, E: Dtype, D: Device<E>> {
    Borrowed(&'a Gradients<E, D>),
    Owned(&'a mut Gradients<E, D>),
}

/// Gives each trainable tensor of `model` without a gradient a gradient of zeros.
pub(crate) fn fill<M, E, D>(model: &M, gradients: &mut Gradients<E, D>) -> Result<(), D::Err>
where
    M: TensorCollection<E, D>,
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
pub(crate) fn complete<M, E, D>(
    model: &M,
    gradients: &Gradients<E, D>,
) -> Result<Gradients<E, D>, OptimizerUpdateError<D::Err>>
where
    M: TensorCollection<E, D> + Clone,
    E: Dtype,
    D: Backend<E>,
{
    let mut own = gradients.clone();
    let mut zero = false;
    // `each` gives a tensor without a gradient one of zeros. So a zero gradient may be a missing
    // one.
    each(model, &mut own, |_, gradient| {
        zero = zero || D::read(gradient, |values| values.iter().all(|v| *v == E::default()))?;
        Ok(())
    })
    .map_err(OptimizerUpdateError::DeviceError)?;
    if zero {
        check(model, gradients)?;
    }
    Ok(own)
}

/// Checks that every trainable tensor of `model` has a gradient, but for those of a field with
/// `#[tlr(untrained)]`.
///
/// # Errors
/// The tensors without a gradient, or an error of the device.
pub(crate) fn check<M, E, D>(
    model: &M,
    gradients: &Gradients<E, D>,
) -> Result<(), OptimizerUpdateError<D::Err>>
where
    M: TensorCollection<E, D> + Clone,
    E: Dtype,
    D: Device<E>,
{
    // dfdx panics if it reads a missing gradient. Only an update of a dfdx optimizer can tell, to
    // which `#[tlr(untrained)]` means nothing.
    let mut spare = model.clone();
    match Sgd::new(&spare, SgdConfig::default()).update(&mut spare, gradients) {
        Err(OptimizerUpdateError::UnusedParams(mut unused)) => {
            let tensors = tensors::list(model).into_iter();
            let trained: Vec<_> = tensors.filter(|t| t.trainable).map(|t| t.id).collect();
            unused.ids.retain(|id| trained.contains(id));
            unused.into()
        }
        updated => updated,
    }
}

/// Whether the gradients of all trainable tensors are finite.
pub(crate) fn are_finite<M, E, D>(
    model: &M,
    gradients: &mut Gradients<E, D>,
) -> Result<bool, D::Err>
where
    M: TensorCollection<E, D>,
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
pub(crate) fn each<M, E, D>(
    model: &M,
    gradients: &mut Gradients<E, D>,
    mut visit: impl FnMut(UniqueId, &mut Buffer<E, D>) -> Result<(), D::Err>,
) -> Result<(), D::Err>
where
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Device<E>,
{
    let mut each = Each { gradients, visit: &mut visit };
    M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut each }).map(|_| ())
}

/// A visitor that calls a `dyn` closure, so that a model's walk is compiled once for all uses.
struct Each<'a, E: Dtype, D: Storage<E>> {
    gradients: &'a mut Gradients<E, D>,
    visit: &'a mut Visit<'a, E, D>,
}

type Visit<'a, E, D> =
    dyn FnMut(UniqueId, &mut Buffer<E, D>) -> Result<(), <D as HasErr>::Err> + 'a;

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for Each<'_, E, D> {
    type Viewer = ViewTensorRef;
    type Err = D::Err;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        tensor: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, E, D>>, D::Err> {
        if let (true, Some(id)) = (tensors::is_trained(&options), tensors::id(tensor)) {
            (self.visit)(id, self.gradients.get_or_alloc_mut(tensor)?)?;
        }
        Ok(None)
    }
}
