//! What a trainer is made of.

use crate::{
    engine::{Config, Engine, Group, HostFacts, RateRule, TensorKind},
    error::Error,
    optim::Groups,
    snapshots::{Layout, Snapshots},
    tensors::Model,
};
use dfdx::{shapes::Dtype, tensor_ops::Device};

/// A trainer's engine and snapshots. Compiled once for all models and optimizers.
pub(super) fn parts<E: Dtype, D: Device<E>, R: RateRule>(
    model: &dyn Model<E, D>,
    groups: &Groups,
    rate: &dyn Fn(usize) -> f64,
    config: Config<R>,
    facts: HostFacts,
    place: Option<(usize, usize)>,
) -> Result<(Engine<R>, Snapshots<E>), Error> {
    let named = groups.groups.iter().enumerate();
    let named = named.map(|(index, group)| Group {
        name: group.name.clone(),
        fixed_rate: group.fixed_rate,
        rate: rate(index),
    });
    let named: Vec<_> = named.collect();
    let count = named.len();
    let layout = Layout { bins: config.sketch, directions: config.bf16_directions, place };
    let engine = Engine::new(config, named, facts)?;
    let mut snapshots = Snapshots::new(model, count, &|id| groups.of(id), layout)?;
    // Weights may still be loaded, so they are copied at the first step. Buffers are copied now:
    // the first batch may be skipped, and then they have to go back.
    snapshots.take(model, TensorKind::Buffers)?;
    Ok((engine, snapshots))
}
