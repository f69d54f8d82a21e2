//! The layers of a model, as a walk over it finds them.

use crate::{
    optim::{Groups, TensorGroup},
    tensors,
};
use dfdx::{nn::TensorCollection, shapes::Dtype, tensor::UniqueId, tensor_ops::Device};
use std::sync::Arc;

/// The layers of a model, told one by one while [`TrainableLr`](super::TrainableLr) walks it.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    path: Vec<String>,
    /// What the fields on the way here ask for, innermost last.
    options: Vec<LayerOptions>,
    layers: Vec<Layer>,
    /// For each layer its group, if it has a trainable tensor.
    groups: Vec<Option<usize>>,
}

#[derive(Clone, Debug)]
struct Layer {
    name: Arc<str>,
    frozen: bool,
    rate: f64,
    tensors: Vec<UniqueId>,
}

/// What `#[tlr(…)]` on a field says of the layers in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerOptions {
    /// `#[tlr(frozen)]`: the rate stays where it starts. The weights are trained all the same.
    pub frozen: bool,
    /// `#[tlr(rate = …)]`: times the starting rate. Default 1.
    pub rate: f64,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self { frozen: false, rate: 1.0 }
    }
}

impl Layers {
    /// Walks into the field `name`: the layers that `walk` tells of are called `name.…`.
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

    /// Tells of one layer, named by the fields that lead to it.
    pub fn layer<E: Dtype, D: Device<E>, L: TensorCollection<E, D>>(&mut self, layer: &L) {
        let tensors: Vec<_> = tensors::list(layer)
            .into_iter()
            .filter(|tensor| tensor.trainable)
            .map(|tensor| tensor.id)
            .collect();
        self.groups.push((!tensors.is_empty()).then_some(self.layers.len()));
        if !tensors.is_empty() {
            self.layers.push(Layer {
                name: match self.path.join(".") {
                    path if path.is_empty() => "model".into(),
                    path => path.into(),
                },
                frozen: self.options.iter().any(|options| options.frozen),
                rate: self.options.iter().map(|options| options.rate).product(),
                tensors,
            });
        }
    }

    pub(crate) fn rate_scales(&self) -> impl Iterator<Item = f64> + '_ {
        self.layers.iter().map(|layer| layer.rate)
    }

    /// For each layer visited, the group it is in: none where it has no trainable tensor.
    pub(crate) fn group_of_layers(&self) -> std::slice::Iter<'_, Option<usize>> {
        self.groups.iter()
    }

    /// For each layer visited its path: none where it has no trainable tensor.
    pub(crate) fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.groups.iter().map(|group| Some(&*self.layers.get((*group)?)?.name))
    }

    pub(crate) fn groups(&self) -> Groups {
        let group = |layer: &Layer| TensorGroup { name: layer.name.clone(), frozen: layer.frozen };
        let layers = self.layers.iter().enumerate();
        let members =
            layers.flat_map(|(group, layer)| layer.tensors.iter().map(move |id| (*id, group)));
        Groups::listed(self.layers.iter().map(group).collect(), members.collect())
    }
}
