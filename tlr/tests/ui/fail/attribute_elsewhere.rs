use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(fixed_rate, rate = 0.1, skip)]
struct Model<E: Dtype, D: Device<E>> {
    #[tlr(crate = tlr, dtype = E)]
    one: modules::Linear<2, 2, E, D>,
}

fn main() {}
