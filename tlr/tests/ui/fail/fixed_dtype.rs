use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<D: Device<f32>> {
    one: modules::Linear<2, 2, f32, D>,
}

fn main() {}
