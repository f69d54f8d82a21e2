//! [`TrainableLr`], which lists the layers of a model, and [`PerLayer`], which gives each its own
//! rate.

mod impls;
mod per_layer;
mod walk;

pub use per_layer::PerLayer;
pub use walk::{LayerOptions, Layers};

use crate::optim::Family;
use dfdx::{nn::TensorCollection, shapes::Dtype, tensor_ops::Device};

/// A model that can have a learning rate for each of its layers.
///
/// Implemented for dfdx's modules. Each module with tensors of its own is one layer. A container (a
/// tuple, `Residual`, `Repeated`, `SplitInto` …) has the layers of its parts, in order. For a
/// struct of your own, use [`#[derive(TrainableLr)]`](macro@crate::TrainableLr).
///
/// Only [`PerLayer`](crate::PerLayer) needs this trait. A single rate works with any dfdx model.
///
/// Example: [the derive macro](macro@crate::TrainableLr).
#[diagnostic::on_unimplemented(
    message = "tlr does not know the layers of `{Self}`",
    label = "does not implement `tlr::TrainableLr`",
    note = "for a struct of your own: `#[derive(Clone, tlr::TensorCollection, tlr::TrainableLr)]`",
    note = "for a field that is no module, such as a number: `#[tlr(skip)]`",
    note = "for a `Vec` of modules: dfdx's `Repeated<M, N>`, or a tuple where their types differ",
    note = "for an `Option` of a module: `Repeated<M, N>` too, with 0 or 1 for `N`"
)]
pub trait TrainableLr<E: Dtype, D: Device<E>>: TensorCollection<E, D> + Clone {
    /// The optimizers of all layers, arranged as the layers are in the model.
    type Optimizers<F: Family<Dtype = E, Device = D>>;

    /// Makes one optimizer for each layer, and adds each layer to `layers`, in order.
    fn optimizers<F>(&self, family: &F, layers: &mut Layers) -> Self::Optimizers<F>
    where
        F: Family<Dtype = E, Device = D>;

    /// Calls `visitor` with each layer and its optimizer, in the order of
    /// [`optimizers`](Self::optimizers).
    ///
    /// # Errors
    /// The visitor's first error. No further layer is visited then.
    fn visit_layers<F, V>(
        &self,
        optimizers: &Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err>
    where
        F: Family<Dtype = E, Device = D>,
        V: LayerVisitor<F>;

    /// Calls `visitor` with each layer and its optimizer, as [`visit_layers`](Self::visit_layers)
    /// does, and lets it change both.
    ///
    /// # Errors
    /// The visitor's first error. No further layer is visited then.
    fn visit_layers_mut<F, V>(
        &mut self,
        optimizers: &mut Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err>
    where
        F: Family<Dtype = E, Device = D>,
        V: LayerVisitorMut<F>;
}

/// A visitor that reads each layer of a model and its optimizer.
pub trait LayerVisitor<F: Family> {
    /// What can go wrong at a layer.
    type Err;

    /// Visits one layer.
    ///
    /// # Errors
    /// The visitor's own. An error ends the walk.
    fn visit_layer<L>(&mut self, layer: &L, optimizer: &F::For<L>) -> Result<(), Self::Err>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone;
}

/// A visitor that can change each layer of a model and its optimizer.
pub trait LayerVisitorMut<F: Family> {
    /// What can go wrong at a layer.
    type Err;

    /// Visits one layer.
    ///
    /// # Errors
    /// The visitor's own. An error ends the walk.
    fn visit_layer<L>(&mut self, layer: &mut L, optimizer: &mut F::For<L>) -> Result<(), Self::Err>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone;
}
