//! What an optimizer must offer to have its learning rate trained.

use super::groups::Groups;
use ::dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError},
    shapes::Dtype,
    tensor::{Gradients, HasErr},
    tensor_ops::Device,
};

/// An optimizer whose learning rates can be read and set.
///
/// Implemented for this module's optimizers, for dfdx's `Sgd`, `Adam` and `RMSprop`, and for
/// [`PerLayer`](crate::PerLayer). With it an optimizer of your own can be wrapped by
/// [`Newton`](crate::Newton); add [`Family`] and it works per layer too. One that works element by
/// element needs no more than an [`UpdateRule`](super::UpdateRule).
///
/// # Example
/// ```
/// use dfdx::{optim::*, prelude::*};
/// use std::marker::PhantomData;
/// use tlr::{TunableOptimizer, Newton, NewtonConfig};
///
/// /// w ← w − lr · g, by way of dfdx's own kernel.
/// struct Plain<M> { lr: f64, model: PhantomData<M> }
///
/// impl<M: TensorCollection<f32, Cpu> + Clone> TunableOptimizer for Plain<M> {
///     type Model = M;
///     type Dtype = f32;
///     type Device = Cpu;
///     fn rate(&self, _group: usize) -> f64 { self.lr }
///     fn set_rate(&mut self, _group: usize, rate: f64) { self.lr = rate }
///     fn reset(&mut self, _model: &M) {} // it accumulates nothing
/// }
///
/// impl<M: TensorCollection<f32, Cpu>> Optimizer<M, Cpu, f32> for Plain<M> {
///     fn update(&mut self, model: &mut M, grads: &Gradients<f32, Cpu>)
///         -> Result<(), OptimizerUpdateError<CpuError>>
///     {
///         Sgd::new(model, SgdConfig { lr: self.lr, ..Default::default() }).update(model, grads)
///     }
/// }
///
/// let dev = Cpu::default();
/// let model = dev.build_module::<Linear<4, 2>, f32>();
/// let plain = Plain { lr: 1e-3, model: PhantomData };
/// let opt = Newton::new(&model, plain, NewtonConfig::default())?;
/// assert_eq!(opt.rates(), [("model", 1e-3)]);
/// # Ok::<(), tlr::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "tlr cannot read and set the learning rate of `{Self}`",
    label = "does not implement `tlr::TunableOptimizer`",
    note = "dfdx's `Sgd`, `Adam` and `RMSprop`, and `tlr::PerLayer` around them, implement it for models that are `Clone`",
    note = "for an optimizer of your own, implement `tlr::TunableOptimizer`: three types and three short methods"
)]
pub trait TunableOptimizer:
    Optimizer<
    <Self as TunableOptimizer>::Model,
    <Self as TunableOptimizer>::Device,
    <Self as TunableOptimizer>::Dtype,
