//! A job: what is trained, by which losses, and how good it is.

use super::{
    base::{Base, Rule},
    data::Random,
};
use dfdx::{nn::BuildModule, prelude::*};
use tlr::optim::Elementwise;

/// A loss whose gradients can be computed.
pub(crate) type Loss = Tensor<Rank0, f32, Cpu, OwnedTape<f32, Cpu>>;
/// A batch of vectors.
pub(crate) type Rows<const N: usize, T = NoneTape> = Tensor<(usize, Const<N>), f32, Cpu, T>;
/// What a batch of vectors is traced by.
pub(crate) type Traced = OwnedTape<f32, Cpu>;

type LossOf<M> = Box<dyn FnMut(&mut M, Gradients<f32, Cpu>, usize) -> Loss>;
type ErrorOf<M> = Box<dyn Fn(&M) -> f64>;

/// A job with a model of type `M`.
pub(crate) struct Job<M> {
    pub(crate) model: M,
    /// The loss of a step's batch; steps count from 0.
    pub(crate) loss: LossOf<M>,
    /// How far a model is from what it should do: never negative, and 0 where all is learned.
    pub(crate) error: ErrorOf<M>,
    /// The error that others are a share of.
    pub(crate) unit: f64,
}

impl<M: 'static> Job<M> {
    /// A job whose unit is the error at the start.
    pub(crate) fn new(
        model: M,
        loss: impl FnMut(&mut M, Gradients<f32, Cpu>, usize) -> Loss + 'static,
        error: impl Fn(&M) -> f64 + 'static,
    ) -> Self {
        let unit = error(&model);
        Self { model, loss: Box::new(loss), error: Box::new(error), unit }
    }

    /// The same job with another loss, made of the loss and the step.
    pub(crate) fn with_loss(mut self, change: fn(Loss, usize) -> Loss) -> Self {
        let mut loss = self.loss;
        self.loss =
            Box::new(move |model, gradients, step| change(loss(model, gradients, step), step));
        self
    }
}

impl<M: TensorCollection<f32, Cpu> + Clone> Job<M> {
    /// The model after so many steps of plain descent at this rate.
    pub(crate) fn trained(self, steps: usize, rate: f64) -> M {
        let Self { mut model, mut loss, .. } = self;
        let mut sgd = Elementwise::new(&model, Rule { base: Base::Sgd, lr: rate, decay: 0.0 });
        for step in 0..steps {
            let gradients = model.alloc_grads();
            let gradients = loss(&mut model, gradients, step).backward();
            sgd.update(&mut model, &gradients).unwrap();
        }
        model
    }
}

/// Where all of a run is drawn from.
pub(crate) struct Start {
    pub(crate) seed: u64,
    /// How many examples a batch of training has.
    pub(crate) batch: usize,
    pub(crate) dev: Cpu,
    /// For what is to be learned.
    pub(crate) truth: Random,
}

impl Start {
    pub(crate) fn new(seed: u64, batch: usize) -> Self {
        let dev = Cpu::seed_from_u64(seed);
        dev.enable_cache();
        Self { seed, batch, dev, truth: Random::new(seed, 0) }
    }

    /// The batches of training.
    pub(crate) fn batches(&self) -> Random {
        Random::new(self.seed, 1)
    }

    /// What is measured on.
    pub(crate) fn clean(&self) -> Random {
        Random::new(self.seed, 2)
    }

    /// A model as dfdx makes it.
    pub(crate) fn build<B: BuildOnDevice<Cpu, f32>>(&self) -> B::Built
    where
        B::Built: BuildModule<Cpu, f32>,
    {
        self.dev.build_module::<B, f32>()
    }

    /// A tensor of rows.
    pub(crate) fn rows<const N: usize>(&self, rows: &[[f32; N]]) -> Rows<N> {
        self.dev.tensor_from_vec(rows.concat(), (rows.len(), Const))
    }
}

/// `N` columns of a batch of rows.
pub(crate) fn part<const I: usize, const N: usize>(x: &Rows<I>, from: usize) -> Rows<N> {
    let x_values = x.as_vec();
    let rows = x_values.chunks_exact(I).flat_map(|row| &row[from..from + N]);
    x.device().tensor_from_vec(rows.copied().collect(), (x.shape().0, Const))
}

/// What the outputs of a supervised job are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The mean squared error.
    Squares,
    /// The cross entropy of logits; as an error, without the entropy of the targets.
    Entropy,
}

impl Measure {
    fn loss<const O: usize>(self, output: Rows<O, Traced>, target: Rows<O>) -> Loss {
        match self {
            Self::Squares => mse_loss(output, target),
            Self::Entropy => cross_entropy_with_logits_loss(output, target),
        }
    }

    /// The mean error of rows of `O` outputs.
    pub(crate) fn error<const O: usize>(self, output: &[f32], target: &[f32]) -> f64 {
        let of_row = |(output, target): (&[f32], &[f32])| match self {
            Self::Squares => {
                let squares = output.iter().zip(target).map(|(o, t)| f64::from(o - t).powi(2));
                squares.sum::<f64>() / O as f64
            }
            Self::Entropy => {
                let output: Vec<f64> = output.iter().map(|o| f64::from(*o)).collect();
                let largest = output.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = output.iter().map(|o| (o - largest).exp()).sum();
                let logs = output.iter().map(|o| o - largest - sum.ln());
                let pairs = target.iter().map(|t| f64::from(*t)).zip(logs);
                pairs.map(|(t, log)| if t > 0.0 { t * (t.ln() - log) } else { 0.0 }).sum()
            }
        };
        let rows = output.len() / O;
        output.chunks_exact(O).zip(target.chunks_exact(O)).map(of_row).sum::<f64>() / rows as f64
    }
}

/// The number of examples that a supervised job is measured on.
pub(crate) const CLEAN: usize = 256;

/// A job on a stream of examples, in batches of `start.batch`: `examples` are trained on, one by
/// one and told the step; `clean` are measured on.
pub(crate) fn supervised<M, const I: usize, const O: usize>(
    start: &Start,
    model: M,
    measure: Measure,
    mut examples: impl FnMut(&mut Random, usize) -> ([f32; I], [f32; O]) + 'static,
    mut clean: impl FnMut(&mut Random) -> ([f32; I], [f32; O]),
) -> Job<M>
where
    M: 'static
        + Module<Rows<I>, Output = Rows<O>>
        + Module<Rows<I, Traced>, Output = Rows<O, Traced>>,
{
    let mut random = start.clean();
    let (x, y): (Vec<_>, Vec<_>) = (0..CLEAN).map(|_| clean(&mut random)).unzip();
    let (x, y) = (start.rows(&x), y.concat());
    let error = move |model: &M| {
        let output: Rows<O> = model.forward(x.clone());
        measure.error::<O>(&output.as_vec(), &y)
    };

    let mut random = start.batches();
    let (dev, batch) = (start.dev.clone(), start.batch);
    let loss = move |model: &mut M, gradients, step| {
        let (x, y): (Vec<_>, Vec<_>) = (0..batch).map(|_| examples(&mut random, step)).unzip();
        let x: Rows<I> = dev.tensor_from_vec(x.concat(), (batch, Const));
        let y = dev.tensor_from_vec(y.concat(), (batch, Const));
        let output: Rows<O, Traced> = model.forward(x.trace(gradients));
        measure.loss(output, y)
    };
    Job::new(model, loss, error)
}
