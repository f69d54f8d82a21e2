//! The paper's perceptron.

use crate::layers::{Kernels, LinearOptions};
use dfdx::{
    nn::{modules, Module, NonMutableModule},
    prelude::{Const, Device, Dim, Dtype, ReLU, Tape, Tensor},
};
use tlr::{TensorCollection, TrainableLr};

/// A perceptron with one hidden layer of rectified units: the paper's model for MNIST at
/// 784-1000-10.
///
/// Maps `(batch, IN)` to `(batch, OUT)` logits. Its layers are `hidden` and `head`. The input is
/// data: it need not get a gradient.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::Mlp;
///
/// let dev = Cpu::default();
/// let model = Mlp::<784, 1000, 10, f32, Cpu>::build(&dev);
/// assert_eq!(model.num_trainable_params(), 795_010);
/// let logits = model.forward(dev.zeros::<Rank2<3, 784>>());
/// assert_eq!(*logits.shape(), (Const, Const));
/// ```
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Mlp<const IN: usize, const HIDDEN: usize, const OUT: usize, E: Dtype, D: Device<E>> {
    /// `IN` → `HIDDEN`.
    pub hidden: modules::Linear<IN, HIDDEN, E, D>,
    /// Rectifies the hidden units.
    pub act: ReLU,
    /// `HIDDEN` → `OUT`.
    pub head: modules::Linear<HIDDEN, OUT, E, D>,
}

impl<const IN: usize, const HIDDEN: usize, const OUT: usize, E: Dtype, D: Device<E>>
    NonMutableModule for Mlp<IN, HIDDEN, OUT, E, D>
{
}

impl<B, const IN: usize, const HIDDEN: usize, const OUT: usize, E, D, T>
    Module<Tensor<(B, Const<IN>), E, D, T>> for Mlp<IN, HIDDEN, OUT, E, D>
where
    B: Dim,
    E: Dtype,
    D: Kernels<E>,
    T: Tape<E, D>,
{
    type Output = Tensor<(B, Const<OUT>), E, D, T>;
    type Error = D::Err;

    fn try_forward(&self, x: Tensor<(B, Const<IN>), E, D, T>) -> Result<Self::Output, D::Err> {
        let hidden = LinearOptions { relu: true, input_gradient: false };
        let hidden = D::try_linear(x, &self.hidden.weight, &self.hidden.bias, hidden)?;
        D::try_linear(hidden, &self.head.weight, &self.head.bias, LinearOptions::default())
    }
}