>
{
    /// The model it updates.
    type Model: TensorCollection<Self::Dtype, Self::Device> + Clone;
    /// The element type of the model's tensors.
    type Dtype: Dtype;
    /// The device the model lives on.
    type Device: Device<Self::Dtype>;

    /// The learning rate of a group. An optimizer with one rate ignores `group`, which is 0.
    fn rate(&self, group: usize) -> f64;

    /// Sets the learning rate of a group for the updates to come.
    fn set_rate(&mut self, group: usize, rate: f64);

    /// Forgets what has accumulated over the updates (momentum, moments, step counts) and keeps the
    /// hyperparameters: the next update is as a new optimizer's. Called after a rollback.
    fn reset(&mut self, model: &Self::Model);

    /// β in [0, 1): the share of an update that is left over from the one before, as by momentum or
    /// Adam's β₁. Windows are long enough for it to fade, see
    /// [`Config::memories`](crate::Config::memories). Default 0.
    fn momentum(&self) -> f64 {
        0.0
    }

    /// Whether the next update only gathers its gradients and leaves the weights alone, as all but every
    /// n-th of [`Accumulate`](super::Accumulate) do. [`Newton`](crate::Newton) counts it as no step.
    /// Default false.
    fn only_gathers(&self) -> bool {
        false
    }

    /// Forgets gradients that were only gathered, and nothing else: the step that they were for is
    /// skipped. Default nothing.
    fn drop_gathered(&mut self, model: &mut Self::Model) {
        let _ = model;
    }

    /// A copy of the gradients for [`update_owned`](Self::update_owned), with one for every trainable
    /// tensor of `model`. `None`, where the plain update needs no copy. Default `None`.
    ///
    /// dfdx's optimizers have none, and move the other weights before they tell of a missing gradient.
    /// Around such an optimizer, [`Newton`](crate::Newton) keeps the weights of every step to go back to.
    ///
    /// # Errors
    /// The tensors without a gradient, and those of the device.
    fn complete_gradients(
        &self,
        model: &Self::Model,
        gradients: &Gradients<Self::Dtype, Self::Device>,
    ) -> CompleteGradients<Self> {
        let _ = (model, gradients);
        Ok(None)
    }

    /// What an update that fails leaves behind, where there is a gradient for every trainable tensor.
    /// Default [`FailedUpdate::HalfDone`].
    fn failed_update(&self) -> FailedUpdate {
        FailedUpdate::HalfDone
    }

    /// The update by gradients that are the optimizer's own and may be changed: one copy is handed on
    /// from optimizer to optimizer, and from layer to layer. There is a gradient for every trainable
    /// tensor. Default `update`.
    ///
    /// # Errors
    /// As `update`.
    fn update_owned(
        &mut self,
        model: &mut Self::Model,
        gradients: &mut Gradients<Self::Dtype, Self::Device>,
    ) -> Result<(), OptimizerUpdateError<DeviceError<Self>>> {
        self.update(model, gradients)
    }

    /// Which tensors share a rate. One group of all of them, unless overridden.
    fn groups(&self, model: &Self::Model) -> Groups {
        let _ = model;
        Groups::one()
    }
}

/// What [`TunableOptimizer::complete_gradients`] gives.
pub type CompleteGradients<O> = Result<
    Option<Gradients<<O as TunableOptimizer>::Dtype, <O as TunableOptimizer>::Device>>,
    OptimizerUpdateError<DeviceError<O>>,
>;

/// What can go wrong on an optimizer's device.
pub(crate) type DeviceError<O> = <<O as TunableOptimizer>::Device as HasErr>::Err;

/// What an update that fails leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailedUpdate {
    /// Some weights may have moved and others not. [`Newton`](crate::Newton) keeps a copy of the weights
    /// of every step to go back to, and clears what the optimizer has accumulated.
    HalfDone,
    /// Weights and state are as they were: the optimizer has seen to it.
    Undone,
    /// None fails: once a first update has made the optimizer's buffers, only a device that is lost
    /// fails, and then there is nothing to go back to. [`Newton`](crate::Newton) keeps a copy for the
    /// first update only.
    Impossible,
}

/// An optimizer that exists for every type of layer, so that [`PerLayer`](crate::PerLayer) can hold one
/// for each.
///
/// `Sgd<Model, E, D>` belongs to the family of `Sgd<_, E, D>`: same hyperparameters, another layer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made for a single layer",
    label = "does not implement `tlr::Family`",
    note = "`tlr::PerLayer` holds one optimizer a layer, built by `Family::for_layer`; dfdx's `Sgd`, `Adam` and `RMSprop` have it"
)]
pub trait Family: TunableOptimizer {
    /// The same optimizer for a layer of type `L`.
    type For<L: TensorCollection<Self::Dtype, Self::Device> + Clone>: TunableOptimizer<
        Model = L,
        Dtype = Self::Dtype,
        Device = Self::Device,
    >;

    /// A new optimizer for `layer`, with the hyperparameters of this one and nothing accumulated.
    fn for_layer<L>(&self, layer: &L) -> Self::For<L>
    where
        L: TensorCollection<Self::Dtype, Self::Device> + Clone;
}
