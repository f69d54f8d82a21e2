//! [`Accumulate`]: one optimizer step from the gradients of several batches.

use super::{
    gradients, CompleteGradients, DeviceError, FailedUpdate, Family, Groups, OptimizerState,
    Resumable, ResumableFamily, Settings, TunableOptimizer,
};
use crate::{
    error::Error,
    tensors::{self, Backend, Stored, TensorInfo},
};
use dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError},
    tensor::{Gradients, UniqueId},
};
use num_traits::{FromPrimitive, ToPrimitive};
use std::collections::HashMap;

/// Gathers the gradients of n batches and makes one step of an optimizer with their mean.
///
/// The optimizer makes its step on every n-th call. The other n − 1 calls only gather gradients and
/// leave the weights alone. If each loss is a mean over its batch and all batches have the same
/// size, the step equals that of one batch n times as large, up to rounding. A layer that looks at
/// its whole batch, such as batch norm, still sees each small batch by itself. The gradients are
/// summed in f64 on the host, which takes 8 bytes a parameter. The mean is rounded to the element
/// type once.
///
/// Within [`Newton`](crate::Newton) one step is n calls. Windows, [`steps`](crate::Trainer::steps)
/// and [`batches_per_epoch`](crate::Config::batches_per_epoch) count steps. The loss of a step is
/// the mean of the n losses. A batch whose loss is not finite is skipped, and another batch takes
/// its place. The second such batch in a row undoes the window, as it does without `Accumulate`,
/// and drops the gathered gradients. [`step_lookahead`](crate::Trainer::step_lookahead) and
/// [`step_line_search`](crate::Trainer::step_line_search) gather the gradients of n − 1 calls as
/// well. On the n-th call they take the derivatives along the step from the loss of the n-th batch
/// alone.
///
/// `Accumulate<Clip<Sgd>>` clips the mean gradient, and `Clip<Accumulate<Sgd>>` clips the gradient
/// of each batch. `Accumulate<PerLayer<Sgd>>` keeps one count of batches, and
/// `PerLayer<Accumulate<Sgd>>` keeps one count for each layer. (See [`PerLayer`](crate::PerLayer).)
///
/// If a gradient is missing, the call is an error and gathers nothing.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{optim::{Accumulate, Sgd}, Newton, NewtonConfig};
///
/// let dev = Cpu::default();
/// let mut w: Tensor<Rank1<1>, f64, _> = dev.tensor([3.0]);
/// let sgd = Sgd::new(&w, SgdConfig { lr: 0.5, ..Default::default() });
/// let mut opt = Newton::new(&w, Accumulate::new(sgd, 2)?, NewtonConfig::default())?;
/// for target in [1.0, 2.0] {
///     let loss = (w.leaky_trace() - target).square().sum();
///     let value = loss.array();
///     opt.step(&mut w, &loss.backward(), value)?;
/// }
/// assert_eq!((opt.steps(), w.array()), (1, [1.5])); // by half the mean of 4 and 2
/// # Ok::<(), tlr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Accumulate<Opt> {
    optimizer: Opt,
    batches: u64,
    /// The number of batches gathered for the next step, always less than `batches`.
    gathered: u64,
    /// For each tensor the sum of the gathered gradients. All zeros if nothing is gathered.
    sums: HashMap<UniqueId, Vec<f64>>,
}

impl<Opt> Accumulate<Opt> {
    /// Makes one step of `optimizer` for every `batches` updates.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if `batches` is 0.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::optim::{Accumulate, Sgd};
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// let sgd: Sgd<_, f32, Cpu> = Sgd::new(&model, SgdConfig::default());
    /// let four = Accumulate::new(sgd, 4)?;
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn new(optimizer: Opt, batches: usize) -> Result<Self, Error> {
        let what = "the batches that a step gathers";
        Error::unless(batches > 0, what, "at least 1", batches as f64)?;
        Ok(Self::with(optimizer, batches as u64))
    }

