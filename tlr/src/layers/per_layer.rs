//! [`PerLayer`]: a learning rate for each layer.

use super::{LayerVisitor, LayerVisitorMut, Layers, TrainableLr};
use crate::optim::{
    forward, gradients::StepGradients, ErrOf, FailedUpdate, Family, Groups, OptimizerState,
    RestoreError, Resumable, ResumableFamily, TunableOptimizer,
};
use dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError, UnusedTensors},
    tensor::Gradients,
};
use std::{convert::Infallible, fmt};

type Optimizers<F> = <<F as TunableOptimizer>::Model as TrainableLr<
    <F as TunableOptimizer>::Dtype,
    <F as TunableOptimizer>::Device,
>>::Optimizers<F>;

/// An optimizer with one learning rate for each layer of a model.
///
/// It holds one base optimizer for each layer, for example one `Sgd<Layer, E, D>` each. So the
/// separate rates cost no additional pass over the parameters. [`TrainableLr`] determines what the
/// layers are. [`Newton`](crate::Newton) around a `PerLayer` learns the rate of each layer from
/// that layer's own dot products.
///
/// # Example
/// ```
/// use dfdx::{optim::{Sgd, SgdConfig}, prelude::*};
/// use tlr::{Newton, NewtonConfig, PerLayer};
///
/// let dev = Cpu::default();
/// let model = dev.build_module::<(Linear<4, 8>, ReLU, Linear<8, 2>), f32>();
/// let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
/// let opt = Newton::new(&model, PerLayer::new(&model, sgd), NewtonConfig::default())?;
/// assert_eq!(opt.rates(), [("0", 1e-3), ("2", 1e-3)]);
/// # Ok::<(), tlr::Error>(())
/// ```
pub struct PerLayer<F: Family>
where
    F::Model: TrainableLr<F::Dtype, F::Device>,
{
    family: F,
    optimizers: Optimizers<F>,
    layers: Layers,
    rates: Vec<f64>,
    /// Whether the next update only gathers gradients. The optimizers of all layers are updated
    /// together, so this is the same for all of them.
    only_gathers: bool,
    /// As it was before a trial.
    only_gathered: bool,
}

impl<F: Family> PerLayer<F>
where
    F::Model: TrainableLr<F::Dtype, F::Device>,
{
    /// Makes a copy of `optimizer` for each layer of `model`. Each starts at the rate of
    /// `optimizer`, times the factor of the layer's `#[tlr(rate = …)]` if it has one.
    ///
    /// Example: [`PerLayer`].
    pub fn new(model: &F::Model, optimizer: F) -> Self {
        let mut layers = Layers::default();
        let optimizers = model.optimizers(&optimizer, &mut layers);
        let start = optimizer.rate(0);
        let rates = layers.rate_scales().map(|scale| start * scale).collect();
        let only_gathers = optimizer.for_layer(model).only_gathers();
        let only_gathered = only_gathers;
        Self { family: optimizer, optimizers, layers, rates, only_gathers, only_gathered }
    }
}

impl<F: Family> fmt::Debug for PerLayer<F>
where
    F::Model: TrainableLr<F::Dtype, F::Device>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates: Vec<_> = self.layers.names().flatten().zip(&self.rates).collect();
        f.debug_struct("PerLayer").field("rates", &rates).finish_non_exhaustive()
    }
}

