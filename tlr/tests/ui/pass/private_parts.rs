//! A public struct may have fields of private types, and still has the public trait.

#![deny(warnings)]
#![allow(dead_code, unreachable_pub)]

use dfdx::prelude::*;
use tlr::{TensorCollection, TrainableLr};

#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub struct Model<E: Dtype, D: Device<E>> {
    walked: Part<E, D>,
    #[tlr(group)]
    grouped: Part<E, D>,
    wrapped: modules::Residual<(Part<E, D>, ReLU)>,
}

#[derive(Clone, Debug, TensorCollection, TrainableLr)]
struct Part<E: Dtype, D: Device<E>> {
    linear: modules::Linear<2, 2, E, D>,
}
