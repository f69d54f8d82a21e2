//! What the ranks are to learn: a small network, and how it is trained on some rows of the data.

use dfdx::{losses::mse_loss, optim::SgdConfig, prelude::*};
use std::ops::Range;
use support::{
    quadratic::Random,
    values::{bits, largest, largest_error, values},
};
use tlr::{
    optim::Sgd,
    parallel::{Communicator, Ranks},
    Adaptation, DataParallel, Error, Newton, NewtonConfig, Step, TrainableLr, TunableOptimizer,
    Window,
};

/// A layer of 16 between 4 numbers and 1.
pub(crate) type Net<E> =
    (modules::Linear<4, 16, E, Cpu>, modules::Tanh, modules::Linear<16, 1, E, Cpu>);

/// Rows of numbers, and what is to be learned of them.
pub(crate) struct Data {
    inputs: Vec<f64>,
    targets: Vec<f64>,
}

impl Data {
    pub(crate) fn new(rows: usize) -> Self {
        let mut random = Random(5);
        let inputs = random.vector(4 * rows);
        let target = |row: &[f64]| (3.0 * row[0]).sin() + row[1] * row[2] - 0.5 * row[3];
        let targets = inputs.chunks(4).map(target).collect();
        Self { inputs, targets }
    }
}

/// The element types that the tests train in.
pub(crate) trait Real:
    Dtype + tlr::Element + num_traits::Float + rand_distr::uniform::SampleUniform
where
    Cpu: tlr::Backend<Self>,
{
    fn new_net(seed: u64) -> Net<Self>;

    /// The mean squared error over some rows, and its gradients.
    fn loss(net: &Net<Self>, data: &Data, rows: Range<usize>) -> (f64, Gradients<Self, Cpu>);
}

macro_rules! real {
    ($($E:ty),+) => {$(
        impl Real for $E {
            fn new_net(seed: u64) -> Net<Self> {
                Cpu::seed_from_u64(seed).build_module::<(Linear<4, 16>, Tanh, Linear<16, 1>), $E>()
            }

            fn loss(
                net: &Net<Self>,
                data: &Data,
                rows: Range<usize>,
            ) -> (f64, Gradients<Self, Cpu>) {
                if rows.is_empty() {
                    return (0.0, net.alloc_grads());
                }
                let dev = Cpu::default();
                let of = |values: &[f64]| values.iter().map(|v| *v as $E).collect::<Vec<$E>>();
                let count = rows.len();
                let inputs = of(&data.inputs[4 * rows.start..4 * rows.end]);
                let x = dev.tensor_from_vec(inputs, (count, Const::<4>));
                let y = dev.tensor_from_vec(of(&data.targets[rows]), (count, Const::<1>));
                let loss = mse_loss(net.forward(x.trace(net.alloc_grads())), y);
                (f64::from(loss.array()), loss.backward())
            }
        }
    )+};
}

real!(f32, f64);

/// What training came to.
#[derive(Clone, Debug)]
pub(crate) struct Trained {
    pub(crate) weights: Vec<f64>,
    pub(crate) bits: Vec<u64>,
    pub(crate) rates: Vec<f64>,
    pub(crate) steps: Vec<Step>,
    pub(crate) history: Vec<Adaptation>,
}

impl Trained {
    /// By how much the weights differ from others, as a part of the largest.
    pub(crate) fn distance(&self, other: &Self) -> f64 {
        let size = largest(self.weights.iter().map(|w| w.abs()));
        largest_error(&self.weights, &other.weights) / size
    }
}

pub(crate) fn config() -> NewtonConfig {
    NewtonConfig::default().window(Window::steps(7).unwrap())
}

/// Rows of a batch of all ranks together, of which there are several in the data.
pub(crate) const BATCH: usize = 24;
pub(crate) const BATCHES: usize = 5;

/// The part of the rows `all` that a rank has, equal parts where that is possible.
pub(crate) fn part(all: Range<usize>, rank: usize, size: usize) -> Range<usize> {
    let at = |rank: usize| all.start + all.len() * rank / size;
    at(rank)..at(rank + 1)
}

/// Trains `net` by `optimizer` on the part of a rank, for some steps.
pub(crate) fn train<E, Opt>(
    mut net: Net<E>,
    optimizer: Opt,
    [rank, size]: [usize; 2],
    steps: usize,
) -> Result<Trained, Error>
where
    E: Real,
    Cpu: tlr::Backend<E>,
    Opt: TunableOptimizer<Model = Net<E>, Dtype = E, Device = Cpu>,
{
    let data = Data::new(BATCH * BATCHES);
    let mut opt = Newton::new(&net, optimizer, config())?;
    let mut made = Vec::new();
    for step in 0..steps {
        let begin = step % BATCHES * BATCH;
        let (loss, mut gradients) = E::loss(&net, &data, part(begin..begin + BATCH, rank, size));
        // By copies and in place, turn by turn.
        made.push(match step % 2 {
            0 => opt.step(&mut net, &gradients, loss)?,
            _ => opt.step_owned(&mut net, &mut gradients, loss)?,
        });
    }
    Ok(Trained {
        weights: values(&net),
        bits: bits(&net),
        rates: opt.rates().iter().map(|(_, rate)| *rate).collect(),
        steps: made,
        history: opt.history().to_vec(),
    })
}

/// The plainest optimizer, whose rate is to be learned.
pub(crate) fn sgd<E: Real, M: TrainableLr<E, Cpu>>(model: &M) -> Sgd<M, E, Cpu>
where
    Cpu: tlr::Backend<E>,
{
    Sgd::new(model, SgdConfig { lr: 1e-2, ..Default::default() })
}

/// `train` on several ranks that begin with other weights and take over those of the first.
pub(crate) fn train_together<E, Opt, C>(
    ranks: Ranks<C>,
    make: impl Fn(&Net<E>) -> Opt,
    steps: usize,
) -> Result<Trained, Error>
where
    E: Real,
    Cpu: tlr::Backend<E>,
    Opt: TunableOptimizer<Model = Net<E>, Dtype = E, Device = Cpu>,
    C: Communicator,
{
    let mut net = E::new_net(ranks.rank() as u64);
    let place = [ranks.rank(), ranks.size()];
    let mut optimizer = DataParallel::new(make(&net), ranks);
    optimizer.broadcast(&mut net)?;
    train(net, optimizer, place, steps)
}
