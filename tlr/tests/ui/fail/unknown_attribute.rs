use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(groups)]
struct Model<E: Dtype, D: Device<E>> {
    #[tlr(froze)]
    one: modules::Linear<2, 2, E, D>,
    #[tlr(lr = 0.1)]
    two: modules::Linear<2, 2, E, D>,
}

/// One derive alone reports it too.
#[derive(TensorCollection)]
struct Other<E: Dtype, D: Device<E>> {
    #[tlr(froze)]
    one: modules::Linear<2, 2, E, D>,
}

fn main() {}
