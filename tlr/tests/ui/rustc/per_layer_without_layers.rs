use dfdx::{optim::Sgd, prelude::*};
use tlr::{PerLayer, TensorCollection};

#[derive(Clone, TensorCollection)]
struct Model<E: Dtype, D: Device<E>> {
    one: modules::Linear<2, 2, E, D>,
}

fn main() {
    let model = Model::<f32, Cpu>::build(&Cpu::default());
    let _ = PerLayer::new(&model, Sgd::new(&model, Default::default()));
}
