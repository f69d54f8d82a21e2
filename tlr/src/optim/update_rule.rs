//! [`UpdateRule`]: how an optimizer changes one tensor.

use super::Settings;
use crate::tensors::{Backend, Buffer};
use dfdx::{
    shapes::{Dtype, Shape},
    tensor::Tensor,
};
use std::fmt::Debug;

/// How an optimizer changes one tensor, element by element, with N buffers of the tensor's size.
///
/// Implement this trait, and [`Elementwise`](super::Elementwise) turns the rule into an optimizer.
/// [`Newton`](crate::Newton) can wrap that optimizer, [`PerLayer`](crate::PerLayer) can give it one
/// rate for each layer, and a checkpoint can save its state.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr::{optim::{Buffer, Elementwise, Settings, UpdateRule}, Backend};
///
/// /// w ← w − lr · sign(g), by way of Adam's kernel without memory.
/// #[derive(Clone, Copy, Debug)]
/// struct SignSgd { lr: f64 }
///
/// impl UpdateRule<2> for SignSgd {
///     const BUFFERS: [&'static str; 2] = ["gradient", "square"];
///     fn settings(&self) -> Settings { Settings::new("sign descent") }
///     fn rate(&self) -> f64 { self.lr }
///     fn set_rate(&mut self, rate: f64) { self.lr = rate }
///     fn update<S: Shape, E: Dtype, D: Backend<E>>(
///         &self,
///         _step: i32,
///         parameter: &mut Tensor<S, E, D>,
///         [gradient, square]: &mut [Buffer<E, D>; 2],
///         now: &Buffer<E, D>,
///     ) -> Result<(), D::Err> {
///         let sign = dfdx::optim::AdamConfig { lr: self.lr, betas: [0.0; 2], eps: 0.0, weight_decay: None };
///         sign.try_update(1, parameter, gradient, square, now)
///     }
/// }
///
/// let dev = Cpu::default();
/// let mut w: Tensor<Rank1<2>, f32, _> = dev.tensor([3.0, -4.0]);
/// let mut opt = Elementwise::new(&w, SignSgd { lr: 0.5 });
/// let gradients = w.leaky_trace().square().sum().backward();
/// opt.update(&mut w, &gradients)?;
/// assert_eq!(w.array(), [2.5, -3.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait UpdateRule<const N: usize>: Copy + Debug {
    /// The names of the buffers in a checkpoint.
    const BUFFERS: [&'static str; N];

    /// Whether an update cannot fail once its buffers are allocated, unless the device is lost. If
    /// `true`, no copy of weights and buffers is kept to undo a failed update. Default `false`.
    const INFALLIBLE: bool = false;

    /// The hyperparameters except the rate. A checkpoint stores them, and only an optimizer with
    /// the same hyperparameters can resume from it.
    fn settings(&self) -> Settings;

    /// The learning rate.
    fn rate(&self) -> f64;

    /// Sets the learning rate.
    fn set_rate(&mut self, rate: f64);

    /// See [`TunableOptimizer::momentum`](super::TunableOptimizer::momentum). Default 0.
    fn momentum(&self) -> f64 {
        0.0
    }

    /// Updates one tensor. `step` counts the updates from 1. The buffers hold what the update
    /// before left in them, and 0 at first.
    ///
    /// # Errors
    /// An error of the device.
    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        step: i32,
        parameter: &mut Tensor<S, E, D>,
        buffers: &mut [Buffer<E, D>; N],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err>;
}
