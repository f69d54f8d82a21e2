//! [`Accumulate`]: one optimizer step from the gradients of several batches.

mod gathered;
mod state;

use super::{
    check_weight, forward, gradients, update_alone, CompleteGradients, ErrOf, Family, StepFigures,
    TunableOptimizer,
};
use crate::{error::Error, tensors::Backend};
use dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError},
    tensor::Gradients,
};
use gathered::GatheredGradients;

/// Gathers the gradients of n batches and makes one step of an optimizer with their mean.
///
/// The optimizer makes its step on every n-th call. The other n − 1 calls only gather gradients and
/// leave the weights alone. If each loss is a mean over its batch, the step equals that of one
/// batch as large as all n, up to rounding. Batches of unequal sizes get their weights by
/// [`weigh_next`](Self::weigh_next), and the last step of an epoch is made with fewer than n by
/// [`complete_with_next`](Self::complete_with_next). A layer that looks at its whole batch, such as
/// batch norm, still sees each small batch by itself. The gradients are summed in f64 on the host,
/// which takes 8 bytes a parameter. The mean is rounded to the element type once.
///
/// Within [`Newton`](crate::Newton) one step is n calls. Windows, [`steps`](crate::Trainer::steps)
/// and [`batches_per_epoch`](crate::Config::batches_per_epoch) count steps. The loss of a step is
/// the mean of the n losses, whatever the batches weigh. A batch whose loss is not finite is
/// skipped, and another batch takes its place. The second such batch in a row undoes the window, as
/// it does without `Accumulate`, and drops the gathered gradients.
/// [`step_lookahead`](crate::Trainer::step_lookahead) and
/// [`step_line_search`](crate::Trainer::step_line_search) gather the gradients of n − 1 calls as
/// well. On the n-th call they take the derivatives along the step from the loss of the n-th batch
/// alone.
///
/// `Accumulate<Clip<Sgd>>` clips the mean gradient, and `Clip<Accumulate<Sgd>>` clips the gradient
/// of each batch. `Accumulate<PerLayer<Sgd>>` keeps one count of batches, and
/// `PerLayer<Accumulate<Sgd>>` keeps one count for each layer, as [`PerLayer`](crate::PerLayer)
/// clones it.
/// `Trainer::weigh_next` and `Trainer::complete_with_next` reach an `Accumulate` that is the
/// outermost optimizer, or within `Clip`, and the latter also one within `DataParallel`.
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
/// let mut opt = Newton::new(&w, Accumulate::new(sgd, 2)?, NewtonConfig::default().ramp(false))?;
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
    pub(super) optimizer: Opt,
    /// The number of batches in a step.
    batches: u64,
    gathered: GatheredGradients,
    next: BatchInStep,
    /// The weight of this rank's last batch. An exact step takes the gradients of that batch twice.
    last_weight: f64,
    /// What was gathered before a trial, and what was known of its batch.
    before_trial: Option<(GatheredGradients, BatchInStep)>,
}

/// What is known of the next batch: how it counts in its step, and whether it completes it.
#[derive(Clone, Copy, Debug)]
struct BatchInStep {
    weight: f64,
    /// The sum of the weights of all ranks, where gradients are averaged over ranks.
    of_all_ranks: Option<f64>,
    completes: bool,
}

impl Default for BatchInStep {
    fn default() -> Self {
        Self { weight: 1.0, of_all_ranks: None, completes: false }
    }
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
        let (gathered, next) = (GatheredGradients::default(), BatchInStep::default());
        Self { optimizer, batches, gathered, next, last_weight: 1.0, before_trial: None }
    }

    /// The optimizer that receives the mean gradients.
    ///
    /// Example: [`Accumulate`].
    pub fn optimizer(&self) -> &Opt {
        &self.optimizer
    }

    /// The number of batches gathered for the next step, always less than n.
    ///
    /// Example: [`weigh_next`](Self::weigh_next).
    pub fn gathered(&self) -> usize {
        usize::try_from(self.gathered.batches).unwrap_or(usize::MAX)
    }

    /// The next batch completes its step, however few are gathered: the last batch of an epoch. The
    /// step is made with the mean of those that there are. Like a
    /// [weight](Self::weigh_next), it applies to the next batch only.
    ///
    /// [`Trainer::complete_with_next`](crate::Trainer::complete_with_next) does the same, also
    /// through a [`Clip`](super::Clip) around it: see [`GatherBatches`](super::GatherBatches).
    ///
    /// Example: [`weigh_next`](Self::weigh_next).
    pub fn complete_with_next(&mut self) {
        self.next.completes = true;
    }

    fn completes(&self) -> bool {
        self.next.completes || self.gathered.batches + 1 >= self.batches
    }

    fn forget_sums(&mut self) {
        self.gathered = GatheredGradients::default();
        self.next = BatchInStep::default();
    }
}

