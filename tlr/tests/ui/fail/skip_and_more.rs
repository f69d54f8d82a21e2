use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {
    one: modules::Linear<2, 2, E, D>,
    #[tlr(skip, group)]
    two: usize,
    #[tlr(fixed_rate)]
    #[tlr(rate = 0.5, skip)]
    three: usize,
}

fn main() {}
