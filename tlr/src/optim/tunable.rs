//! [`TunableOptimizer`]: what an optimizer must implement to have its learning rate trained.

use super::{groups::Groups, shards::Shards, step_figures::StepFigures};
use crate::error::Error;
use ::dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError},
    shapes::Dtype,
    tensor::{Gradients, HasErr},
    tensor_ops::Device,
};

/// An optimizer whose learning rates can be read and set.
///
/// Implemented for the optimizers of [`tlr::optim`](crate::optim), for dfdx's `Sgd`, `Adam` and
/// `RMSprop`, and for [`PerLayer`](crate::PerLayer). Implement it for an optimizer of your own, and
/// [`Newton`](crate::Newton) can wrap it. Implement [`Family`] as well, and the optimizer works per
/// layer. An optimizer that works element by element needs only an
/// [`UpdateRule`](super::UpdateRule). One that wraps another optimizer hands on to it all methods
/// that it has no code of its own for: [`forward!`](super::forward!) writes them.
///
/// # Example
/// What any of them can do. One of your own is made in docs/guide/your-own-optimizer.md.
/// ```
/// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
/// use tlr::TunableOptimizer;
///
/// fn halve<Opt: TunableOptimizer>(optimizer: &mut Opt) {
///     optimizer.set_rate(0, 0.5 * optimizer.rate(0));
/// }
///
/// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let mut sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
/// halve(&mut sgd);
/// assert_eq!(sgd.cfg.lr, 5e-4);
/// ```
#[diagnostic::on_unimplemented(
    message = "tlr cannot read and set the learning rate of `{Self}`",
    label = "does not implement `tlr::TunableOptimizer`",
    note = "dfdx's `Sgd`, `Adam` and `RMSprop`, and `tlr::PerLayer` around them, implement it for \
        models that are `Clone`",
    note = "for an optimizer of your own, implement `tlr::TunableOptimizer`: three types and \
        three short methods"
)]
pub trait TunableOptimizer:
    Optimizer<
    <Self as TunableOptimizer>::Model,
    <Self as TunableOptimizer>::Device,
    <Self as TunableOptimizer>::Dtype,
