//! What is done to gradients before an optimizer sees them: `Clip` and `Accumulate`, alone and
//! under learned rates.

mod accumulate;
mod clip;
mod newton;

use dfdx::{
    optim::{Momentum, SgdConfig},
    prelude::*,
};
use support::{
    quadratic::{dot, Quadratic, Random},
    values::{gradients, set_weights, vector, Vector},
};
use tlr::{
    optim::{Accumulate, Sgd},
    Backend, Newton, NewtonConfig, TunableOptimizer, Window,
};

type Layers = <(Linear<2, 2>, Tanh, Linear<2, 1>) as BuildOnDevice<Cpu, f64>>::Built;

/// All weights are 0.
fn layers() -> Layers {
    let mut model = Cpu::default().build_module::<(Linear<2, 2>, Tanh, Linear<2, 1>), f64>();
    set_weights(&mut model, &[0.0; LEN]);
    model
}

/// Weights of [`Layers`], the first six of them in the first layer.
const LEN: usize = 9;

const FIRST: usize = 6;

fn sgd<M, E: Dtype>(model: &M, lr: f64) -> Sgd<M, E, Cpu>
where
    Cpu: Backend<E>,
{
    Sgd::new(model, SgdConfig { lr, ..Default::default() })
}

fn momentum<M>(model: &M, lr: f64) -> Sgd<M, f64, Cpu> {
    let momentum = Some(Momentum::Classic(0.9));
    Sgd::new(model, SgdConfig { lr, momentum, weight_decay: None })
}

fn update<Opt>(opt: &mut Opt, model: &mut Opt::Model, g: &[f64])
where
    Opt: TunableOptimizer,
{
    let here = gradients(&*model, g);
    if let Err(error) = opt.update(model, &here) {
        panic!("{error:?}");
    }
}

const BATCHES: usize = 3;

/// Gradients and losses of three batches of a quadratic, whose means are those of all: with noise
/// of its own each.
struct Batches {
    quadratic: Quadratic,
    random: Random,
    noise: f64,
}

/// A gradient and a loss.
type Batch = (Vec<f64>, f64);

impl Batches {
    fn new(noise: f64) -> Self {
        let mut random = Random(5);
        let spectrum = [0.1, 0.2, 0.5, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        Self { quadratic: Quadratic::random(&spectrum, &mut random), random, noise }
    }

    /// At w: of each batch, and their means, summed in order.
    fn at(&mut self, w: &[f64]) -> (Vec<Batch>, Batch) {
        let (gradient, loss) = (self.quadratic.gradient(w), self.quadratic.loss(w));
        let batches: Vec<_> = (0..BATCHES)
            .map(|_| {
                let tilt: Vec<f64> =
                    self.random.vector(w.len()).iter().map(|v| self.noise * v).collect();
                let tilted: Vec<f64> = gradient.iter().zip(&tilt).map(|(g, t)| g + t).collect();
                (tilted, loss + dot(&tilt, w))
            })
            .collect();
        let sum = batches[1..].iter().fold(batches[0].clone(), |(sum, total), (g, loss)| {
            (sum.iter().zip(g).map(|(s, g)| s + g).collect(), total + loss)
        });
        let n = BATCHES as f64;
        (batches, (sum.0.iter().map(|s| s / n).collect(), sum.1 / n))
    }
}

fn config(window: usize) -> NewtonConfig {
    NewtonConfig::default().ramp(false).settle(false).window(Window::steps(window).unwrap())
}

type Pairs = Accumulate<Sgd<Vector<2>, f64, Cpu>>;

fn gathering(window: usize) -> (Vector<2>, Newton<Pairs>) {
    let model = vector(&[1.0, 2.0]);
    let accumulate = Accumulate::new(sgd(&model, 0.25), 2).unwrap();
    let opt = Newton::new(&model, accumulate, config(window)).unwrap();
    (model, opt)
}