    fn with(optimizer: Opt, batches: u64) -> Self {
        Self { optimizer, batches, gathered: 0, sums: HashMap::new() }
    }

    /// The optimizer that receives the mean gradients.
    pub fn optimizer(&self) -> &Opt {
        &self.optimizer
    }

    /// The number of batches gathered for the next step, always less than n.
    pub fn gathered(&self) -> usize {
        usize::try_from(self.gathered).unwrap_or(usize::MAX)
    }

    fn completes(&self) -> bool {
        self.gathered + 1 >= self.batches
    }

    fn forget_sums(&mut self) {
        self.gathered = 0;
        self.sums.clear();
    }
}

impl<Opt: TunableOptimizer> Optimizer<Opt::Model, Opt::Device, Opt::Dtype> for Accumulate<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    fn update(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>> {
        let mut own = gradients::complete(&*model, gradients)?;
        self.update_owned(model, &mut own)
    }
}

impl<Opt> Accumulate<Opt>
where
    Opt: TunableOptimizer,
    Opt::Device: Backend<Opt::Dtype>,
{
    fn gather(
        &mut self,
        model: &Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), DeviceError<Opt>> {
        let Self { gathered, sums, .. } = self;
        gradients::each(model, gradients, |id, gradient| {
            <Opt::Device as Backend<Opt::Dtype>>::read(gradient, |values| {
                let sum = sums.entry(id).or_default();
                sum.resize(values.len(), 0.0);
                let values = values.iter().map(|value| value.to_f64().unwrap_or(f64::NAN));
                for (sum, value) in sum.iter_mut().zip(values) {
                    // The first gradient is assigned, because 0 + (−0) is 0 and would lose the
                    // sign.
                    *sum = if *gathered == 0 { value } else { *sum + value };
                }
            })
        })?;
        *gathered += 1;
        Ok(())
    }

    /// Replaces the gradients of the last batch by the mean over all batches.
    fn average(
        &self,
        model: &Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), DeviceError<Opt>> {
        if self.gathered == 0 {
            return Ok(());
        }
        let batches = self.gathered as f64 + 1.0;
        gradients::each(model, gradients, |id, gradient| {
            let Some(sum) = self.sums.get(&id) else { return Ok(()) };
            <Opt::Device as Backend<Opt::Dtype>>::write(gradient, |values| {
                for (value, sum) in values.iter_mut().zip(sum) {
                    let mean = value.to_f64().map(|value| (sum + value) / batches);
                    if let Some(mean) = mean.and_then(Opt::Dtype::from_f64) {
                        *value = mean;
                    }
                }
            })
        })
    }
}

impl<Opt: TunableOptimizer> TunableOptimizer for Accumulate<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    type Model = Opt::Model;
    type Dtype = Opt::Dtype;
    type Device = Opt::Device;

    fn rate(&self, group: usize) -> f64 {
        self.optimizer.rate(group)
    }

    fn set_rate(&mut self, group: usize, rate: f64) {
        self.optimizer.set_rate(group, rate);
    }

    fn reset(&mut self, model: &Opt::Model) {
        self.forget_sums();
        self.optimizer.reset(model);
    }

    fn momentum(&self) -> f64 {
        self.optimizer.momentum()
    }

    fn validate(&self) -> Result<(), Error> {
        self.optimizer.validate()
    }

    fn groups(&self, model: &Opt::Model) -> Groups {
        self.optimizer.groups(model)
    }

    fn complete_gradients(
        &self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> CompleteGradients<Self> {
        gradients::complete(model, gradients).map(Some)
    }

    fn failed_update(&self) -> FailedUpdate {
        self.optimizer.failed_update()
    }

    fn update_owned(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<DeviceError<Opt>>> {
        if !self.completes() {
            return self.gather(model, gradients).map_err(|error| {
                // This batch may already be in the sums of some tensors but not of others.
                self.forget_sums();
                OptimizerUpdateError::DeviceError(error)
            });
        }
        self.average(model, gradients).map_err(OptimizerUpdateError::DeviceError)?;
        self.optimizer.update_owned(model, gradients)?;
        self.gathered = 0;
        self.sums.values_mut().for_each(|sum| sum.fill(0.0));
        Ok(())
    }

    fn drop_gathered(&mut self, model: &mut Opt::Model) {
        self.forget_sums();
        self.optimizer.drop_gathered(model);
    }

    fn only_gathers(&self) -> bool {
        !self.completes() || self.optimizer.only_gathers()
    }
}

impl<Opt: Family> Family for Accumulate<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    type For<L: TensorCollection<Opt::Dtype, Opt::Device> + Clone> = Accumulate<Opt::For<L>>;

    fn for_layer<L>(&self, layer: &L) -> Self::For<L>
    where
        L: TensorCollection<Opt::Dtype, Opt::Device> + Clone,
    {
        Accumulate::with(self.optimizer.for_layer(layer), self.batches)
    }
}