>
{
    /// The model that the optimizer updates.
    type Model: TensorCollection<Self::Dtype, Self::Device> + Clone;
    /// The element type of the model's tensors.
    type Dtype: Dtype;
    /// The device of the model.
    type Device: Device<Self::Dtype>;

    /// The learning rate of a group. An optimizer with a single rate ignores `group`: there is only
    /// group 0 then.
    fn rate(&self, group: usize) -> f64;

    /// Sets the learning rate of a group for all later updates.
    fn set_rate(&mut self, group: usize, rate: f64);

    /// Clears everything accumulated over past updates (momentum, moments, step counts) and keeps
    /// the hyperparameters. The next update is then that of a new optimizer. Called after a
    /// rollback, and where the [`ramp`](crate::Config::ramp) ends if steps were as long as the
    /// gradients.
    fn reset(&mut self, model: &Self::Model);

    /// β in [0, 1): the fraction of an update that carries over from the update before, such as the
    /// momentum or Adam's β₁. A window is made long enough for this memory to fade: see
    /// [`Config::momentum_spans`](crate::Config::momentum_spans). Default 0.
    fn momentum(&self) -> f64 {
        0.0
    }

    /// Checks the hyperparameters. Called when a trainer is made. By default it checks nothing.
    ///
    /// # Errors
    /// What is out of range, and what to do. The trainer is then not made.
    fn validate(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Whether the optimizer follows the attributes of fields, as
    /// [`Elementwise`](super::Elementwise) does. It then leaves the tensors of a field with
    /// `#[tlr(untrained)]` alone, and does not decay those of a field with `#[tlr(no_decay)]`.
    /// Around an optimizer that does not follow them, a trainer refuses a model with such a field.
    /// Default `false`.
    fn follows_attributes(&self) -> bool {
        false
    }

    /// Whether the next update only gathers its gradients and leaves the weights alone.
    /// [`Accumulate`](super::Accumulate) does so in all updates but every n-th.
    /// [`Newton`](crate::Newton) does not count such an update as a step. Default `false`.
    fn only_gathers(&self) -> bool {
        false
    }

    /// Drops gathered gradients and keeps all other state. Called when the step that the gradients
    /// were gathered for is skipped. By default it does nothing.
    fn drop_gathered(&mut self, model: &mut Self::Model) {
        let _ = model;
    }

    /// Keeps a copy of all that was accumulated, until [`end_trial`](Self::end_trial) is called:
    /// the next update may have to be taken back. An exact step, such as
    /// [`step_lookahead`](crate::Trainer::step_lookahead), begins with such an update.
    ///
    /// Returns whether there is a copy. Without one the optimizer is [reset](Self::reset) if the
    /// step fails. Default `false`: dfdx's optimizers have no place for a copy.
    fn begin_trial(&mut self, model: &mut Self::Model) -> bool {
        let _ = model;
        false
    }

    /// Drops the copy of [`begin_trial`](Self::begin_trial), if it has returned `true`. Unless
    /// `made`, puts it back first: the updates since then are not made. By default it does nothing.
    fn end_trial(&mut self, model: &mut Self::Model, made: bool) {
        let _ = (model, made);
    }

    /// Copies the gradients for [`update_owned`](Self::update_owned), after checking that every
    /// trainable tensor of `model` has one. An optimizer whose `update` does without such a copy
    /// returns `None`, which is the default.
    ///
    /// dfdx's optimizers return `None`: they move the other weights before they report a missing
    /// gradient. Around such an optimizer, [`Newton`](crate::Newton) copies the weights before
    /// every step, to restore them after a failure.
    ///
    /// # Errors
    /// The tensors without a gradient, or an error of the device.
    fn complete_gradients(
        &self,
        model: &Self::Model,
        gradients: &Gradients<Self::Dtype, Self::Device>,
    ) -> CompleteGradients<Self> {
        let _ = (model, gradients);
        Ok(None)
    }

    /// What a failed update leaves behind, provided that every trainable tensor has a gradient.
    /// Default [`FailedUpdate::HalfDone`].
    fn failed_update(&self) -> FailedUpdate {
        FailedUpdate::HalfDone
    }

    /// Updates the model by gradients that the optimizer may change. Nested optimizers, and the
    /// optimizers of all layers, share one copy of the gradients in this way. Every trainable
    /// tensor has a gradient. By default it calls `update`.
    ///
    /// # Errors
    /// The errors of `update`: a gradient is missing, or the device has failed.
    fn update_owned(
        &mut self,
        model: &mut Self::Model,
        gradients: &mut Gradients<Self::Dtype, Self::Device>,
    ) -> Result<(), OptimizerUpdateError<ErrOf<Self>>> {
        self.update(model, gradients)
    }

    /// Whether gradients and losses are averaged over several ranks before anything else sees them,
    /// as [`DataParallel`](crate::DataParallel) does. Default `false`.
    fn averages_over_ranks(&self) -> bool {
        false
    }

    /// Replaces this rank's gradients and figures by those of all ranks together.
    ///
    /// If [`averages_over_ranks`](Self::averages_over_ranks) is true, [`Newton`](crate::Newton)
    /// calls it once for each set of gradients, before it decides anything by them. `gradients` are
    /// those of all trainable tensors. A rank that has none because of an error passes the error,
    /// so that the other ranks learn of it. By default it does nothing.
    ///
    /// # Errors
    /// [`Error::Parallel`], on all ranks.
    fn average_over_ranks(
        &mut self,
        model: &Self::Model,
        gradients: Result<&mut Gradients<Self::Dtype, Self::Device>, Error>,
        figures: &mut StepFigures,
    ) -> Result<(), Error> {
        let _ = (model, gradients, figures);
        Ok(())
    }

    /// Treats the next gradients as not averaged yet, even if those of the last
    /// [`average_over_ranks`](Self::average_over_ranks) were never used.
    /// [`Newton`](crate::Newton) calls it when it gives the optimizer away. By default it does
    /// nothing.
    fn end_averaging(&mut self) {}

    /// The ranks over which a trainer shares out its snapshots, if it does:
    /// [`DataParallel::shard_snapshots`](crate::DataParallel::shard_snapshots). Default `None`.
    fn shards(&self) -> Option<&dyn Shards> {
        None
    }

    /// Which tensors share a rate. By default all tensors form one group, and there is no other way
    /// to make a `Groups` outside of this crate: a rate for each layer is what
    /// [`PerLayer`](crate::PerLayer) is for.
    fn groups(&self, model: &Self::Model) -> Groups {
        let _ = model;
        Groups::one()
    }
}

/// The return type of [`TunableOptimizer::complete_gradients`].
///
/// Example: [`forward!`](super::forward!), which writes that method.
pub type CompleteGradients<O> = Result<
    Option<Gradients<<O as TunableOptimizer>::Dtype, <O as TunableOptimizer>::Device>>,
    OptimizerUpdateError<ErrOf<O>>,
>;

/// The error type of an optimizer's device.
pub(crate) type ErrOf<O> = <<O as TunableOptimizer>::Device as HasErr>::Err;

/// What a failed update leaves behind.
///
/// # Example
/// ```
/// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
/// use tlr::{optim::{self, FailedUpdate}, TunableOptimizer};
///
/// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let dfdxs = Sgd::new(&model, SgdConfig::default());
/// let ours: optim::Sgd<_, f32, Cpu> = optim::Sgd::new(&model, SgdConfig::default());
/// // With every gradient there, neither leaves half an update behind.
/// assert_eq!(dfdxs.failed_update(), FailedUpdate::Impossible);
/// assert_ne!(ours.failed_update(), FailedUpdate::HalfDone);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailedUpdate {
    /// Some weights may have moved and others not. [`Newton`](crate::Newton) copies the weights
    /// before every step, restores them after a failure, and resets the optimizer.
    HalfDone,
    /// Weights and state are as they were before the update. The optimizer restores them itself.
    Undone,
    /// An update cannot fail once the first update has allocated the optimizer's buffers, except
    /// when the device is lost, and then no weights are left to restore. [`Newton`](crate::Newton)
    /// copies the weights before the first update only.
    Impossible,
}

