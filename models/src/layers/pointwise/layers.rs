//! The rectifier and the identity as layers.

use crate::layers::{Kernels, LayerError};
use dfdx::{
    nn::{Module, NonMutableModule, ZeroSizedModule},
    prelude::{Device, Dtype, Shape, Tape, Tensor},
};
use tlr::TrainableLr;

/// The rectifier `max(x, 0)` for tensors of any shape; its derivative at 0 is 0.
///
/// It does what dfdx's `ReLU` does. It has this crate's error, so that it can stand in a tuple with
/// this crate's layers, and on the CPU it uses all threads.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::Relu;
///
/// let dev = Cpu::default();
/// assert_eq!(Relu.forward(dev.tensor([-1.0, 0.0, 2.0])).array(), [0.0, 0.0, 2.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, TrainableLr)]
pub struct Relu;

impl ZeroSizedModule for Relu {}
impl NonMutableModule for Relu {}

impl<S: Shape, E: Dtype, D: Kernels<E>, T: Tape<E, D>> Module<Tensor<S, E, D, T>> for Relu {
    type Output = Tensor<S, E, D, T>;
    type Error = LayerError<D::Err>;

    fn try_forward(&self, x: Tensor<S, E, D, T>) -> Result<Self::Output, Self::Error> {
        Ok(D::try_rectify(x)?)
    }
}

/// Returns its input: the shortcut of a block that does not change the shape.
#[derive(Clone, Copy, Debug, Default, TrainableLr)]
pub struct Identity;

impl ZeroSizedModule for Identity {}
impl NonMutableModule for Identity {}

impl<S: Shape, E: Dtype, D: Device<E>, T: Tape<E, D>> Module<Tensor<S, E, D, T>> for Identity {
    type Output = Tensor<S, E, D, T>;
    type Error = LayerError<D::Err>;

    fn try_forward(&self, x: Tensor<S, E, D, T>) -> Result<Self::Output, Self::Error> {
        Ok(x)
    }
}
