//! Names that the generated code must not pick up.

#![no_implicit_prelude]
#![deny(warnings)]
#![allow(dead_code, unreachable_pub)]
#![allow(unused_macros)]

use ::dfdx::prelude as d;
use ::std::clone::Clone;

mod tlr {}
mod dfdx {}
mod core {}
mod std {}
mod num_traits {}

pub struct Option;
pub struct Result;
pub struct Vec;
pub struct String;
pub struct Device;
pub struct Dtype;
pub struct Some;
pub struct Ok;
pub struct Err;
pub struct None;
pub struct Default;
pub struct PhantomData;
pub struct Layers;
pub struct Family;
pub struct E2;
pub struct D2;
pub struct Gradients;

pub trait Module {}
pub trait TensorCollection {}
pub trait TrainableLr {}

macro_rules! compile_error {
    () => {};
}

/// Parameters with the names that the traits use for theirs.
#[derive(Clone, ::tlr::TensorCollection, ::tlr::TrainableLr)]
pub struct Model<V: d::Dtype, F: d::Device<V>, M, E, D> {
    first: ::dfdx::nn::modules::Linear<1, 2, V, F>,
    second: M,
    third: ::dfdx::nn::modules::Residual<E>,
    #[tlr(group)]
    fourth: D,
    #[tlr(skip)]
    fifth: bool,
}

impl<V: d::Dtype, F: d::Device<V>, M, E, D> Model<V, F, M, E, D> {
    fn module() {}
    fn iter_tensors() {}
    fn optimizers() {}
    fn visit_layers() {}
}

/// Fields with the names of the generated code's own.
#[derive(Clone, ::tlr::TensorCollection, ::tlr::TrainableLr)]
pub struct Fields<E: d::Dtype, D: d::Device<E>> {
    marker: ::dfdx::nn::modules::Linear<1, 2, E, D>,
    visitor: ::dfdx::nn::modules::Linear<1, 2, E, D>,
    layers: ::dfdx::nn::modules::Linear<1, 2, E, D>,
    family: ::dfdx::nn::modules::Linear<1, 2, E, D>,
    optimizers: ::dfdx::nn::modules::Linear<1, 2, E, D>,
    r#type: ::dfdx::nn::modules::Linear<1, 2, E, D>,
    __0: ::dfdx::nn::modules::Linear<1, 2, E, D>,
    _marker: ::dfdx::nn::modules::Linear<1, 2, E, D>,
}
