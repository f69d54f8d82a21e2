//! The state of an [`Accumulate`], as a checkpoint saves and restores it.

use super::Accumulate;
use crate::{
    optim::{ErrOf, OptimizerState, Resumable, ResumableFamily, Settings, TunableOptimizer},
    tensors::{self, Backend, Stored, TensorInfo},
};
use dfdx::nn::TensorCollection;

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
        for tensor in tensors::list(model).into_iter().filter(|tensor| tensor.trainable) {
            let zeros;
            let sum = match self.gathered.sums.get(&tensor.id) {
                Some(sum) => sum,
                None => {
                    zeros = vec![0.0; tensor.len];
                    &zeros
                }
            };
            state.insert(&name, &tensor.name, Stored::new(tensor.shape, sum));
        }
        state
    }

    /// The inverse of [`around`](Self::around): `within` restores the inner optimizer, then this
    /// function restores the count, the weight and the sums.
    fn restored(
        &mut self,
        tensors: Vec<TensorInfo>,
        state: &OptimizerState,
        within: impl FnOnce(&mut Opt, &OptimizerState) -> Result<(), ErrOf<Opt>>,
    ) -> Result<(), ErrOf<Opt>> {
        // Of nested `Accumulate`s, the outermost has the longest name.
        let own = state.steps.range(GATHERED.to_owned()..);
        let own = own.take_while(|(name, _)| name.starts_with(GATHERED)).last();
        let Some((name, &gathered)) = own else { return within(&mut self.optimizer, state) };
        let mut rest = state.clone();
        rest.steps.remove(name);
        rest.tensors.retain(|(buffer, _), _| *buffer != *name && *buffer != weight_of(name));
        within(&mut self.optimizer, &rest)?;

        self.forget_sums();
        self.gathered.batches = gathered.min(self.batches - 1);
        let mut weight = [0.0_f64];
        if let Some(stored) = state.get(&weight_of(name), "") {
            stored.copy_into(&mut weight);
        }
        let [weight] = weight;
        // A forged file must not make a mean of NaN.
        let is_weight = self.gathered.batches > 0 && weight > 0.0 && weight.is_finite();
        let batches = self.gathered.batches as f64;
        self.gathered.weight = if is_weight { weight } else { batches };
        for tensor in tensors.into_iter().filter(|tensor| tensor.trainable) {
            let mut sum = vec![0.0; tensor.len];
            if let Some(stored) = state.get(name, &tensor.name) {
                stored.copy_into(&mut sum);
            }
            self.gathered.sums.insert(tensor.id, sum);
        }
        Ok(())
    }
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
    ) -> Result<(), ErrOf<Opt>> {
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
    ) -> Result<(), ErrOf<Opt>>
    where
        L: TensorCollection<Opt::Dtype, Opt::Device> + Clone,
    {
        let tensors = tensors::list(&*layer);
        optimizer.restored(tensors, state, |within, state| Opt::restore_layer(within, layer, state))
    }
}
