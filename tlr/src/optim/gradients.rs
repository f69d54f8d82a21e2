//! Gradients as an optimizer gets them: looked at, changed, and told from those that are missing.

use crate::tensors::{self, Backend, Buffer};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    optim::{Optimizer, OptimizerUpdateError, Sgd, SgdConfig},
    shapes::{Dtype, Shape},
    tensor::{Gradients, HasErr, Storage, Tensor, UniqueId},
    tensor_ops::Device,
};

/// Gradients that a step may only look at, or may change.
pub(crate) enum StepGradients<'a, E: Dtype, D: Device<E>> {
    Borrowed(&'a Gradients<E, D>),
    Owned(&'a mut Gradients<E, D>),
}

/// Zeros for each trainable tensor of `model` that has no gradient.
pub(crate) fn fill<M, E, D>(model: &M, gradients: &mut Gradients<E, D>) -> Result<(), D::Err>
where
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Device<E>,
{
    each(model, gradients, |_, _| Ok(()))
}

/// A copy of `gradients` with one for every trainable tensor of `model`, none of them invented.
///
/// dfdx shows a gradient only to who owns all of them. Hence a copy.
///
/// # Errors
/// The tensors without a gradient, and those of the device.
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
    // A missing gradient becomes one that is zero throughout.
    each(model, &mut own, |_, gradient| {
        zero = zero || D::read(gradient, |values| values.iter().all(|v| *v == E::default()))?;
        Ok(())
    })
    .map_err(OptimizerUpdateError::DeviceError)?;
    if zero {
        // Or it is there; dfdx's optimizers can tell, at the price of an update.
        let mut spare = model.clone();
        Sgd::new(&spare, SgdConfig::default()).update(&mut spare, gradients)?;
    }
    Ok(own)
}

/// Visits the gradient of each trainable tensor, in the order dfdx walks them.
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

/// Whatever is done with the gradients, so that a model's walk is compiled once.
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
        if let (true, Some(id)) = (options.do_gradient_update, tensors::id(tensor)) {
            (self.visit)(id, self.gradients.get_or_alloc_mut(tensor)?)?;
        }
        Ok(None)
    }
}
