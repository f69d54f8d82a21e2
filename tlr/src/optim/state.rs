//! The state that an optimizer accumulates, as a checkpoint saves and restores it.

use super::{ErrOf, Family, Settings, TunableOptimizer};
use crate::{
    error::CheckpointError,
    settings::join,
    tensors::{Element, Stored},
};
use dfdx::nn::TensorCollection;
use std::collections::BTreeMap;

/// An optimizer whose state can be saved with a checkpoint and restored bit for bit.
///
/// Implemented for the optimizers of [`tlr::optim`](crate::optim), for
/// [`Elementwise`](super::Elementwise) with any [`UpdateRule`](super::UpdateRule), and for
/// [`PerLayer`](crate::PerLayer) around any of them. An optimizer that wraps another one forwards
/// both methods to it.
///
/// # Example
/// A function for any optimizer that can be saved. (A checkpoint stores the state that it returns.)
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::optim::{Resumable, Sgd};
///
/// fn copied<Opt: Resumable>(of: &Opt, mut to: Opt, model: &mut Opt::Model) -> Opt {
///     if let Ok(state) = of.state(model) {
///         to.restore(model, &state).unwrap_or_default();
///     }
///     to
/// }
///
/// let mut model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let new = || -> Sgd<_, f32, Cpu> { Sgd::new(&model, SgdConfig::default()) };
/// let (of, to) = (new(), new());
/// assert_eq!(copied(&of, to, &mut model).steps(), of.steps());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be saved: it keeps what it has accumulated to itself",
    label = "does not implement `tlr::optim::Resumable`",
    note = "in place of dfdx's `Sgd`, `Adam` and `RMSprop` use those of `tlr::optim`: the same \
        steps to the bit, and they can be saved",
    note = "for an optimizer of your own: write a `tlr::optim::UpdateRule`, and \
        `tlr::optim::Elementwise` does the rest"
)]
pub trait Resumable: TunableOptimizer {
    /// The accumulated state.
    ///
    /// # Errors
    /// An error of the device.
    fn state(&self, model: &Self::Model) -> Result<OptimizerState, ErrOf<Self>>;

    /// Restores a `state` that was saved by the same kind of optimizer for a model of the same
    /// shape. The model is only read. (The walk that visits each layer together with its optimizer
    /// needs a mutable borrow.)
    ///
    /// # Errors
    /// [`RestoreError`]. The optimizer is then unchanged.
    fn restore(
        &mut self,
        model: &mut Self::Model,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<ErrOf<Self>>>;
}

/// A [`Family`] whose optimizers can all be saved. [`PerLayer`](crate::PerLayer) around such a
/// family can be saved too.
///
/// Example: [`Resumable`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be saved layer by layer: it keeps what it has accumulated to itself",
    label = "does not implement `tlr::optim::ResumableFamily`",
    note = "in place of dfdx's `Sgd`, `Adam` and `RMSprop` use those of `tlr::optim`: the same \
        steps to the bit, and they can be saved"
)]
pub trait ResumableFamily: Family {
    /// [`Resumable::state`] for the optimizer of one layer.
    ///
    /// # Errors
    /// An error of the device.
    fn layer_state<L>(optimizer: &Self::For<L>, layer: &L) -> Result<OptimizerState, ErrOf<Self>>
    where
        L: TensorCollection<Self::Dtype, Self::Device> + Clone;