impl<Opt: TunableOptimizer> Accumulate<Opt> {
    /// Sets the weight of the next batch in the mean of its step. For losses that are means over
    /// their batches, this is the number of examples, or whatever else the loss divides its sum by.
    /// Default 1.
    ///
    /// The weight applies to one batch. A batch that takes the place of a skipped one inherits the
    /// weight, unless another one is set. A checkpoint does not hold the weight: set it just before
    /// the batch.
    ///
    /// Around an `Accumulate`, [`Trainer::weigh_next`](crate::Trainer::weigh_next) does the same.
    ///
    /// Around several ranks of a [`DataParallel`](crate::DataParallel) this is the weight of the
    /// rank's own part of the batch. A rank that has no example of it passes gradients of zeros and
    /// the weight 0.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `weight` is above 0, or at least 0 with several ranks, and at
    /// most 1e100. Nothing has changed then.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::optim::{Accumulate, Sgd};
    ///
    /// let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([0.0]);
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 1.0, ..Default::default() });
    /// let mut opt = Accumulate::new(sgd, 4)?;
    /// for (examples, slope) in [(3, 2.0), (1, 6.0)] {
    ///     opt.weigh_next(examples as f64)?;
    ///     if examples == 1 {
    ///         opt.complete_with_next(); // the last batch of the epoch
    ///     }
    ///     let gradients = (w.leaky_trace() * slope).sum().backward();
    ///     opt.update(&mut w, &gradients).expect("the CPU has memory");
    /// }
    /// assert_eq!(w.array(), [-3.0]); // (3·2 + 1·6)/4
    /// assert_eq!(opt.gathered(), 0); // the step is made
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn weigh_next(&mut self, weight: f64) -> Result<(), Error> {
        // With several ranks, one that has examples makes the batch's weight more than 0.
        check_weight(weight, self.optimizer.averages_over_ranks())?;
        self.next.weight = weight;
        Ok(())
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
    ) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>> {
        update_alone(self, model, gradients)
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
    ) -> Result<(), ErrOf<Opt>> {
        let weight = self.next.of_all_ranks.unwrap_or(self.next.weight);
        self.gathered.add(model, gradients, weight)?;
        self.gathered.batches += 1;
        self.gathered.weight += weight;
        self.next = BatchInStep::default();
        Ok(())
    }

    /// Replaces the gradients of the last batch by the mean over all batches.
    fn average(
        &self,
        model: &Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), ErrOf<Opt>> {
        if self.gathered.batches == 0 {
            return Ok(());
        }
        let weight = self.next.of_all_ranks.unwrap_or(self.next.weight);
        self.gathered.average(model, gradients, weight)
    }
}

#[warn(clippy::missing_trait_methods)]
impl<Opt: TunableOptimizer> TunableOptimizer for Accumulate<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    type Model = Opt::Model;
    type Dtype = Opt::Dtype;
    type Device = Opt::Device;

    forward! {
        Self { optimizer, .. } => optimizer;
        but reset, complete_gradients, average_over_ranks, update_owned, drop_gathered,
            only_gathers, begin_trial, end_trial;
    }

    fn reset(&mut self, model: &Opt::Model) {
        self.forget_sums();
        self.optimizer.reset(model);
    }

    fn complete_gradients(
        &self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> CompleteGradients<Self> {
        gradients::complete(model, gradients).map(Some)
    }

    /// In the mean over the ranks, this rank's batch has the weight that was set for it. In the
    /// mean over the batches, the batch has the sum of all ranks' weights.
    fn average_over_ranks(
        &mut self,
        model: &Opt::Model,
        gradients: Result<&mut Gradients<Opt::Dtype, Opt::Device>, Error>,
        figures: &mut StepFigures,
    ) -> Result<(), Error> {
        if figures.again {
            figures.weight = self.last_weight;
            return self.optimizer.average_over_ranks(model, gradients, figures);
        }
        self.last_weight = self.next.weight;
        figures.weight = self.last_weight;
        self.optimizer.average_over_ranks(model, gradients, figures)?;
        self.next.of_all_ranks = Some(figures.weight);
        Ok(())
    }

    fn update_owned(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>> {
        if !self.completes() {
            return self.gather(model, gradients).map_err(|error| {
                // This batch may already be in the sums of some tensors but not of others.
                self.forget_sums();
                OptimizerUpdateError::DeviceError(error)
            });
        }
        self.average(model, gradients).map_err(OptimizerUpdateError::DeviceError)?;
        self.optimizer.update_owned(model, gradients)?;
        // The sums' memory is kept for the next step.
        self.gathered.batches = 0;
        self.gathered.weight = 0.0;
        self.gathered.sums.values_mut().for_each(|sum| sum.fill(0.0));
        self.next = BatchInStep::default();
        Ok(())
    }

    fn begin_trial(&mut self, model: &mut Opt::Model) -> bool {
        let kept = self.optimizer.begin_trial(model);
        self.before_trial = kept.then(|| (self.gathered.clone(), self.next));
        kept
    }

    fn end_trial(&mut self, model: &mut Opt::Model, made: bool) {
        if let (Some(before), false) = (self.before_trial.take(), made) {
            (self.gathered, self.next) = before;
        }
        self.optimizer.end_trial(model, made);
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
