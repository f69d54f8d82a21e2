use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {
    #[tlr(untrained, group)]
    one: modules::Linear<2, 2, E, D>,
    #[tlr(fixed_rate, untrained)]
    two: modules::Linear<2, 2, E, D>,
    #[tlr(rate = 0.5)]
    #[tlr(untrained)]
    three: modules::Linear<2, 2, E, D>,
    #[tlr(untrained, skip)]
    four: usize,
    #[tlr(untrained = true)]
    five: modules::Linear<2, 2, E, D>,
    #[tlr(untrained, no_decay)]
    six: modules::Linear<2, 2, E, D>,
}

fn main() {}
