use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<E: Dtype, D: Device<E>> {
    blocks: Vec<modules::Linear<2, 2, E, D>>,
    norm: Option<modules::LayerNorm1D<2, E, D>>,
}

fn main() {}
