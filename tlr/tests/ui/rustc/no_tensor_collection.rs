use dfdx::prelude::*;
use tlr::TrainableLr;

#[derive(Clone, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {
    one: modules::Linear<2, 2, E, D>,
}

fn main() {}