    /// [`Resumable::restore`] for the optimizer of one layer.
    ///
    /// # Errors
    /// [`RestoreError`]. The optimizer is then unchanged.
    fn restore_layer<L>(
        optimizer: &mut Self::For<L>,
        layer: &mut L,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<ErrOf<Self>>>
    where
        L: TensorCollection<Self::Dtype, Self::Device> + Clone;
}

/// What the names of an optimizer's tensors and counts begin with in a checkpoint.
pub(crate) const OPTIMIZER: &str = "optimizer";

/// The name of an optimizer's tensor or count in a checkpoint.
pub(crate) fn in_file(name: &str) -> String {
    join(OPTIMIZER, name)
}

/// Why an optimizer does not take over a state.
///
/// # Example
/// A state of another optimizer.
/// ```
/// use dfdx::{optim::{AdamConfig, SgdConfig}, prelude::*};
/// use tlr::{optim::{Adam, Resumable, RestoreError, Sgd}, CheckpointError};
///
/// let mut model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let sgd: Sgd<_, f32, Cpu> = Sgd::new(&model, SgdConfig::default());
/// let mut adam = Adam::new(&model, AdamConfig::default());
/// let state = sgd.state(&model)?;
/// let restored = adam.restore(&mut model, &state);
/// assert!(matches!(restored, Err(RestoreError::State(CheckpointError::Differs(_)))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError<Err> {
    /// The device has failed, for instance for lack of memory.
    #[error("device: {0}")]
    Device(Err),
    /// The state does not belong to this optimizer. [`Trainer::resume`](crate::Trainer::resume)
    /// then answers with [`Error::Checkpoint`](crate::Error::Checkpoint).
    #[error("the optimizer's state: {0}")]
    State(#[source] CheckpointError),
}

impl<Err> From<CheckpointError> for RestoreError<Err> {
    fn from(problem: CheckpointError) -> Self {
        Self::State(problem)
    }
}

impl<Err> RestoreError<Err> {
    /// The error, with a count's or weight's name extended by that of its layer.
    pub(crate) fn in_layer(self, layer: &str) -> Self {
        match self {
            Self::State(CheckpointError::OutOfRange { name, range, value }) => {
                CheckpointError::OutOfRange { name: join(&name, layer), range, value }.into()
            }
            other => other,
        }
    }
}

/// The accumulated state of an optimizer, in host memory.
///
/// Example: [`Resumable`].
#[derive(Clone, Debug, Default)]
pub struct OptimizerState {
    /// The hyperparameters except the rates. They are not accumulated, but a checkpoint can only be
    /// resumed with the same ones.
    pub(crate) settings: Settings,
    /// The number of updates. With one optimizer for each layer, the key is the path of the layer.
    pub(crate) steps: BTreeMap<String, u64>,
    /// The buffers. The key is the name of the buffer and the path of its tensor.
    pub(crate) tensors: BTreeMap<(String, String), Stored>,
}

impl OptimizerState {
    pub(crate) fn insert(&mut self, buffer: &str, path: &str, stored: Stored) {
        self.tensors.insert((buffer.to_owned(), path.to_owned()), stored);
    }

    /// Copies a buffer to `values`. It has to be there, of the same type and of this shape.
    pub(crate) fn copy<E: Element>(
        &self,
        buffer: &str,
        path: &str,
        shape: &[usize],
        values: &mut [E],
    ) -> Result<(), CheckpointError> {
        let tensor = in_file(&join(buffer, path));
        let Some(stored) = self.tensors.get(&(buffer.to_owned(), path.to_owned())) else {
            return Err(CheckpointError::lacks(tensor));
        };
        let here = Stored::outline(E::STORED, shape.to_vec());
        if let Some(difference) = stored.difference(&here, tensor) {
            return Err(CheckpointError::Differs(vec![difference]));
        }
        stored.copy_into(values);
        Ok(())
    }

    /// The count of updates by this name.
    pub(crate) fn count(&self, name: &str) -> Result<u64, CheckpointError> {
        let count = self.steps.get(name).copied();
        count.ok_or_else(|| CheckpointError::lacks(in_file(name)))
    }

    /// Whether a count or a buffer has this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.steps.contains_key(name) || self.tensors.keys().any(|(buffer, _)| buffer == name)
    }

    /// Adds the settings `outer` of an optimizer that wraps the one with this state.
    pub(crate) fn within(mut self, outer: Settings) -> Self {
        self.settings = outer.within("around", self.settings);
        self
    }

    /// Adds the state of one layer's optimizer, with the layer's path in front of its keys.
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

    /// Extracts the state of one layer's optimizer. The inverse of
    /// [`insert_layer`](Self::insert_layer).
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
