use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(TensorCollection, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {
    one: modules::Linear<2, 2, E, D>,
}

fn main() {}
