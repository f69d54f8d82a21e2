//! The optimizer that the options ask for, for any model.

use super::{
    together::Together, AnyRanks, Base, Learner, Mode, Options, Rule, ScheduleKind, TrainDevice,
};
use crate::baselines::Unchanging;
use dfdx::{
    nn::TensorCollection,
    optim::{
        AdamConfig, Momentum, Optimizer, OptimizerUpdateError, RMSpropConfig, SgdConfig,
        WeightDecay,
    },
    prelude::Gradients,
};
use serde::Serialize;
use tlr::{
    engine::{DirectionProducts, HypergradientRule, NewtonForm, NewtonRule, Proposal, RateRule},
    optim::{
        forward, Adam, OptimizerState, RMSprop, RestoreError, Resumable, ResumableFamily, Sgd,
    },
    parallel::Communicator,
    Config, DataParallel, Error, Family, NewtonConfig, PerLayer, Safeguard, TrainableLr, Trainer,
    TunableOptimizer, Window,
};

/// The optimizer that `options` ask for, on these ranks together, for epochs of `batches_per_epoch`
/// batches.
///
/// # Errors
/// Options that make no sense.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::train::{alone, learner, Net, Options};
///
/// let model: Net = BuildModule::build(&Cpu::default());
/// let options = Options { rate: 1e-3, ..Options::default() };
/// let opt = learner(&model, &options, 100, alone())?;
/// assert_eq!(opt.rates(), [("model", 1e-3)]);
/// # Ok::<(), tlr::Error>(())
/// ```
pub fn learner<M: TrainableLr<f32, D> + 'static, D: TrainDevice>(
    model: &M,
    options: &Options,
    batches_per_epoch: usize,
    ranks: AnyRanks,
) -> Result<Box<dyn Learner<M, D>>, Error> {
    Ok(match options.mode {
        Mode::Global => Box::new(Together(one_rate(model, options, batches_per_epoch, ranks)?)),
        Mode::PerLayer => {
            Box::new(Together(a_rate_a_layer(model, options, batches_per_epoch, ranks)?))
        }
    })
}

/// A trainer around an optimizer of one rank that averages gradients over all ranks.
pub(super) type DistributedTrainer<Opt> =
    Trainer<DataParallel<Opt, Box<dyn Communicator>>, AnyRule>;

/// One rate for the whole model.
pub(super) fn one_rate<M: TrainableLr<f32, D> + 'static, D: TrainDevice>(
    model: &M,
    options: &Options,
    batches_per_epoch: usize,
    ranks: AnyRanks,
) -> Result<DistributedTrainer<AnyOptimizer<M, D>>, Error> {
    around(model, AnyOptimizer::new(model, options), options, batches_per_epoch, ranks)
}

/// One rate for each layer.
pub(super) fn a_rate_a_layer<M: TrainableLr<f32, D> + 'static, D: TrainDevice>(
    model: &M,
    options: &Options,
    batches_per_epoch: usize,
    ranks: AnyRanks,
) -> Result<DistributedTrainer<PerLayer<AnyOptimizer<M, D>>>, Error> {
    let optimizer = PerLayer::new(model, AnyOptimizer::new(model, options));
    around(model, optimizer, options, batches_per_epoch, ranks)
}

fn around<Opt>(
    model: &Opt::Model,
    optimizer: Opt,
    options: &Options,
    batches_per_epoch: usize,
    ranks: AnyRanks,
) -> Result<DistributedTrainer<Opt>, Error>
where
    Opt: TunableOptimizer<Dtype = f32, Device: TrainDevice>,
{
    options.check_numbers()?;
    let rule = AnyRule::new(options);
    let safeguard = options.safeguard && options.rule != Rule::Constant && options.sketch.is_none();
    let steps = options.epochs.saturating_mul(batches_per_epoch) as u64;
    let config = match options.rule {
        Rule::Aligned => NewtonConfig::default().of_rule(rule).ramp(options.ramp),
        _ => Config::new(rule),
    };
    let config = config
        .horizon((options.schedule == ScheduleKind::Horizon).then_some(steps))
        .window(Window::fraction_of_epoch(options.window_fraction, batches_per_epoch)?)
        .safeguard(safeguard.then(Safeguard::default))
        .sketch(options.sketch)
        .bf16_directions(options.bf16_directions);
    let schedule = options.schedule.schedule(options.epochs, batches_per_epoch)?;
    let optimizer = DataParallel::new(optimizer, ranks).shard_snapshots();
    Ok(Trainer::new(model, optimizer, config)?.schedule(schedule))
}

/// One of the optimizers. A type of its own, so that a model is compiled with two optimizers,
/// global and per layer, and not with thirty.
pub(super) enum AnyOptimizer<M, D: TrainDevice> {
    Sgd(Sgd<M, f32, D>),
    Adam(Adam<M, f32, D>),
    Rmsprop(RMSprop<M, f32, D>),
}

/// Calls the same code for whichever variant it is.
macro_rules! each {
    ($optimizer:expr, $inner:ident => $body:expr) => {
        match $optimizer {
            AnyOptimizer::Sgd($inner) => $body,
            AnyOptimizer::Adam($inner) => $body,
            AnyOptimizer::Rmsprop($inner) => $body,
        }
    };
}

