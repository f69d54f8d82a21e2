//! Gradients of several batches for one step.

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
/// The other n − 1 calls leave the weights alone. With losses that are means over batches of equal size, it is the step
/// of one batch n times as large, but for rounding: sums are in f64 on the host, 8 bytes a parameter, and the mean is
/// rounded to the element type once. (A layer that looks at its whole batch, such as batch norm, still sees the parts.)
///
/// Within [`Newton`](crate::Newton), a step is n calls: windows, [`steps`](crate::Tlr::steps) and
/// [`batches_per_epoch`](crate::Config::batches_per_epoch) count steps, and the loss of a step is the mean of those
/// fed. A batch whose loss is not finite is left out and another takes its place; the second in a row, as always, undoes
/// the window, and what was gathered goes with it. Of the gradients of
/// [`step_lookahead`](crate::Tlr::step_lookahead) and [`step_line_search`](crate::Tlr::step_line_search) the first n − 1
/// are gathered, and the derivatives along the step are those of the n-th loss.
///
/// `Accumulate<Clip<Sgd>>` clips the mean, `Clip<Accumulate<Sgd>>` each batch. Around [`PerLayer`](super::PerLayer)
/// there is one count, within it one a layer.
///
/// Where a gradient is missing, that is the error, and its batch is not gathered.
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
    /// Fewer than `batches`.
    gathered: u64,
    /// Of each tensor, over those gathered; 0 where there are none.
    sums: HashMap<UniqueId, Vec<f64>>,
}

impl<Opt> Accumulate<Opt> {
    /// One step of `optimizer` for every `batches` updates.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for 0.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::optim::{Accumulate, Sgd};
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// let four = Accumulate::new(Sgd::new(&model, SgdConfig::default()), 4)?;
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

    /// The optimizer that is given the means.
    pub fn optimizer(&self) -> &Opt {
        &self.optimizer
    }

    /// Batches gathered for the step to come: fewer than n.
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
                    // Not 0 + value, which has no −0.
                    *sum = if *gathered == 0 { value } else { *sum + value };
                }
            })
        })?;
        *gathered += 1;
        Ok(())
    }

    /// From the gradients of the last batch to the mean of all.
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
                // The sums of some tensors may have this batch already.
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

/// What sums and count are called in a checkpoint. No path is.
const GATHERED: &str = "(gathered)";

impl<Opt: TunableOptimizer> Accumulate<Opt> {
    /// The state of this one, from that of the optimizer within.
    fn around(&self, model: &Opt::Model, state: OptimizerState) -> OptimizerState {
        let mut state = state.within(Settings::new("accumulate").with("batches", self.batches));
        // The optimizer within may gather too.
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

    /// The opposite of [`around`](Self::around), once `within` has taken over the rest.
    fn restored(
        &mut self,
        tensors: Vec<TensorInfo>,
        state: &OptimizerState,
        within: impl FnOnce(&mut Opt, &OptimizerState) -> Result<(), DeviceError<Opt>>,
    ) -> Result<(), DeviceError<Opt>> {
        // The outermost has the longest name.
        let own = state.steps.range(GATHERED.to_owned()..);
        let own = own.take_while(|(name, _)| name.starts_with(GATHERED)).last();
        let Some((name, &gathered)) = own else { return within(&mut self.optimizer, state) };
        let mut rest = state.clone();
        rest.steps.remove(name);
        rest.tensors.retain(|(buffer, _), _| buffer != name);
        within(&mut self.optimizer, &rest)?;

        self.gathered = gathered;
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
