//! What the layers of a model are, and a learning rate for each.

mod impls;
mod per_layer;
mod walk;

pub use per_layer::PerLayer;
pub use walk::{LayerOptions, Layers};

use crate::optim::Family;
use dfdx::{nn::TensorCollection, shapes::Dtype, tensor_ops::Device};

/// A model whose layers can each have a learning rate.
///
/// Implemented for dfdx's layers (each is one layer) and its containers (tuples, `Residual`,
/// `Repeated`, `SplitInto` …: the sequence of their parts), and derived for structs with
/// [`#[derive(TrainableLr)]`](macro@crate::TrainableLr).
///
/// Only [`PerLayer`](crate::PerLayer) needs it; a single rate works on any dfdx model.
#[diagnostic::on_unimplemented(
    message = "tlr does not know the layers of `{Self}`",
    label = "does not implement `tlr::TrainableLr`",
    note = "for a struct of your own: `#[derive(Clone, tlr::TensorCollection, tlr::TrainableLr)]`",
    note = "for a field that is no module, such as a number: `#[tlr(skip)]`"
)]
pub trait TrainableLr<E: Dtype, D: Device<E>>: TensorCollection<E, D> + Clone {
    /// One optimizer for each layer, in the shape of the model.
    type Optimizers<F: Family<Dtype = E, Device = D>>;

    /// Builds the optimizers, and tells `layers` of each layer, in order.
    fn optimizers<F>(&self, family: &F, layers: &mut Layers) -> Self::Optimizers<F>
    where
        F: Family<Dtype = E, Device = D>;

    /// Shows `visitor` each layer with its optimizer, in the order of [`optimizers`](Self::optimizers).
    ///
    /// # Errors
    /// The visitor's first error, after which no further layer is visited.
    fn visit_layers<F, V>(
        &self,
        optimizers: &Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err>
    where
        F: Family<Dtype = E, Device = D>,
        V: LayerVisitor<F>;

    /// As [`visit_layers`](Self::visit_layers), for a visitor that changes them.
    ///
    /// # Errors
    /// The visitor's first error, after which no further layer is visited.
    fn visit_layers_mut<F, V>(
        &mut self,
        optimizers: &mut Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err>
    where
        F: Family<Dtype = E, Device = D>,
        V: LayerVisitorMut<F>;
}

/// Something to find out of each layer of a model and its optimizer.
pub trait LayerVisitor<F: Family> {
    /// What can go wrong at a layer.
    type Err;

    /// Visits one layer.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn visit_layer<L>(&mut self, layer: &L, optimizer: &F::For<L>) -> Result<(), Self::Err>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone;
}

/// Something to do to each layer of a model and its optimizer.
pub trait LayerVisitorMut<F: Family> {
    /// What can go wrong at a layer.
    type Err;

    /// Visits one layer.
    ///
    /// # Errors
    /// Whatever stops the walk.
    fn visit_layer<L>(&mut self, layer: &mut L, optimizer: &mut F::For<L>) -> Result<(), Self::Err>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone;
}
