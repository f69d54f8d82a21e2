use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

/// A module is another type after conversion, and need not be `Clone` then.
#[derive(Clone, TensorCollection, TrainableLr)]
struct Model<M: Clone, N>
where
    N: TensorCollection<f32, Cpu> + 'static,
{
    one: modules::Residual<M>,
    two: (N, ReLU),
}

/// As dfdx's layers have it on their `impl`s.
#[derive(Clone, TensorCollection, TrainableLr)]
struct Floats<E: Dtype + num_traits::Float, D: Device<E>> {
    one: modules::Linear<2, 2, E, D>,
}

fn main() {}
