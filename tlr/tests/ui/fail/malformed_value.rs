use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, TensorCollection, TrainableLr)]
#[tlr(crate = "tlr")]
#[tlr(dtype)]
#[tlr(device = Device<E>)]
struct Model<E: Dtype, D: Device<E>> {
    #[tlr]
    a: modules::Linear<2, 2, E, D>,
    #[tlr = "fixed_rate"]
    b: modules::Linear<2, 2, E, D>,
    #[tlr(rate)]
    c: modules::Linear<2, 2, E, D>,
    #[tlr(rate = )]
    d: modules::Linear<2, 2, E, D>,
    #[tlr(rate = "fast")]
    e: modules::Linear<2, 2, E, D>,
    #[tlr(rate = 0.1 * 2.0)]
    f: modules::Linear<2, 2, E, D>,
    #[tlr(rate = 0.1f32)]
    g: modules::Linear<2, 2, E, D>,
    #[tlr(rate(0.1))]
    h: modules::Linear<2, 2, E, D>,
    #[tlr(fixed_rate = true)]
    i: modules::Linear<2, 2, E, D>,
    #[tlr("fixed_rate")]
    j: modules::Linear<2, 2, E, D>,
}

fn main() {}