#[warn(clippy::missing_trait_methods)]
impl<F: Family> TunableOptimizer for PerLayer<F>
where
    F::Model: TrainableLr<F::Dtype, F::Device>,
{
    type Model = F::Model;
    type Dtype = F::Dtype;
    type Device = F::Device;

    forward! {
        Self { family, .. } => family;
        but rate, set_rate, reset, only_gathers, drop_gathered, begin_trial, end_trial, groups,
            failed_update, update_owned;
    }

    fn rate(&self, group: usize) -> f64 {
        self.rates.get(group).copied().unwrap_or(f64::NAN)
    }

    fn set_rate(&mut self, group: usize, rate: f64) {
        if let Some(own) = self.rates.get_mut(group) {
            *own = rate;
        }
    }

    fn reset(&mut self, model: &F::Model) {
        self.optimizers = model.optimizers(&self.family, &mut Layers::default());
        self.only_gathers = self.family.for_layer(model).only_gathers();
    }

    fn only_gathers(&self) -> bool {
        self.only_gathers
    }

    fn drop_gathered(&mut self, model: &mut F::Model) {
        let Ok(()) = model.visit_layers_mut(&mut self.optimizers, &mut DropGathered);
        self.only_gathers = self.family.for_layer(model).only_gathers();
    }

    fn begin_trial(&mut self, model: &mut F::Model) -> bool {
        let mut begun = BeginTrial { kept: true };
        let Ok(()) = model.visit_layers_mut(&mut self.optimizers, &mut begun);
        self.only_gathered = self.only_gathers;
        begun.kept
    }

    fn end_trial(&mut self, model: &mut F::Model, made: bool) {
        let Ok(()) = model.visit_layers_mut(&mut self.optimizers, &mut EndTrial { made });
        if !made {
            self.only_gathers = self.only_gathered;
        }
    }

    fn groups(&self, _model: &F::Model) -> Groups {
        self.layers.groups()
    }

    /// An optimizer can undo its own failed update, but not the updates of the layers before it.
    fn failed_update(&self) -> FailedUpdate {
        match self.family.failed_update() {
            FailedUpdate::Impossible => FailedUpdate::Impossible,
            FailedUpdate::Undone | FailedUpdate::HalfDone => FailedUpdate::HalfDone,
        }
    }

    fn update_owned(
        &mut self,
        model: &mut F::Model,
        gradients: &mut Gradients<F::Dtype, F::Device>,
    ) -> Result<(), OptimizerUpdateError<ErrOf<F>>> {
        self.update_layers(model, StepGradients::Owned(gradients))
    }
}

impl<F: Family> Optimizer<F::Model, F::Device, F::Dtype> for PerLayer<F>
where
    F::Model: TrainableLr<F::Dtype, F::Device>,
{
    fn update(
        &mut self,
        model: &mut F::Model,
        gradients: &Gradients<F::Dtype, F::Device>,
    ) -> Result<(), OptimizerUpdateError<ErrOf<F>>> {
        match self.family.complete_gradients(&*model, gradients)? {
            Some(mut own) => self.update_owned(model, &mut own),
            None => self.update_layers(model, StepGradients::Borrowed(gradients)),
        }
    }
}

impl<F: Family> PerLayer<F>
where
    F::Model: TrainableLr<F::Dtype, F::Device>,
{
    fn update_layers(
        &mut self,
        model: &mut F::Model,
        gradients: StepGradients<'_, F::Dtype, F::Device>,
    ) -> Result<(), OptimizerUpdateError<ErrOf<F>>> {
        let mut update = Update::<F> {
            gradients,
            groups: self.layers.group_of_layers(),
            layers: &self.layers,
            rates: &self.rates,
            unused: UnusedTensors::default(),
            only_gathers: false,
        };
        model.visit_layers_mut(&mut self.optimizers, &mut update)?;
        self.only_gathers = update.only_gathers;
        update.unused.into()
    }
}

struct DropGathered;

impl<F: Family> LayerVisitorMut<F> for DropGathered {
    type Err = Infallible;

    fn visit_layer<L>(&mut self, layer: &mut L, optimizer: &mut F::For<L>) -> Result<(), Infallible>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone,
    {
        optimizer.drop_gathered(layer);
        Ok(())
    }
}

struct BeginTrial {
    /// Whether the optimizers of all layers so far have kept a copy.
    kept: bool,
}

impl<F: Family> LayerVisitorMut<F> for BeginTrial {
    type Err = Infallible;

    fn visit_layer<L>(&mut self, layer: &mut L, optimizer: &mut F::For<L>) -> Result<(), Infallible>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone,
    {
        self.kept &= optimizer.begin_trial(layer);
        Ok(())
    }
}

struct EndTrial {
    made: bool,
}

impl<F: Family> LayerVisitorMut<F> for EndTrial {
    type Err = Infallible;

