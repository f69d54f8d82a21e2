//! Training that is saved, loaded into new objects and goes on, against training that never
//! stopped: equal to the bit. And files that are not what they should be.

mod failing;
mod files;
mod forged;
mod places;
mod processes;
mod to_the_bit;

use dfdx::{
    nn::modules,
    optim::{Momentum, Optimizer, SgdConfig},
    prelude::*,
};
use support::quadratic::Random;
use tlr::{
    optim::{Resumable, Sgd},
    Backend, Checkpoint, CheckpointError, Difference, Element, Error, Newton, NewtonConfig,
    PerLayer, Window,
};

#[derive(Clone, Debug, tlr::TensorCollection, tlr::TrainableLr)]
struct Net<E: Dtype, D: Device<E>> {
    hidden: modules::Linear<3, 8, E, D>,
    norm: modules::BatchNorm1D<8, E, D>,
    act: Tanh,
    head: modules::Linear<8, 1, E, D>,
}

/// An element type to train in.
trait Real: Element + num_traits::Float + rand_distr::uniform::SampleUniform {}

impl Real for f32 {}

impl Real for f64 {}

fn net<E: Real>(seed: u64) -> Net<E, Cpu>
where
    Cpu: Backend<E>,
{
    let dev = Cpu::seed_from_u64(seed);
    let linear = dev.build_module::<dfdx::prelude::Linear<3, 8>, E>();
    Net {
        hidden: linear,
        norm: dev.build_module::<BatchNorm1D<8>, E>(),
        act: Tanh,
        head: dev.build_module::<dfdx::prelude::Linear<8, 1>, E>(),
    }
}

/// Training and all it is made of.
struct Run<Opt: tlr::TunableOptimizer> {
    model: Opt::Model,
    opt: Newton<Opt>,
}

fn run<E, Opt>(seed: u64, window: usize, make: impl FnOnce(&Net<E, Cpu>) -> Opt) -> Run<Opt>
where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>,
{
    let model = net::<E>(seed);
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(window).unwrap());
    let opt = Newton::new(&model, make(&model), config).unwrap();
    Run { model, opt }
}

impl<E, Opt> Run<Opt>
where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>
        + Resumable,
{
    /// One step on the data of that step. Every 22nd and 23rd batch are broken, so that rollbacks
    /// are on the way, and every 29th is skipped.
    fn step(&mut self, step: u64) {
        let dev = Cpu::default();
        let mut random = Random(step.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let cast = |values: Vec<f64>| values.into_iter().map(|v| E::from_f64(v).unwrap()).collect();
        let x: Vec<E> = cast(random.vector(16 * 3));
        let y: Vec<E> = cast(random.vector(16));
        let x: Tensor<Rank2<16, 3>, E, _> = dev.tensor(x);
        let y: Tensor<Rank2<16, 1>, E, _> = dev.tensor(y);
        let traced = x.trace(self.model.alloc_grads());
        let hidden = self.model.hidden.forward(traced);
        let hidden = self.model.norm.forward_mut(hidden).tanh();
        let loss = mse_loss(self.model.head.forward(hidden), y);
        let value = loss.array().to_f64().unwrap();
        let fed = match step {
            _ if step % 23 >= 21 => 1e3,
            _ if step % 29 == 28 => f64::NAN,
            _ => value,
        };
        match self.opt.step(&mut self.model, &loss.backward(), fed) {
            // At a snapshot, or where it was: training can go on from there.
            Ok(_) | Err(Error::TooManyRollbacks { .. } | Error::NonFiniteLoss { .. }) => (),
            Err(error) => panic!("{error}"),
        }
    }

    fn steps(&mut self, steps: std::ops::Range<u64>) {
        steps.for_each(|step| self.step(step));
    }

    /// All there is, to the bit: a checkpoint holds nothing that does not matter.
    fn state(&mut self) -> Checkpoint {
        self.opt.checkpoint(&self.model).unwrap()
    }
}

type PerLayerSgd = PerLayer<Sgd<Net<f32, Cpu>, f32, Cpu>>;

fn momentum(model: &Net<f32, Cpu>) -> PerLayerSgd {
    let momentum = Some(Momentum::Classic(0.9));
    PerLayer::new(model, Sgd::new(model, SgdConfig { lr: 0.1, momentum, weight_decay: None }))
}

fn run_with(seed: u64, config: NewtonConfig) -> Run<PerLayerSgd> {
    let model = net::<f32>(seed);
    let opt = Newton::new(&model, momentum(&model), config).unwrap();
    Run { model, opt }
}

// ---- Files that are not what they should be ----

fn saved() -> (Run<PerLayerSgd>, Checkpoint) {
    let mut run = run(1, 4, momentum);
    run.steps(0..30);
    let checkpoint = run.state();
    (run, checkpoint)
}

/// The problem with loading `checkpoint`, and nothing has changed.
fn refused<E, Opt>(run: &mut Run<Opt>, checkpoint: &Checkpoint) -> CheckpointError
where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>
        + Resumable,
{
    let before = run.state();
    let error = run.opt.resume(&mut run.model, checkpoint).unwrap_err();
    assert_eq!(run.state(), before);
    match error {
        Error::Checkpoint { path: None, problem } => problem,
        other => panic!("{other}"),
    }
}

fn differences<E, Opt>(run: &mut Run<Opt>, checkpoint: &Checkpoint) -> Vec<Difference>
where
    E: Real,
    Cpu: Backend<E>,
    Opt: tlr::TunableOptimizer<Model = Net<E, Cpu>, Dtype = E, Device = Cpu>
        + Optimizer<Net<E, Cpu>, Cpu, E>
        + Resumable,
{
    match refused(run, checkpoint) {
        CheckpointError::Differs(differences) => differences,
        other => panic!("{other}"),
    }
}

fn setting(name: &str, file: &str, here: &str) -> Difference {
    let some = |value: &str| Some(value.to_owned());
    Difference::Setting { name: name.to_owned(), file: some(file), here: some(here) }
}
