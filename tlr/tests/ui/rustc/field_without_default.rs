use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone)]
struct Settings;

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {
    one: modules::Linear<2, 2, E, D>,
    #[tlr(skip)]
    two: Settings,
}

fn main() {}
