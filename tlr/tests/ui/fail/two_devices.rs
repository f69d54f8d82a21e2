use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<E: Dtype, C: Device<E>, D: Device<E>> {
    one: modules::Linear<2, 2, E, C>,
    two: modules::Linear<2, 2, E, D>,
}

#[derive(Clone, TensorCollection, TrainableLr)]
struct TwoDtypes<A: Dtype, B: Dtype, D>
where
    D: Device<A> + Device<B>,
{
    one: modules::Linear<2, 2, A, D>,
    two: modules::Linear<2, 2, B, D>,
}

fn main() {}
