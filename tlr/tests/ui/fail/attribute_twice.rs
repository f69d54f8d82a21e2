use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(dtype = E, dtype = E)]
struct Model<E: Dtype, D: Device<E>> {
    #[tlr(fixed_rate, fixed_rate)]
    one: modules::Linear<2, 2, E, D>,
    #[tlr(rate = 0.1)]
    #[tlr(rate = 0.2)]
    two: modules::Linear<2, 2, E, D>,
}

fn main() {}
