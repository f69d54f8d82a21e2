use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(group)]
struct Model<E: Dtype, D: Device<E>> {
    #[tlr(fixed_rate)]
    one: modules::Linear<2, 2, E, D>,
    #[tlr(skip)]
    two: usize,
}

fn main() {}
