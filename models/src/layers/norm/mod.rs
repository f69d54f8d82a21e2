//! Batch normalization of images.

mod channel;
mod composed;
mod forward;
mod on_cpu;
#[cfg(feature = "cuda")]
mod on_cuda;
mod sums;

pub(super) use composed::{infer_composed, train_composed};
pub(super) use on_cpu::{infer_on_cpu, train_on_cpu};
#[cfg(feature = "cuda")]
pub(super) use on_cuda::{infer_on_cuda, train_on_cuda, Plan};

use super::Planes;
use dfdx::{
    nn::{BuildOnDevice, ModuleVisitor, ScalarOptions, TensorOptions},
    prelude::{Device, Dtype, HasErr, Rank1, Tensor},
};
use tlr::{TensorCollection, TrainableLr};

/// Normalizes each channel of a batch of images, then scales and shifts it, then rectifies it if
/// RELU is true.
///
/// y = (x − mean) / √(var + eps) · weight + bias, with mean and (biased) variance over batch,
/// height and width. Training (`forward_mut` with a tape) takes the mean and variance of the batch,
/// and moves the running ones towards them: running ← (1 − momentum)·running + momentum·new, the
/// variance without bias. Inference (`forward` without a tape) takes the running ones. All of this
/// is as in PyTorch, the names too. Sums are in f64. Training with a single value per channel is
/// [`LayerError::Shape`](super::LayerError::Shape).
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::builder::BatchNorm2d;
///
/// let dev = Cpu::default();
/// let mut norm = dev.build_module::<BatchNorm2d<1>, f32>();
/// let x = dev.tensor([[[[1.0, 3.0]]]]);
/// let y = norm.forward_mut(x.leaky_trace());
/// assert!((y.as_vec()[1] - 1.0).abs() < 1e-5);
/// assert!((norm.running_mean.array()[0] - 0.1 * 2.0).abs() < 1e-6);
/// ```
#[derive(Clone, Debug, TrainableLr)]
#[tlr(group)]
pub struct BatchNorm2d<const C: usize, const RELU: bool, E: Dtype, D: Device<E>> {
    /// The factor of each channel. At first 1.
    pub weight: Tensor<Rank1<C>, E, D>,
    /// What is added to each channel. At first 0.
    pub bias: Tensor<Rank1<C>, E, D>,
    /// The running mean of each channel. At first 0; not trained.
    pub running_mean: Tensor<Rank1<C>, E, D>,
    /// The running variance of each channel. At first 1; not trained.
    pub running_var: Tensor<Rank1<C>, E, D>,
    /// Added to the variance. Default 1e-5.
    pub eps: f64,
    /// How far the running statistics move. Default 0.1.
    pub momentum: f64,
}

/// Builds a [`BatchNorm2d`](super::BatchNorm2d).
#[derive(Clone, Copy, Debug, Default)]
pub struct Builder<const C: usize, const RELU: bool = false>;

impl<const C: usize, const RELU: bool, E: Dtype, D: Device<E>> BuildOnDevice<D, E>
    for Builder<C, RELU>
{
    type Built = BatchNorm2d<C, RELU, E, D>;
}

impl<const C: usize, const RELU: bool, E: Dtype, D: Device<E>> TensorCollection<E, D>
    for BatchNorm2d<C, RELU, E, D>
{
    type To<E2: Dtype, D2: Device<E2>> = BatchNorm2d<C, RELU, E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        visitor.visit_fields(
            (
                Self::tensor(
                    "weight",
                    |s| &s.weight,
                    |s| &mut s.weight,
                    TensorOptions::reset_to_ones(),
                ),
                Self::tensor("bias", |s| &s.bias, |s| &mut s.bias, TensorOptions::reset_to_zeros()),
                Self::tensor(
                    "running_mean",
                    |s| &s.running_mean,
                    |s| &mut s.running_mean,
                    TensorOptions::detached(|mean| mean.try_fill_with_zeros()),
                ),
                Self::tensor(
                    "running_var",
                    |s| &s.running_var,
                    |s| &mut s.running_var,
                    TensorOptions::detached(|var| var.try_fill_with_ones()),
                ),
                Self::scalar("eps", |s| &s.eps, |s| &mut s.eps, ScalarOptions::from_default(1e-5)),
                Self::scalar(
                    "momentum",
                    |s| &s.momentum,
                    |s| &mut s.momentum,
                    ScalarOptions::from_default(0.1),
                ),
            ),
            |(weight, bias, running_mean, running_var, eps, momentum)| BatchNorm2d {
                weight,
                bias,
                running_mean,
                running_var,
                eps,
                momentum,
            },
        )
    }
}

/// What training gives: the result, and the mean and biased variance of each channel.
pub(super) type Normalized<B, H, W, E, D, T, const C: usize> = Result<
    (Planes<B, C, H, W, E, D, T>, Tensor<Rank1<C>, E, D>, Tensor<Rank1<C>, E, D>),
    <D as HasErr>::Err,
>;

#[cfg(test)]
mod tests;
