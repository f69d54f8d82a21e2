//! Walks over the tensors of a model, from outside dfdx.

use dfdx::{
    nn::{
        RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorName,
        ViewTensorRef,
    },
    optim::UnusedTensors,
    shapes::{Dtype, HasShape, Shape},
    tensor::{Tensor, UniqueId},
    tensor_ops::{Device, ReshapeTo},
};
use std::convert::Infallible;

/// A tensor of a model, in the order dfdx walks them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorInfo {
    pub(crate) id: UniqueId,
    /// Path of the field: `hidden.weight`.
    pub(crate) name: String,
    pub(crate) len: usize,
    pub(crate) shape: Vec<usize>,
    /// Updated with gradients; otherwise a buffer, such as a running mean.
    pub(crate) trainable: bool,
    pub(crate) contiguous: bool,
}

/// All tensors of `model`, in order.
pub(crate) fn list<E: Dtype, D: Device<E>, M: TensorCollection<E, D>>(
    model: &M,
) -> Vec<TensorInfo> {
    let mut tensors = List(Vec::new());
    let walk = M::iter_tensors(&mut RecursiveWalker { m: (model, String::new()), f: &mut tensors });
    let Ok(_) = walk;
    tensors.0
}

/// The identity dfdx gives a tensor. Its getter is private; the list of unused tensors takes it down.
pub(crate) fn id<S: Shape, E: Dtype, D: Device<E>>(tensor: &Tensor<S, E, D>) -> Option<UniqueId> {
    let mut ids = UnusedTensors::default();
    ids.add(tensor);
    ids.ids.pop()
}

/// The dimensions of a tensor, outermost first.
pub(crate) fn dimensions<S: Shape, E: Dtype, D: Device<E>>(tensor: &Tensor<S, E, D>) -> Vec<usize> {
    tensor.shape().concrete().into_iter().collect()
}

/// The elements of a contiguous tensor.
pub(crate) fn values<S: Shape, E: Dtype, D: Device<E>>(tensor: &Tensor<S, E, D>) -> Vec<E> {
    let mut values = vec![E::default(); tensor.shape().num_elements()];
    tensor.copy_into(&mut values);
    values
}

struct List(Vec<TensorInfo>);

impl<E: Dtype, D: Device<E>> TensorVisitor<E, D> for List {
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = Infallible;
    type E2 = E;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, E, D>,
        (tensor, name): (&Tensor<S, E, D>, String),
    ) -> Result<Option<Tensor<S, E, D>>, Infallible> {
        let Some(own) = id(tensor) else { return Ok(None) };
        self.0.push(TensorInfo {
            id: own,
            // A bare tensor has no name of its own below that of its field.
            name: name.trim_end_matches('.').to_owned(),
            len: tensor.shape().num_elements(),
            shape: dimensions(tensor),
            trainable: options.do_gradient_update,
            // dfdx hides the strides; making a tensor contiguous keeps its identity if it is.
            contiguous: tensor.clone().try_contiguous().is_ok_and(|t| id(&t) == Some(own)),
        });
        Ok(None)
    }
}
