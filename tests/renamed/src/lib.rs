//! Models derived where there is no `::tlr` and no `::dfdx`, and where nothing may be warned of.

#![deny(warnings, future_incompatible, let_underscore, nonstandard_style, unused)]
#![deny(clippy::all, clippy::pedantic)]
#![deny(
    missing_copy_implementations,
    missing_debug_implementations,
    missing_docs,
    private_bounds,
    private_interfaces,
    single_use_lifetimes,
    trivial_casts,
    unnameable_types,
    unreachable_pub,
    unused_lifetimes,
    unused_qualifications,
    unused_results
)]
#![forbid(unsafe_code)]

use layers::prelude::*;
use learning::{TensorCollection, TrainableLr};
use std::marker::PhantomData;

/// A public model of private parts.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
#[tlr(crate = learning)]
pub struct Model<E: Dtype, D: Device<E>> {
    first: Part<E, D>,
    #[tlr(group)]
    second: Part<E, D>,
    #[tlr(untrained)]
    third: Part<E, D>,
    /// The last layer.
    pub head: modules::Linear<4, 2, E, D>,
    #[tlr(skip)]
    steps: usize,
}

#[derive(Clone, Debug, TensorCollection, TrainableLr)]
#[tlr(crate = learning)]
struct Part<E: Dtype, D: Device<E>>(modules::Linear<4, 4, E, D>, ReLU);

/// A model of anything.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
#[tlr(crate = learning)]
pub struct Wrapper<'a, M, T, const N: usize> {
    /// What is wrapped.
    pub inner: Repeated<M, N>,
    #[tlr(skip)]
    marker: PhantomData<&'a T>,
}

impl<E: Dtype, D: Device<E>> Model<E, D> {
    /// How often it was called.
    pub const fn steps(&self) -> usize {
        self.steps
    }
}
