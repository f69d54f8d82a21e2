use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {
    #[tlr(rate = 0)]
    a: modules::Linear<2, 2, E, D>,
    #[tlr(rate = -0.0)]
    b: modules::Linear<2, 2, E, D>,
    #[tlr(rate = -0.1)]
    c: modules::Linear<2, 2, E, D>,
    #[tlr(rate = 1e400)]
    d: modules::Linear<2, 2, E, D>,
}

fn main() {}
