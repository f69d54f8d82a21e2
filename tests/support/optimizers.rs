//! An optimizer of a user's own.

use crate::values::{gradient_values, set_weights, weights};
use dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError},
    prelude::*,
};
use std::marker::PhantomData;
use tlr::{Family, TunableOptimizer};

/// RMSprop as PyTorch has it: the average of squares starts at 0 and ε is added after the root.
/// (dfdx's starts at 1 and has ε under the root.)
///
/// Also the tests' example of an optimizer of a user's own.
#[derive(Clone, Debug)]
pub struct TorchRmsprop<M, E, D> {
    /// The learning rate.
    pub lr: f64,
    /// The decay of the average.
    pub alpha: f64,
    averages: Vec<f64>,
    marker: PhantomData<(*const M, E, D)>,
}

impl<M, E, D> TorchRmsprop<M, E, D> {
    /// ε is PyTorch's default.
    const EPS: f64 = 1e-8;

    /// Nothing accumulated yet.
    pub fn new(lr: f64, alpha: f64) -> Self {
        Self { lr, alpha, averages: Vec::new(), marker: PhantomData }
    }
}

impl<M: TensorCollection<E, D> + Clone, E: Dtype, D: Device<E>> Optimizer<M, D, E>
    for TorchRmsprop<M, E, D>
{
    fn update(
        &mut self,
        model: &mut M,
        gradients: &Gradients<E, D>,
    ) -> Result<(), OptimizerUpdateError<D::Err>> {
        let mut w = weights(model);
        self.averages.resize(w.len(), 0.0);
        let gradient = gradient_values(model, gradients);
        for ((w, g), average) in w.iter_mut().zip(gradient).zip(&mut self.averages) {
            *average = self.alpha * *average + (1.0 - self.alpha) * g * g;
            *w -= self.lr * g / (average.sqrt() + Self::EPS);
        }
        set_weights(model, &w);
        Ok(())
    }
}

impl<M: TensorCollection<E, D> + Clone, E: Dtype, D: Device<E>> TunableOptimizer
    for TorchRmsprop<M, E, D>
{
    type Model = M;
    type Dtype = E;
    type Device = D;

    fn rate(&self, _group: usize) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, _group: usize, rate: f64) {
        self.lr = rate;
    }

    fn reset(&mut self, _model: &M) {
        self.averages.clear();
    }
}

impl<M: TensorCollection<E, D> + Clone, E: Dtype, D: Device<E>> Family for TorchRmsprop<M, E, D> {
    type For<L: TensorCollection<E, D> + Clone> = TorchRmsprop<L, E, D>;

    fn for_layer<L: TensorCollection<E, D> + Clone>(&self, _layer: &L) -> Self::For<L> {
        TorchRmsprop::new(self.lr, self.alpha)
    }
}
