//! All errors at once, and none that only follows from them.

use dfdx::{optim::Sgd, prelude::*};
use tlr::{Newton, NewtonConfig, PerLayer, TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(fixed_rate)]
struct Model<E: Dtype, D: Device<E>, M> {
    #[tlr(froze)]
    one: modules::Linear<2, 2, E, D>,
    #[tlr(rate = -0.1, rate = 0.2)]
    #[tlr(skip)]
    two: usize,
    #[tlr(group, rate = "fast")]
    three: M,
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Whole<E: Dtype, D: Device<E>> {
    model: Model<E, D, ReLU>,
}

fn main() {
    let dev = Cpu::default();
    let model = Whole::<f32, Cpu>::build(&dev);
    let _ = model.model.num_trainable_params();
    let opt = PerLayer::new(&model, Sgd::new(&model, Default::default()));
    let _ = Newton::new(&model, opt, NewtonConfig::default());
}
