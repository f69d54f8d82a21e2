//! Tasks whose examples are rows of numbers.

use super::{
    images::digits,
    measure::{rows, Measure},
    models::{Coder, Line, Planar, Recurrent},
    numbers::Random,
    task::{Opened, Task},
};
use crate::{
    data::Batches,
    lab::{Batch, Budget, Problem, Scale, Tested},
    layers::Rows,
    train::{tensor, TrainError, TrainLoss},
};
use dfdx::{
    losses::{cross_entropy_with_logits_loss, mse_loss},
    nn::{BuildModule, Module, NumParams, ZeroGrads},
    prelude::{Const, Cpu, CpuError, Gradients, NoneTape, OwnedTape, Trace},
};
use std::marker::PhantomData;
use tlr::TrainableLr;

pub(super) fn tasks() -> Vec<Task> {
    vec![
        Task {
            name: "autoencoder",
            about: "784 pixels through 16 numbers and back, squared error over MNIST, where it is \
                    at hand, or drawn digits",
            needs: None,
            open: |folders, scale| {
                let [train, test] = scale.pick([256, 64], [6_400, 500], [60_000, 10_000]);
                let (name, data) = digits(folders, train, test)?;
                let scaling = data.train.scaling();
                let rows = |images: &crate::data::Images| {
                    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
                    let all: Vec<_> = (0..images.len()).collect();
                    images.write_batch(&all, &scaling, &mut pixels, &mut labels)?;
                    Ok::<_, TrainError>(Examples { y: pixels.clone(), x: pixels })
                };
                let (train, test) = (rows(&data.train)?, rows(&data.test)?);
                let epochs = scale.pick(2, 3, 10);
                vectors::<Coder, 784, 784>(name, Measure::Squares, train, test, 64, epochs)
            },
        },
        Task {
            name: "heavy-tails",
            about: "a line over 32 numbers, with normal noise cubed, in batches of 8",
            needs: None,
            open: |_, scale| {
                let mut truth = Random::new(1);
                let line: Vec<f32> = (0..32).map(|_| truth.normal() / 4.0).collect();
                let draw = |random: &mut Random| {
                    let x: Vec<f32> = (0..32).map(|_| random.normal()).collect();
                    let y = dot(&x, &line) + 0.3 * random.normal().powi(3);
                    (x, vec![y])
                };
                drawn::<Line, 32, 1>(scale, Measure::Squares, 8, 2, draw)
            },
        },
        Task {
            name: "ill-conditioned",
            about: "a line over 32 numbers whose deviations go from 1 down to 1/100, each of them \
                    as much of the error, and a little noise",
            needs: None,
            open: |_, scale| {
                let draw = |random: &mut Random| {
                    let z: Vec<f32> = (0..32).map(|_| random.normal()).collect();
                    let deviation = |n: usize| 10.0_f32.powf(-2.0 * n as f32 / 31.0);
                    let x = z.iter().enumerate().map(|(n, z)| z * deviation(n)).collect();
                    let y = z.iter().sum::<f32>() / 32.0_f32.sqrt() + 0.1 * random.normal();
                    (x, vec![y])
                };
                drawn::<Line, 32, 1>(scale, Measure::Squares, 16, 4, draw)
            },
        },
        Task {
            name: "spirals",
            about: "two arms of a spiral, a tenth of the labels wrong, two layers of 32 units",
            needs: None,
            open: |_, scale| {
                let draw = |random: &mut Random| {
                    let class = random.below(2);
                    let radius = 0.2 + 1.8 * random.uniform();
                    let angle = 2.5 * radius + std::f32::consts::PI * class as f32;
                    let [dx, dy] = [random.normal(), random.normal()];
                    let x =
                        vec![radius * angle.cos() + 0.05 * dx, radius * angle.sin() + 0.05 * dy];
                    let wrong = usize::from(random.uniform() < 0.1);
                    let mut y = vec![0.0; 2];
                    if let Some(label) = y.get_mut((class + wrong) % 2) {
                        *label = 1.0;
                    }
                    (x, y)
                };
                drawn::<Planar, 2, 2>(scale, Measure::Entropy, 32, 4, draw)
            },
        },
        Task {
            name: "recurrent",
            about: "the product of the first and the last of eight numbers, read one by one",
            needs: None,
            open: |_, scale| {
                let draw = |random: &mut Random| {
                    let x: Vec<f32> = (0..8).map(|_| random.normal()).collect();
                    let ends = x.first().zip(x.last()).map_or(0.0, |(a, b)| a * b);
                    (x, vec![ends + 0.1 * random.normal()])
                };
                drawn::<Recurrent<f32, Cpu>, 8, 1>(scale, Measure::Squares, 32, 4, draw)
            },
        },
    ]
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rows of inputs, and rows of the targets.
#[derive(Default)]
struct Examples {
    x: Vec<f32>,
    y: Vec<f32>,
}

/// The next `count` examples of a stream.
fn examples(
    random: &mut Random,
    count: usize,
    draw: &impl Fn(&mut Random) -> (Vec<f32>, Vec<f32>),
) -> Examples {
    let mut all = Examples::default();
    for _ in 0..count {
        let (x, y) = draw(random);
        all.x.extend(x);
        all.y.extend(y);
    }
    all
}

/// How many examples a drawn task is tested on.
const TEST: usize = 2_000;

/// A task on drawn examples, of a thousand steps where the scale is small.
fn drawn<M: Maps<I, O>, const I: usize, const O: usize>(
    scale: Scale,
    measure: Measure,
    batch: usize,
    epochs: usize,
    draw: impl Fn(&mut Random) -> (Vec<f32>, Vec<f32>),
) -> Opened {
    let steps = scale.pick(40, 1_000, 10_000);
    let train = examples(&mut Random::new(2), batch * steps / epochs, &draw);
    let test = examples(&mut Random::new(3), scale.pick(100, TEST, 10_000), &draw);
    vectors::<M, I, O>("drawn", measure, train, test, batch, epochs)
}

fn vectors<M: Maps<I, O>, const I: usize, const O: usize>(
    name: &str,
    measure: Measure,
    train: Examples,
    test: Examples,
    batch: usize,
    epochs: usize,
) -> Opened {
    let count = train.y.len() / O;
    let batches = Batches::new(count, batch, 0)?.batches_per_epoch();
    let budget = Budget { epochs, batches };
    let data = format!("{name}, {count} examples, batch {batch}, {epochs} epochs");
    let model = PhantomData::<fn() -> M>;
    Ok(Box::new(Vectors { data, budget, batch, measure, train, test, model }))
}

/// A model that maps rows to rows.
trait Maps<const I: usize, const O: usize>:
    TrainableLr<f32, Cpu>
    + BuildModule<Cpu, f32>
    + NumParams<f32, Cpu>
    + ZeroGrads<f32, Cpu>
    + Module<
        Rows<usize, I, f32, Cpu, OwnedTape<f32, Cpu>>,
        Output = Rows<usize, O, f32, Cpu, OwnedTape<f32, Cpu>>,
        Error = CpuError,
    > + Module<
        Rows<usize, I, f32, Cpu, NoneTape>,
        Output = Rows<usize, O, f32, Cpu, NoneTape>,
        Error = CpuError,
    > + 'static
{
}

impl<M, const I: usize, const O: usize> Maps<I, O> for M where
    M: TrainableLr<f32, Cpu>
        + BuildModule<Cpu, f32>
        + NumParams<f32, Cpu>
        + ZeroGrads<f32, Cpu>
        + Module<
            Rows<usize, I, f32, Cpu, OwnedTape<f32, Cpu>>,
            Output = Rows<usize, O, f32, Cpu, OwnedTape<f32, Cpu>>,
            Error = CpuError,
        > + Module<
            Rows<usize, I, f32, Cpu, NoneTape>,
            Output = Rows<usize, O, f32, Cpu, NoneTape>,
            Error = CpuError,
        > + 'static
{
}

struct Vectors<M, const I: usize, const O: usize> {
    data: String,
    budget: Budget,
    batch: usize,
    measure: Measure,
    train: Examples,
    test: Examples,
    model: PhantomData<fn() -> M>,
}

impl<M: Maps<I, O>, const I: usize, const O: usize> Problem for Vectors<M, I, O> {
    type Model = M;

    fn budget(&self) -> Budget {
        self.budget
    }

    fn data(&self) -> String {
        self.data.clone()
    }

    fn build(&self, device: &Cpu) -> Result<M, TrainError> {
        Ok(M::try_build(device)?)
    }

    fn epoch(&self, epoch: usize, seed: u64) -> Result<Vec<Vec<usize>>, TrainError> {
        Ok(Batches::new(self.train.y.len() / O, self.batch, seed)?.epoch(epoch).collect())
    }

    fn loss(
        &self,
        device: &Cpu,
        model: &mut M,
        batch: Batch<'_>,
        gradients: Gradients<f32, Cpu>,
    ) -> Result<TrainLoss, TrainError> {
        let examples = batch.examples;
        let (x, y) = (rows::<I>(&self.train.x, examples), rows::<O>(&self.train.y, examples));
        let x = tensor(device, &x, (examples.len(), Const::<I>))?;
        let y = tensor(device, &y, (examples.len(), Const::<O>))?;
        let output: Rows<usize, O, f32, Cpu, OwnedTape<f32, Cpu>> =
            model.try_forward(x.traced(gradients))?;
        Ok(match self.measure {
            Measure::Squares => mse_loss(output, y),
            Measure::Entropy => cross_entropy_with_logits_loss(output, y),
        })
    }

    fn test(&self, device: &Cpu, model: &M) -> Result<Tested, TrainError> {
        let x = tensor(device, &self.test.x, (self.test.y.len() / O, Const::<I>))?;
        let output: Rows<usize, O, f32, Cpu, NoneTape> = model.try_forward(x)?;
        Ok(self.measure.test::<O>(&output.as_vec(), &self.test.y))
    }
}
