//! [`UpdateRule`]: how an optimizer changes one tensor.

use super::Settings;
use crate::{
    error::Error,
    tensors::{Backend, Buffer},
};
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
/// A rule reads and writes its buffers by [`Backend::read`] and [`Backend::write`], on any device.
///
/// # Example
/// Sign descent, w ← w − lr·sign(g), without a buffer. A rule with one, Lion, is in
/// docs/guide/your-own-optimizer.md.
/// ```
/// use dfdx::prelude::*;
/// use tlr::{optim::{Buffer, Elementwise, Settings, UpdateRule}, Backend};
///
/// #[derive(Clone, Copy, Debug)]
/// struct Signs { lr: f64 }
///
/// impl UpdateRule<0> for Signs {
///     const BUFFERS: [&'static str; 0] = [];
///     fn settings(&self) -> Settings { Settings::new("signs") }
///     fn rate(&self) -> f64 { self.lr }
///     fn set_rate(&mut self, rate: f64) { self.lr = rate }
///     fn update<S: Shape, E: Dtype, D: Backend<E>>(
///         &self,
///         _step: i32,
///         parameter: &mut Tensor<S, E, D>,
///         []: &mut [Buffer<E, D>; 0],
///         gradient: &Buffer<E, D>,
///     ) -> Result<(), D::Err> {
///         let gradient = D::read(gradient, |gradient| gradient.to_vec())?;
///         let mut weights = vec![E::default(); gradient.len()];
///         parameter.copy_into(&mut weights);
///         for (w, g) in weights.iter_mut().zip(gradient) {
///             let g = g.to_f64().unwrap_or(f64::NAN);
///             let step = if g == 0.0 { 0.0 } else { self.lr * g.signum() };
///             *w -= E::from_f64(step).unwrap_or_default();
///         }
///         parameter.copy_from(&weights);
///         Ok(())
///     }
/// }
///
/// let mut w: Tensor<Rank1<3>, f32, _> = Cpu::default().tensor([3.0, -4.0, 0.0]);
/// let mut opt = Elementwise::new(&w, Signs { lr: 0.5 });
/// let gradients = w.leaky_trace().square().sum().backward();
/// opt.update(&mut w, &gradients)?;
/// assert_eq!(w.array(), [2.5, -3.5, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `UpdateRule<{N}>`: it does not say how one tensor is updated",
    label = "does not implement `tlr::optim::UpdateRule<{N}>`",
    note = "implement it for your hyperparameters, and `tlr::optim::Elementwise` is a \
        `TunableOptimizer` with one rate and a `Family` for `PerLayer`",
    note = "dfdx's `SgdConfig` is one with 1 buffer, `AdamConfig` and `tlr::optim::AdamWConfig` \
        with 2, `RMSpropConfig` with 3"
)]
pub trait UpdateRule<const N: usize>: Copy + Debug {
    /// The names of the buffers in a checkpoint. They have to differ, without a dot, and not be
    /// empty: a program with others does not compile.
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

    /// Checks the hyperparameters for weights of the type `E`. Called when a trainer is made. By
    /// default it checks nothing.
    ///
    /// # Errors
    /// Usually [`Error::OutOfRange`], as by dfdx's `AdamConfig` and `RMSpropConfig` if `eps` is not
    /// above 0 when rounded to the type in which dfdx computes.
    fn validate<E: Dtype>(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The same rule without weight decay, for a tensor that is left out of it: one in a field with
    /// `#[tlr(no_decay)]`, or a vector where
    /// [`Elementwise::decay_matrices_only`](super::Elementwise::decay_matrices_only) says so. A
    /// rule that has weight decay overrides it. By default it is the rule itself.
    fn without_decay(&self) -> Self {
        *self
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
