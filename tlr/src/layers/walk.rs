//! [`Layers`]: the list of a model's layers, which a walk over the model fills.

use crate::{
    optim::{Groups, TensorGroup},
    tensors::{self, Mark, TensorInfo},
};
use dfdx::{nn::TensorCollection, shapes::Dtype, tensor::UniqueId, tensor_ops::Device};
use std::sync::Arc;

/// The layers of a model. A walk by [`TrainableLr`](super::TrainableLr) adds them one by one.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    path: Vec<String>,
    /// The options of all fields on the path to the current one, the innermost last.
    options: Vec<LayerOptions>,
    layers: Vec<Layer>,
    /// The group of each layer. `None` for a layer without trainable tensors.
    groups: Vec<Option<usize>>,
}

#[derive(Clone, Debug)]
struct Layer {
    name: Arc<str>,
    fixed_rate: bool,
    rate: f64,
    no_decay: bool,
    tensors: Vec<UniqueId>,
}

/// The options that `#[tlr(…)]` sets on a field. They apply to all layers in the field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerOptions {
    /// `#[tlr(fixed_rate)]`: the rate keeps its starting value. The weights are still trained,
    /// unlike those of a field that is `untrained`. Default `false`.
    pub fixed_rate: bool,
    /// `#[tlr(rate = …)]`: the factor on the starting rate. Default 1.
    pub rate: f64,
    /// `#[tlr(no_decay)]`: the weights do not decay. Default `false`.
    pub no_decay: bool,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self { fixed_rate: false, rate: 1.0, no_decay: false }
    }
}

impl Layers {
    /// Enters the field `name`. The name of each layer that `walk` adds then begins with it.
    pub fn field<T>(
        &mut self,
        name: &str,
        options: LayerOptions,
        walk: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.path.push(name.to_owned());
        self.options.push(options);
        let walked = walk(self);
        self.options.pop();
        self.path.pop();
        walked
    }

    /// Adds one layer. Its name is the path of fields that leads to it.
    pub fn layer<E: Dtype, D: Device<E>, L: TensorCollection<E, D>>(&mut self, layer: &L) {
        self.add(tensors::list(layer));
    }

    fn add(&mut self, tensors: Vec<TensorInfo>) {
        let tensors: Vec<_> =
            tensors.into_iter().filter(|tensor| tensor.trainable).map(|tensor| tensor.id).collect();
        self.groups.push((!tensors.is_empty()).then_some(self.layers.len()));
        if !tensors.is_empty() {
            self.layers.push(Layer {
                name: match self.path.join(".") {
                    path if path.is_empty() => "model".into(),
                    path => path.into(),
                },
                fixed_rate: self.options.iter().any(|options| options.fixed_rate),
                rate: self.options.iter().map(|options| options.rate).product(),
                no_decay: self.options.iter().any(|options| options.no_decay),
                tensors,
            });
        }
    }

    pub(crate) fn rate_scales(&self) -> impl Iterator<Item = f64> + '_ {
        self.layers.iter().map(|layer| layer.rate)
    }

    /// The attributes of a group's tensors, from all fields on the way to the group's layer.
    pub(crate) fn mark(&self, group: usize) -> Mark {
        match self.layers.get(group) {
            Some(layer) if layer.no_decay => Mark { no_decay: Some("PerLayer"), ..Mark::NONE },
            _ => Mark::NONE,
        }
    }

    /// The group of each layer visited, in order. `None` for a layer without trainable tensors.
    pub(crate) fn group_of_layers(&self) -> std::slice::Iter<'_, Option<usize>> {
        self.groups.iter()
    }

    /// The path of each layer visited, in order. `None` for a layer without trainable tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.groups.iter().map(|group| Some(&*self.layers.get((*group)?)?.name))
    }

    pub(crate) fn groups(&self) -> Groups {
        let group =
            |layer: &Layer| TensorGroup { name: layer.name.clone(), fixed_rate: layer.fixed_rate };
        let layers = self.layers.iter().enumerate();
        let members =
            layers.flat_map(|(group, layer)| layer.tensors.iter().map(move |id| (*id, group)));
        Groups::listed(self.layers.iter().map(group).collect(), members.collect())
    }
}
