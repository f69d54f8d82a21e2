use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection)]
struct Part<E: Dtype, D: Device<E>> {
    one: modules::Linear<2, 2, E, D>,
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {
    one: Part<E, D>,
}

fn main() {}
