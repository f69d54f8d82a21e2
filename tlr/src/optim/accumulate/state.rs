//! The state of an [`Accumulate`], as a checkpoint saves and restores it.

use super::{Accumulate, GatheredGradients};
use crate::{
    error::CheckpointError,
    optim::{
        state::in_file, ErrOf, OptimizerState, RestoreError, Resumable, ResumableFamily, Settings,
        TunableOptimizer,
    },
    tensors::{self, Backend, Stored, TensorInfo},
};
use dfdx::{nn::TensorCollection, tensor::UniqueId};
use std::collections::HashMap;

/// The name of the sums and the count in a checkpoint. No path of a tensor or layer equals it.
const GATHERED: &str = "(gathered)";

/// The name of the gathered batches' weight, given the name of their sums.
fn weight_of(gathered: &str) -> String {
    gathered.replace(GATHERED, "(gathered weight)")
}

impl<Opt: TunableOptimizer> Accumulate<Opt> {
    /// Adds the count, the weight and the sums to `state`, the state of the inner optimizer.
    fn around(&self, model: &Opt::Model, state: OptimizerState) -> OptimizerState {
        let mut state = state.within(Settings::new("accumulate").with("batches", self.batches));
        // The inner optimizer may be an `Accumulate` too and use the same name.
        let mut name = GATHERED.to_owned();
        while state.knows(&name) {
            name.push('\'');
        }
        state.steps.insert(name.clone(), self.gathered.batches);
        state.insert(&weight_of(&name), "", Stored::new(vec![1], &[self.gathered.weight]));
        self.gathered.store(&name, tensors::list(model), &mut state);
        state
    }

    /// The inverse of [`around`](Self::around): `within` restores the inner optimizer, then this
    /// function restores the count, the weight and the sums.
    fn restored(
        &mut self,
        tensors: Vec<TensorInfo>,
        state: &OptimizerState,
        within: impl FnOnce(&mut Opt, &OptimizerState) -> Result<(), RestoreError<ErrOf<Opt>>>,
    ) -> Result<(), RestoreError<ErrOf<Opt>>> {
        // Of nested `Accumulate`s, the outermost has the longest name.
        let own = state.steps.range(GATHERED.to_owned()..);
        let own = own.take_while(|(name, _)| name.starts_with(GATHERED)).last();
        let lacks = || CheckpointError::lacks(in_file(GATHERED));
        let (name, batches) = own.ok_or_else(lacks)?;
        let gathered = GatheredGradients {
            batches: self.possible_count(name, *batches)?,
            weight: possible_weight(name, *batches, state)?,
            sums: sums(name, tensors, state)?,
        };
        let mut rest = state.clone();
        rest.steps.remove(name);
        rest.tensors.retain(|(buffer, _), _| *buffer != *name && *buffer != weight_of(name));
        within(&mut self.optimizer, &rest)?;
        self.forget_sums();
        self.gathered = gathered;
        Ok(())
    }

    /// The count, if an `Accumulate` with this number of batches a step can have gathered so many.
    fn possible_count(&self, name: &str, count: u64) -> Result<u64, CheckpointError> {
        let most = self.batches - 1;
        let range = format!("at most {most}, for steps of {}", self.batches);
        let possible = count <= most;
        CheckpointError::unless(possible, in_file(name), range, count as f64).map(|()| count)
    }
}

impl GatheredGradients {
    fn store(&self, name: &str, tensors: Vec<TensorInfo>, state: &mut OptimizerState) {
        for tensor in tensors.into_iter().filter(|tensor| tensor.trainable) {
            let zeros;
            let sum = match self.sums.get(&tensor.id) {
                Some(sum) => sum,
                None => {
                    zeros = vec![0.0; tensor.len];
                    &zeros
                }
            };
            state.insert(name, &tensor.name, Stored::new(tensor.shape, sum));
        }
    }
}

/// The weight of the gathered batches, if so many batches can have this weight.
fn possible_weight(
    gathered: &str,
    batches: u64,
    state: &OptimizerState,
) -> Result<f64, CheckpointError> {
    let name = weight_of(gathered);
    let mut weight = [f64::NAN];
    state.copy(&name, "", &[1], &mut weight)?;
    let [weight] = weight;
    let (possible, range) = match batches {
        0 => (weight == 0.0, "0, for no gathered batch"),
        _ => (weight > 0.0 && weight.is_finite(), "finite and above 0"),
    };
    CheckpointError::unless(possible, in_file(&name), range, weight).map(|()| weight)
}

fn sums(
    name: &str,
    tensors: Vec<TensorInfo>,
    state: &OptimizerState,
) -> Result<HashMap<UniqueId, Vec<f64>>, CheckpointError> {
    let trainable = tensors.into_iter().filter(|tensor| tensor.trainable);
    let sums = trainable.map(|tensor| {
        let mut sum = vec![0.0; tensor.len];
        state.copy(name, &tensor.name, &tensor.shape, &mut sum)?;
        Ok((tensor.id, sum))
    });
    sums.collect()
}

impl<Opt: Resumable> Resumable for Accumulate<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    fn state(&self, model: &Opt::Model) -> Result<OptimizerState, ErrOf<Opt>> {
        let state = self.optimizer.state(model)?;
        Ok(self.around(model, state))
    }

    fn restore(
        &mut self,
        model: &mut Opt::Model,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<ErrOf<Opt>>> {
        let tensors = tensors::list(&*model);
        self.restored(tensors, state, |optimizer, state| optimizer.restore(model, state))
    }
}

impl<Opt: ResumableFamily> ResumableFamily for Accumulate<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    fn layer_state<L>(optimizer: &Self::For<L>, layer: &L) -> Result<OptimizerState, ErrOf<Opt>>
    where
        L: TensorCollection<Opt::Dtype, Opt::Device> + Clone,
    {
        let state = Opt::layer_state(&optimizer.optimizer, layer)?;
        Ok(optimizer.around(layer, state))
    }

    fn restore_layer<L>(
        optimizer: &mut Self::For<L>,
        layer: &mut L,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<ErrOf<Opt>>>
    where
        L: TensorCollection<Opt::Dtype, Opt::Device> + Clone,
    {
        let tensors = tensors::list(&*layer);
        optimizer.restored(tensors, state, |within, state| Opt::restore_layer(within, layer, state))
    }
}