/// The name of the sums and the count in a checkpoint. No path of a tensor or layer equals it.
const GATHERED: &str = "(gathered)";

impl<Opt: TunableOptimizer> Accumulate<Opt> {
    /// Adds the count and the sums to `state`, the state of the inner optimizer.
    fn around(&self, model: &Opt::Model, state: OptimizerState) -> OptimizerState {
        let mut state = state.within(Settings::new("accumulate").with("batches", self.batches));
        // The inner optimizer may be an `Accumulate` too and use the same name.
        let mut name = GATHERED.to_owned();
        while state.knows(&name) {
            name.push('\'');
        }
        state.steps.insert(name.clone(), self.gathered);
        for tensor in tensors::list(model).into_iter().filter(|tensor| tensor.trainable) {
            let zeros;
            let sum = match self.sums.get(&tensor.id) {
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
    /// function restores the count and the sums.
    fn restored(
        &mut self,
        tensors: Vec<TensorInfo>,
        state: &OptimizerState,
        within: impl FnOnce(&mut Opt, &OptimizerState) -> Result<(), DeviceError<Opt>>,
    ) -> Result<(), DeviceError<Opt>> {
        // Of nested `Accumulate`s, the outermost has the longest name.
        let own = state.steps.range(GATHERED.to_owned()..);
        let own = own.take_while(|(name, _)| name.starts_with(GATHERED)).last();
        let Some((name, &gathered)) = own else { return within(&mut self.optimizer, state) };
        let mut rest = state.clone();
        rest.steps.remove(name);
        rest.tensors.retain(|(buffer, _), _| buffer != name);
        within(&mut self.optimizer, &rest)?;

        self.gathered = gathered.min(self.batches - 1);
        self.sums.clear();
        for tensor in tensors.into_iter().filter(|tensor| tensor.trainable) {
            let mut sum = vec![0.0; tensor.len];
            if let Some(stored) = state.get(name, &tensor.name) {
                stored.copy_into(&mut sum);
            }
            self.sums.insert(tensor.id, sum);
        }
        Ok(())
    }
}

impl<Opt: Resumable> Resumable for Accumulate<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    fn state(&self, model: &Opt::Model) -> Result<OptimizerState, DeviceError<Opt>> {
        let state = self.optimizer.state(model)?;
        Ok(self.around(model, state))
    }

    fn restore(
        &mut self,
        model: &mut Opt::Model,
        state: &OptimizerState,
    ) -> Result<(), DeviceError<Opt>> {
        let tensors = tensors::list(&*model);
        self.restored(tensors, state, |optimizer, state| optimizer.restore(model, state))
    }
}

impl<Opt: ResumableFamily> ResumableFamily for Accumulate<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    fn layer_state<L>(
        optimizer: &Self::For<L>,
        layer: &L,
    ) -> Result<OptimizerState, DeviceError<Opt>>
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
    ) -> Result<(), DeviceError<Opt>>
    where
        L: TensorCollection<Opt::Dtype, Opt::Device> + Clone,
    {
        let tensors = tensors::list(&*layer);
        optimizer.restored(tensors, state, |within, state| Opt::restore_layer(within, layer, state))
    }
}
