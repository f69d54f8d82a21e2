use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(dtype = f32, device = Cpu)]
struct Model {
    one: modules::Linear<2, 2, f32, Cpu>,
}

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(dtype = D, device = D)]
struct Both<E: Dtype, D: Device<E>> {
    one: modules::Linear<2, 2, E, D>,
}

trait Hardware<E: Dtype>: Device<E> {}

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(device = D)]
struct Half<E: Dtype, D: Hardware<E>> {
    one: modules::Linear<2, 2, E, D>,
}

fn main() {}
