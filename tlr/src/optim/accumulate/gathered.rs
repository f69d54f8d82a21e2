//! [`GatheredGradients`]: sums of gradients, in f64 on the host.

use crate::{
    optim::gradients,
    tensors::{wide, Backend, Model},
};
use dfdx::{
    shapes::Dtype,
    tensor::{Gradients, UniqueId},
};
use std::collections::HashMap;

/// The gradients that are gathered for the next step.
#[derive(Clone, Debug, Default)]
pub(super) struct GatheredGradients {
    /// The number of batches, always less than that of a step.
    pub(super) batches: u64,
    /// The sum of the batches' weights.
    pub(super) weight: f64,
    /// For each tensor the sum of the gradients, times their weights. All zeros if nothing is
    /// gathered.
    pub(super) sums: HashMap<UniqueId, Vec<f64>>,
}

impl GatheredGradients {
    /// Adds these gradients, times their weight, to the sums.
    pub(super) fn add<E: Dtype, D: Backend<E>>(
        &mut self,
        model: &dyn Model<E, D>,
        gradients: &mut Gradients<E, D>,
        weight: f64,
    ) -> Result<(), D::Err> {
        gradients::each(model, gradients, |id, gradient| {
            D::read(gradient, |values| {
                let sum = self.sums.entry(id).or_default();
                sum.resize(values.len(), 0.0);
                let values = values.iter().map(|value| weight * wide(*value));
                for (sum, value) in sum.iter_mut().zip(values) {
                    // The first gradient is assigned, because 0 + (−0) is 0 and would lose the
                    // sign.
                    *sum = if self.batches == 0 { value } else { *sum + value };
                }
            })
        })
    }

    /// Replaces the gradients, which have this weight, by the mean over them and what is gathered.
    pub(super) fn average<E: Dtype, D: Backend<E>>(
        &self,
        model: &dyn Model<E, D>,
        gradients: &mut Gradients<E, D>,
        weight: f64,
    ) -> Result<(), D::Err> {
        let total = self.weight + weight;
        gradients::each(model, gradients, |id, gradient| {
            let Some(sum) = self.sums.get(&id) else { return Ok(()) };
            D::write(gradient, |values| {
                for (value, sum) in values.iter_mut().zip(sum) {
                    let mean = value.to_f64().map(|value| (sum + weight * value) / total);
                    if let Some(mean) = mean.and_then(E::from_f64) {
                        *value = mean;
                    }
                }
            })
        })
    }
}
