use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
enum Model<E: Dtype, D: Device<E>> {
    One(modules::Linear<2, 2, E, D>),
}

fn main() {}
