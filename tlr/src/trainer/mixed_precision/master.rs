//! The master of a model in half precision: how it is made, and what is copied between the two.

use crate::{
    error::Error,
    tensors::{self, device_error, Backend, Model},
};
use dfdx::{
    nn::{TensorOptions, TensorVisitor, ViewTensorRef},
    shapes::{Dtype, HasShape, Shape},
    tensor::{Gradients, HasErr, Tensor, TensorFromVec},
    tensor_ops::Device,
};
use std::fmt::Display;

/// The gradients of a master.
pub(super) struct Unscaled<D: Backend<f32>> {
    pub(super) gradients: Gradients<f32, D>,
    /// Whether all are finite, if somebody has looked.
    pub(super) are_finite: Option<bool>,
}

pub(super) fn failed(error: impl Display + 'static) -> Error {
    device_error(error.to_string(), &error)
}

/// Copies the buffers, and the weights too if `weights` is set, between two models of the same
/// shape and different element types.
pub(super) fn copy<E, F, D>(from: &dyn Model<E, D>, to: &mut dyn Model<F, D>, weights: bool)
where
    E: Dtype,
    F: Dtype,
    D: Device<E> + Device<F>,
{
    let mut values = Vec::new();
    tensors::read(from, |tensor| {
        if weights || !tensor.trainable {
            values.push(tensor.to_vec());
        }
    });
    let mut values = values.iter();
    tensors::write(to, |trainable, _| {
        if trainable && !weights {
            return None;
        }
        let rounded = |value: &E| F::from_f32(to_f32(value)).unwrap_or_default();
        Some(values.next()?.iter().map(rounded).collect())
    });
}

/// The elements of all buffers.
pub(super) fn buffers<E: Dtype, D: Device<E>>(model: &dyn Model<E, D>) -> Vec<Vec<E>> {
    let mut buffers = Vec::new();
    tensors::read(model, |tensor| {
        if !tensor.trainable {
            buffers.push(tensor.to_vec());
        }
    });
    buffers
}

/// Puts back what [`buffers`] has read.
pub(super) fn set_buffers<E: Dtype, D: Device<E>>(
    model: &mut dyn Model<E, D>,
    buffers: Vec<Vec<E>>,
) {
    let mut buffers = buffers.into_iter();
    tensors::write(model, |trainable, _| {
        (!trainable).then(|| buffers.next()).flatten().map(Into::into)
    });
}

/// Builds a copy of the model in f32.
pub(super) struct Widen;

impl<E: Dtype, D: Device<E> + Device<f32>> TensorVisitor<E, D> for Widen {
    type Viewer = ViewTensorRef;
    type Err = <D as HasErr>::Err;
    type E2 = f32;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        tensor: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, f32, D>>, Self::Err> {
        let values: Vec<f32> = tensors::values(tensor).iter().map(to_f32).collect();
        let device: D = tensor.device().clone();
        Ok(Some(TensorFromVec::<f32>::try_tensor_from_vec(&device, values, *tensor.shape())?))
    }
}

pub(super) fn to_f32<E: Dtype>(value: &E) -> f32 {
    value.to_f32().unwrap_or(f32::NAN)
}
