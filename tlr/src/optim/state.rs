//! What an optimizer has accumulated, on its way to a checkpoint and back.

use super::{DeviceError, Family, Settings, TunableOptimizer};
use crate::tensors::{join, Stored};
use dfdx::nn::TensorCollection;
use std::collections::BTreeMap;

/// An optimizer that can be saved with a checkpoint and resumed to the bit.
///
/// Implemented for the optimizers of [`tlr::optim`](crate::optim), for any [`UpdateRule`](super::UpdateRule) by
/// [`Elementwise`](super::Elementwise), and for [`PerLayer`](crate::PerLayer) around them. An optimizer made of others
/// hands both calls on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be saved: it keeps what it has accumulated to itself",
    label = "does not implement `tlr::optim::Resumable`",
    note = "in place of dfdx's `Sgd`, `Adam` and `RMSprop` use those of `tlr::optim`: the same steps to the bit, and they can be saved",
    note = "for an optimizer of your own: write a `tlr::optim::UpdateRule`, and `tlr::optim::Elementwise` does the rest"
)]
pub trait Resumable: TunableOptimizer {
    /// What has accumulated.
    ///
    /// # Errors
    /// Those of the device.
    fn state(&self, model: &Self::Model) -> Result<OptimizerState, DeviceError<Self>>;

    /// Takes over a `state` of an optimizer of this kind for a model of this shape. The model is only
    /// looked at. (It is borrowed mutably because this is how each layer is shown with its optimizer.)
    ///
    /// # Errors
    /// Those of the device. Nothing has changed then.
    fn restore(
        &mut self,
        model: &mut Self::Model,
        state: &OptimizerState,
    ) -> Result<(), DeviceError<Self>>;
}

/// A [`Family`] whose members can all be saved, so that [`PerLayer`](crate::PerLayer) around it can.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be saved layer by layer: it keeps what it has accumulated to itself",
    label = "does not implement `tlr::optim::ResumableFamily`",
    note = "in place of dfdx's `Sgd`, `Adam` and `RMSprop` use those of `tlr::optim`: the same steps to the bit, and they can be saved"
)]
pub trait ResumableFamily: Family {
    /// [`Resumable::state`] of the optimizer of a layer.
    ///
    /// # Errors
    /// Those of the device.
    fn layer_state<L>(
        optimizer: &Self::For<L>,
        layer: &L,
    ) -> Result<OptimizerState, DeviceError<Self>>
    where
        L: TensorCollection<Self::Dtype, Self::Device> + Clone;

    /// [`Resumable::restore`] of the optimizer of a layer.
    ///
    /// # Errors
    /// Those of the device. Nothing has changed then.
    fn restore_layer<L>(
        optimizer: &mut Self::For<L>,
        layer: &mut L,
        state: &OptimizerState,
    ) -> Result<(), DeviceError<Self>>
    where
        L: TensorCollection<Self::Dtype, Self::Device> + Clone;
}

/// What an optimizer has accumulated, on the host.
#[derive(Clone, Debug, Default)]
pub struct OptimizerState {
    /// The hyperparameters but the rates. They have not accumulated, but a checkpoint is for these only.
    pub(crate) settings: Settings,
    /// Updates so far, by the path of the layer where each has an optimizer of its own.
    pub(crate) steps: BTreeMap<String, u64>,
    /// By the name of the buffer and the path of the tensor it goes with.
    pub(crate) tensors: BTreeMap<(String, String), Stored>,
}

impl OptimizerState {
    pub(crate) fn insert(&mut self, buffer: &str, path: &str, stored: Stored) {
        self.tensors.insert((buffer.to_owned(), path.to_owned()), stored);
    }

    pub(crate) fn get(&self, buffer: &str, path: &str) -> Option<&Stored> {
        self.tensors.get(&(buffer.to_owned(), path.to_owned()))
    }

    /// Whether a count or a buffer is called so.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.steps.contains_key(name) || self.tensors.keys().any(|(buffer, _)| buffer == name)
    }

    /// The state of an optimizer with these settings, around the one whose state this is.
    pub(crate) fn within(mut self, outer: Settings) -> Self {
        self.settings = outer.within("around", self.settings);
        self
    }

    /// Takes in the state of the optimizer of one layer.
    pub(crate) fn insert_layer(&mut self, layer: &str, state: Self) {
        self.settings = state.settings;
        self.steps.extend(state.steps.into_iter().map(|(path, steps)| (join(layer, &path), steps)));
        self.tensors.extend(
            state
                .tensors
                .into_iter()
                .map(|((buffer, path), stored)| ((buffer, join(layer, &path)), stored)),
        );
    }

    /// The state of the optimizer of one layer.
    pub(crate) fn layer(&self, layer: &str) -> Self {
        let inner = |path: &str| {
            let rest = path.strip_prefix(layer)?;
            if rest.is_empty() {
                Some(String::new())
            } else {
                rest.strip_prefix('.').map(str::to_owned)
            }
        };
        Self {
            settings: self.settings.clone(),
            steps: self
                .steps
                .iter()
                .filter_map(|(path, &steps)| Some((inner(path)?, steps)))
                .collect(),
            tensors: self
                .tensors
                .iter()
                .filter_map(|((buffer, path), stored)| {
                    Some(((buffer.clone(), inner(path)?), stored.clone()))
                })
                .collect(),
        }
    }
}