/// An optimizer type that exists for every type of layer. [`PerLayer`](crate::PerLayer) can then
/// hold one optimizer for each layer.
///
/// For example, `Sgd<Model, E, D>` belongs to the family of all `Sgd<_, E, D>`. Its members have
/// the same hyperparameters and different layers.
///
/// # Example
/// ```
/// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
/// use tlr::{Family, TunableOptimizer};
///
/// let model = Cpu::default().build_module::<(Linear<4, 8>, ReLU, Linear<8, 2>), f32>();
/// let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
/// let of_head: Sgd<modules::Linear<8, 2, f32, Cpu>, f32, Cpu> = sgd.for_layer(&model.2);
/// assert_eq!(of_head.rate(0), sgd.rate(0));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made for a single layer, and `tlr::PerLayer` holds one \
        optimizer for each",
    label = "does not implement `tlr::Family`",
    note = "for an optimizer of your own: implement `tlr::Family`, one type and one short method; \
        or write a `tlr::optim::UpdateRule`, of which `tlr::optim::Elementwise` makes an \
        optimizer that has it",
    note = "with one rate for the whole model, leave `PerLayer` out",
    note = "the optimizers of `tlr::optim` and dfdx's `Sgd`, `Adam` and `RMSprop` implement it"
)]
pub trait Family: TunableOptimizer {
    /// The member of the family for a layer of type `L`.
    type For<L: TensorCollection<Self::Dtype, Self::Device> + Clone>: TunableOptimizer<
        Model = L,
        Dtype = Self::Dtype,
        Device = Self::Device,
    >;

    /// Makes an optimizer for `layer`, with the hyperparameters of this one and nothing
    /// accumulated.
    fn for_layer<L>(&self, layer: &L) -> Self::For<L>
    where
        L: TensorCollection<Self::Dtype, Self::Device> + Clone;
}