    fn visit_layer<L>(&mut self, layer: &mut L, optimizer: &mut F::For<L>) -> Result<(), Infallible>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone,
    {
        optimizer.end_trial(layer, self.made);
        Ok(())
    }
}

/// Updates each layer at its own rate. If a gradient is missing, it still updates the other layers
/// and reports all missing gradients at the end, as dfdx does.
struct Update<'a, F: Family> {
    gradients: StepGradients<'a, F::Dtype, F::Device>,
    groups: std::slice::Iter<'a, Option<usize>>,
    layers: &'a Layers,
    rates: &'a [f64],
    unused: UnusedTensors,
    only_gathers: bool,
}

impl<F: Family> LayerVisitorMut<F> for Update<'_, F> {
    type Err = OptimizerUpdateError<ErrOf<F>>;

    fn visit_layer<L>(&mut self, layer: &mut L, optimizer: &mut F::For<L>) -> Result<(), Self::Err>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone,
    {
        // A layer without trainable tensors has no group and nothing to update.
        let Some(group) = self.groups.next().copied().flatten() else { return Ok(()) };
        let Some(&rate) = self.rates.get(group) else { return Ok(()) };
        optimizer.set_rate(0, rate);
        // A walk over one layer does not see the attributes of the fields that lead to it.
        let updated = self.layers.mark(group).around(|| match &mut self.gradients {
            StepGradients::Borrowed(gradients) => optimizer.update(layer, gradients),
            StepGradients::Owned(gradients) => optimizer.update_owned(layer, gradients),
        });
        match updated {
            Err(OptimizerUpdateError::UnusedParams(unused)) => self.unused.ids.extend(unused.ids),
            result => result?,
        }
        self.only_gathers |= optimizer.only_gathers();
        Ok(())
    }
}

impl<F: ResumableFamily> Resumable for PerLayer<F>
where
    F::Model: TrainableLr<F::Dtype, F::Device>,
{
    fn state(&self, model: &F::Model) -> Result<OptimizerState, ErrOf<F>> {
        let mut save = Save { names: self.layers.names(), state: OptimizerState::default() };
        model.visit_layers(&self.optimizers, &mut save)?;
        Ok(save.state)
    }

    fn restore(
        &mut self,
        model: &mut F::Model,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<ErrOf<F>>> {
        let mut optimizers = model.optimizers(&self.family, &mut Layers::default());
        let mut load = Load { names: self.layers.names(), state, only_gathers: false };
        model.visit_layers_mut(&mut optimizers, &mut load)?;
        self.only_gathers = load.only_gathers;
        self.optimizers = optimizers;
        Ok(())
    }
}

struct Save<I> {
    names: I,
    state: OptimizerState,
}

impl<'a, F: ResumableFamily, I> LayerVisitor<F> for Save<I>
where
    I: Iterator<Item = Option<&'a str>>,
{
    type Err = ErrOf<F>;

    fn visit_layer<L>(&mut self, layer: &L, optimizer: &F::For<L>) -> Result<(), Self::Err>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone,
    {
        if let Some(name) = self.names.next().flatten() {
            self.state.insert_layer(name, F::layer_state(optimizer, layer)?);
        }
        Ok(())
    }
}

struct Load<'a, I> {
    names: I,
    state: &'a OptimizerState,
    only_gathers: bool,
}

impl<'a, F: ResumableFamily, I> LayerVisitorMut<F> for Load<'_, I>
where
    I: Iterator<Item = Option<&'a str>>,
{
    type Err = RestoreError<ErrOf<F>>;

    fn visit_layer<L>(&mut self, layer: &mut L, optimizer: &mut F::For<L>) -> Result<(), Self::Err>
    where
        L: TensorCollection<F::Dtype, F::Device> + Clone,
    {
        if let Some(name) = self.names.next().flatten() {
            F::restore_layer(optimizer, layer, &self.state.layer(name))
                .map_err(|error| error.in_layer(name))?;
            self.only_gathers |= optimizer.only_gathers();
        }
        Ok(())
    }
}