impl<M: TensorCollection<f32, D> + Clone, D: TrainDevice> AnyOptimizer<M, D> {
    fn new(model: &M, options: &Options) -> Self {
        let lr = options.rate;
        let weight_decay =
            (options.weight_decay != 0.0).then_some(WeightDecay::L2(options.weight_decay));
        let sgd = |momentum| Self::Sgd(Sgd::new(model, SgdConfig { lr, momentum, weight_decay }));
        match options.optimizer {
            Base::Sgd => sgd(None),
            Base::Momentum => sgd(Some(Momentum::Classic(0.9))),
            Base::Nesterov => sgd(Some(Momentum::Nesterov(0.9))),
            Base::Adam => {
                Self::Adam(Adam::new(model, AdamConfig { lr, weight_decay, ..Default::default() }))
            }
            Base::Rmsprop => Self::Rmsprop(RMSprop::new(
                model,
                RMSpropConfig { lr, weight_decay, ..Default::default() },
            )),
        }
    }
}

impl<M: TensorCollection<f32, D> + Clone, D: TrainDevice> Optimizer<M, D, f32>
    for AnyOptimizer<M, D>
{
    fn update(
        &mut self,
        model: &mut M,
        gradients: &Gradients<f32, D>,
    ) -> Result<(), OptimizerUpdateError<D::Err>> {
        each!(self, optimizer => optimizer.update(model, gradients))
    }
}

#[warn(clippy::missing_trait_methods)]
impl<M: TensorCollection<f32, D> + Clone, D: TrainDevice> TunableOptimizer for AnyOptimizer<M, D> {
    type Model = M;
    type Dtype = f32;
    type Device = D;

    forward! {
        Self::Sgd(sgd) => sgd, Self::Adam(adam) => adam, Self::Rmsprop(rmsprop) => rmsprop;
    }
}

impl<M: TensorCollection<f32, D> + Clone, D: TrainDevice> Family for AnyOptimizer<M, D> {
    type For<L: TensorCollection<f32, D> + Clone> = AnyOptimizer<L, D>;

    fn for_layer<L: TensorCollection<f32, D> + Clone>(&self, layer: &L) -> AnyOptimizer<L, D> {
        match self {
            Self::Sgd(optimizer) => AnyOptimizer::Sgd(optimizer.for_layer(layer)),
            Self::Adam(optimizer) => AnyOptimizer::Adam(optimizer.for_layer(layer)),
            Self::Rmsprop(optimizer) => AnyOptimizer::Rmsprop(optimizer.for_layer(layer)),
        }
    }
}

impl<M: TensorCollection<f32, D> + Clone, D: TrainDevice> Resumable for AnyOptimizer<M, D> {
    fn state(&self, model: &M) -> Result<OptimizerState, D::Err> {
        each!(self, optimizer => optimizer.state(model))
    }

    fn restore(
        &mut self,
        model: &mut M,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<D::Err>> {
        each!(self, optimizer => optimizer.restore(model, state))
    }
}

impl<M: TensorCollection<f32, D> + Clone, D: TrainDevice> ResumableFamily for AnyOptimizer<M, D> {
    fn layer_state<L>(optimizer: &AnyOptimizer<L, D>, layer: &L) -> Result<OptimizerState, D::Err>
    where
        L: TensorCollection<f32, D> + Clone,
    {
        optimizer.state(layer)
    }

    fn restore_layer<L>(
        optimizer: &mut AnyOptimizer<L, D>,
        layer: &mut L,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<D::Err>>
    where
        L: TensorCollection<f32, D> + Clone,
    {
        optimizer.restore(layer, state)
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) enum AnyRule {
    Newton(NewtonRule),
    FirstOrder(HypergradientRule),
    /// The rate stays: a baseline that runs through the same code.
    Constant,
}

impl AnyRule {
    fn new(options: &Options) -> Self {
        let newton = |form| NewtonRule::default().form(form).damping(options.damping);
        match options.rule {
            Rule::Aligned => Self::Newton(newton(NewtonForm::Aligned)),
            Rule::Paper => Self::Newton(newton(NewtonForm::Paper).max_factor(100.0)),
            Rule::Additive => Self::FirstOrder(HypergradientRule::additive(options.meta_rate)),
            Rule::Multiplicative => {
                Self::FirstOrder(HypergradientRule::multiplicative(options.meta_rate))
            }
            Rule::Constant => Self::Constant,
        }
    }
}

impl RateRule for AnyRule {
    fn propose(&self, rate: f64, previous: f64, products: &DirectionProducts) -> Proposal {
        match self {
            Self::Newton(rule) => rule.propose(rate, previous, products),
            Self::FirstOrder(rule) => rule.propose(rate, previous, products),
            Self::Constant => Unchanging.propose(rate, previous, products),
        }
    }

    fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Newton(rule) => rule.validate(),
            Self::FirstOrder(rule) => rule.validate(),
            Self::Constant => Unchanging.validate(),
        }
    }
}
