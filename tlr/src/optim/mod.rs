//! Optimizers: what one must offer to have its learning rate trained, and some that can be saved as well.
//!
//! [`Sgd`], [`Adam`], [`AdamW`] and [`RMSprop`] take the steps of dfdx's to the bit and own what they accumulate, so
//! that a checkpoint holds it; dfdx's keep it to themselves. [`PerLayer`] gives any of them a rate a layer, [`Clip`]
//! clips their gradients, and [`Accumulate`] gathers those of several batches for a step.

mod accumulate;
mod adam;
mod clip;
mod dfdx;
mod elementwise;
pub(crate) mod gradients;
mod per_layer;
mod rmsprop;
mod sgd;
mod state;

pub use accumulate::Accumulate;
pub use adam::{Adam, AdamW, AdamWConfig};
pub use clip::Clip;
pub use elementwise::{Buffer, Elementwise, UpdateRule};
pub use per_layer::PerLayer;
pub use rmsprop::RMSprop;
pub use sgd::Sgd;
pub(crate) use state::join;
pub use state::{OptimizerState, Resumable, ResumableFamily};

use crate::layers::Groups;
use ::dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError},
    shapes::Dtype,
    tensor::{Gradients, HasErr},
    tensor_ops::Device,
};

/// An optimizer whose learning rates can be read and set.
///
/// Implemented for this module's optimizers, for dfdx's `Sgd`, `Adam` and `RMSprop`, and for [`PerLayer`]. With it an
/// optimizer of your own can be wrapped by [`Newton`](crate::Newton); add [`Family`] and it works per layer too. One
/// that works element by element needs no more than an [`UpdateRule`].
///
/// # Example
/// ```
/// use dfdx::{optim::*, prelude::*};
/// use std::marker::PhantomData;
/// use tlr::{LearningRate, Newton, NewtonConfig};
///
/// /// w ← w − lr · g, by way of dfdx's own kernel.
/// struct Plain<M> { lr: f64, model: PhantomData<M> }
///
/// impl<M: TensorCollection<f32, Cpu> + Clone> LearningRate for Plain<M> {
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
    label = "does not implement `tlr::LearningRate`",
    note = "dfdx's `Sgd`, `Adam` and `RMSprop`, and `tlr::PerLayer` around them, implement it for models that are `Clone`",
    note = "for an optimizer of your own, implement `tlr::LearningRate`: three types and three short methods"
)]
pub trait LearningRate:
    Optimizer<
    <Self as LearningRate>::Model,
    <Self as LearningRate>::Device,
    <Self as LearningRate>::Dtype,
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

    /// β in [0, 1): the share of an update that is left over from the one before, as by momentum or Adam's
    /// β₁. Windows are long enough for it to fade, see [`Config::memories`](crate::Config::memories).
    /// Default 0.
    fn momentum(&self) -> f64 {
        0.0
    }

    /// Whether the next update only gathers its gradients and leaves the weights alone, as all but every n-th of
    /// [`Accumulate`] do. To [`Newton`](crate::Newton) it is a part of a step, not a step. Default false.
    fn only_gathers(&self) -> bool {
        false
    }

    /// Forgets gradients that were only gathered, and nothing else: the step that they were a part of is skipped.
    /// Default nothing.
    fn drop_gathered(&mut self, model: &Self::Model) {
        let _ = model;
    }

    /// A copy of the gradients for [`update_owned`](Self::update_owned), with one for every trainable tensor of `model`. `None`, where the plain
    /// update needs no copy. Default `None`.
    ///
    /// dfdx's optimizers have none, and move the other weights before they tell of a missing gradient; around such a
    /// one, [`Newton`](crate::Newton) keeps the weights of every step to go back to.
    ///
    /// # Errors
    /// The tensors without a gradient, and those of the device.
    fn own_gradients(
        &self,
        model: &Self::Model,
        gradients: &Gradients<Self::Dtype, Self::Device>,
    ) -> OwnGradients<Self> {
        let _ = (model, gradients);
        Ok(None)
    }

    /// Whether an update with a gradient for every trainable tensor can fail with the device only. Then
    /// [`Newton`](crate::Newton) keeps no copy of the weights to go back to. Default false; dfdx's optimizers and those of this
    /// module say true.
    fn fails_with_device_only(&self) -> bool {
        false
    }

    /// The update by gradients that are the optimizer's own and may be changed: one copy is handed on from optimizer to
    /// optimizer, and from layer to layer. There is one for every trainable tensor. Default `update`.
    ///
    /// # Errors
    /// As `update`.
    fn update_owned(
        &mut self,
        model: &mut Self::Model,
        gradients: &mut Gradients<Self::Dtype, Self::Device>,
    ) -> Result<(), OptimizerUpdateError<<Self::Device as HasErr>::Err>> {
        self.update(model, gradients)
    }

    /// Which tensors share a rate. One group of all of them, unless overridden.
    fn groups(&self, model: &Self::Model) -> Groups {
        let _ = model;
        Groups::one()
    }
}

/// What [`LearningRate::own_gradients`] gives.
pub type OwnGradients<O> = Result<
    Option<Gradients<<O as LearningRate>::Dtype, <O as LearningRate>::Device>>,
    OptimizerUpdateError<<<O as LearningRate>::Device as HasErr>::Err>,
>;

/// An optimizer that exists for every type of layer, so that [`PerLayer`] can hold one for each.
///
/// `Sgd<Model, E, D>` belongs to the family of `Sgd<_, E, D>`: same hyperparameters, another layer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made for a single layer",
    label = "does not implement `tlr::Family`",
    note = "`tlr::PerLayer` holds one optimizer a layer, built by `Family::for_layer`; dfdx's `Sgd`, `Adam` and `RMSprop` have it"
)]
pub trait Family: LearningRate {
    /// The same optimizer for a layer of type `L`.
    type For<L: TensorCollection<Self::Dtype, Self::Device> + Clone>: LearningRate<
        Model = L,
        Dtype = Self::Dtype,
        Device = Self::Device,
    >;

    /// A new optimizer for `layer`, with the hyperparameters of this one and nothing accumulated.
    fn for_layer<L>(&self, layer: &L) -> Self::For<L>
    where
        L: TensorCollection<Self::Dtype, Self::Device> + Clone;
}
