//! [`Adam`] and [`AdamW`], which is Adam with decoupled weight decay.

use super::{
    sgd::{check_decay_rate, decay, valid_decay},
    Elementwise, Settings, UpdateRule,
};
use crate::{
    error::Error,
    tensors::{Backend, Buffer},
};
#[cfg(feature = "f16")]
use dfdx::dtypes::{f16, AMP};
use dfdx::{
    optim::{AdamConfig, WeightDecay},
    shapes::{Dtype, Shape},
    tensor::Tensor,
};
#[cfg(feature = "f16")]
use std::any::TypeId;

/// Adam. In the t-th update, with g the gradient, α = `lr` and β₁, β₂ = `betas`:
///
/// - m ← β₁·m + (1 − β₁)·g and v ← β₂·v + (1 − β₂)·g², which start at 0,
/// - w ← w − α·m̂/(√v̂ + ε), with m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ).
///
/// With [`WeightDecay::L2`]`(λ)`, g + λ·w takes the place of g. [`WeightDecay::Decoupled`]`(λ)`
/// also subtracts α·λ·w from w.
///
/// Its updates equal those of dfdx's [`Adam`](dfdx::optim::Adam) bit for bit, and a checkpoint can
/// save its state.
///
/// Kingma and Ba, *Adam: a method for stochastic optimization*, 2015.
///
/// Its default ε of 1e-8 rounds to 0 in f16. [`Newton::new`](crate::Trainer::new) refuses such
/// an ε.
///
/// # Example
/// ```
/// use dfdx::{optim::AdamConfig, prelude::*};
/// use tlr::{optim::Adam, Newton, NewtonConfig};
///
/// let dev = Cpu::default();
/// let model = dev.build_module::<Linear<4, 2>, f32>();
/// let adam = Adam::new(&model, AdamConfig { lr: 1e-4, ..Default::default() });
/// let opt = Newton::new(&model, adam, NewtonConfig::default())?;
/// # Ok::<(), tlr::Error>(())
/// ```
pub type Adam<M, E, D> = Elementwise<M, E, D, AdamConfig, 2>;

/// Adam with decoupled weight decay: besides the Adam step, each update shrinks the weights by lr ·
/// `weight_decay` of their value. Its updates equal those of dfdx's [`Adam`](dfdx::optim::Adam)
/// with `WeightDecay::Decoupled` bit for bit, and a checkpoint can save its state.
///
/// Loshchilov and Hutter, *Decoupled weight decay regularization*, 2019.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr::{optim::{AdamW, AdamWConfig}, Newton, NewtonConfig};
///
/// let dev = Cpu::default();
/// let model = dev.build_module::<Linear<4, 2>, f32>();
/// let adam = AdamW::new(&model, AdamWConfig { weight_decay: 0.1, ..Default::default() });
/// let opt = Newton::new(&model, adam, NewtonConfig::default())?;
/// # Ok::<(), tlr::Error>(())
/// ```
pub type AdamW<M, E, D> = Elementwise<M, E, D, AdamWConfig, 2>;

/// The hyperparameters of [`AdamW`].
///
/// Example: [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// The learning rate. Default 1e-3.
    pub lr: f64,
    /// β₁ and β₂, the decay rates of the two moment estimates. Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// ε, added to the denominator of the step. Default 1e-8, which rounds to 0 in f16: a trainer
    /// of such weights refuses it, and 1e-4 is usual in its place.
    pub eps: f64,
    /// The decay coefficient: a step shrinks each weight by lr · `weight_decay` of its value.
    /// Default 0.01.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        let AdamConfig { lr, betas, eps, .. } = AdamConfig::default();
        Self { lr, betas, eps, weight_decay: 0.01 }
    }
}

const MOMENTS: [&str; 2] = ["moment1", "moment2"];

impl UpdateRule<2> for AdamConfig {
    const BUFFERS: [&'static str; 2] = MOMENTS;
    const INFALLIBLE: bool = true;

    fn rate(&self) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, rate: f64) {
        self.lr = rate;
    }

    fn settings(&self) -> Settings {
        Settings::new("adam")
            .with("betas", self.betas)
            .with("eps", self.eps)
            .with("weight_decay", decay(self.weight_decay))
    }

    fn momentum(&self) -> f64 {
        let [beta1, _] = self.betas;
        beta1
    }

    fn validate<E: Dtype>(&self) -> Result<(), Error> {
        self.betas.iter().try_for_each(|beta| check_decay_rate("adam: betas", *beta))?;
        valid_decay("adam: weight_decay", self.weight_decay)?;
        epsilon::<E>("adam: eps", self.eps)
    }

    fn without_decay(&self) -> Self {
        Self { weight_decay: None, ..*self }
    }

    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        step: i32,
        parameter: &mut Tensor<S, E, D>,
        [moment1, moment2]: &mut [Buffer<E, D>; 2],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err> {
        self.try_update(step, parameter, moment1, moment2, gradient)
    }
}

impl From<AdamWConfig> for AdamConfig {
    fn from(AdamWConfig { lr, betas, eps, weight_decay }: AdamWConfig) -> Self {
        Self { lr, betas, eps, weight_decay: Some(WeightDecay::Decoupled(weight_decay)) }
    }
}

impl UpdateRule<2> for AdamWConfig {
    const BUFFERS: [&'static str; 2] = MOMENTS;
    const INFALLIBLE: bool = true;

    fn rate(&self) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, rate: f64) {
        self.lr = rate;
    }

    fn settings(&self) -> Settings {
        AdamConfig::from(*self).settings()
    }

    fn momentum(&self) -> f64 {
        AdamConfig::from(*self).momentum()
    }

    fn validate<E: Dtype>(&self) -> Result<(), Error> {
        AdamConfig::from(*self).validate::<E>()
    }

    fn without_decay(&self) -> Self {
        Self { weight_decay: 0.0, ..*self }
    }

    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        step: i32,
        parameter: &mut Tensor<S, E, D>,
        moments: &mut [Buffer<E, D>; 2],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err> {
        AdamConfig::from(*self).update(step, parameter, moments, gradient)
    }
}

/// Checks that dfdx does not round ε to 0: the step of a weight whose gradients are 0 would be 0/0.
pub(super) fn epsilon<E: Dtype>(what: &'static str, epsilon: f64) -> Result<(), Error> {
    let rounded = computed::<E>(epsilon);
    Error::unless_advised(
        rounded > 0.0 && rounded.is_finite(),
        what,
        "finite and above 0 when rounded to the weights' type",
        epsilon,
        "for weights in f16 take 1e-4, or `MixedPrecision`, whose optimizer has weights in f32",
    )
}

/// A hyperparameter, rounded to the type in which dfdx's kernels compute with weights of type `E`.
fn computed<E: Dtype>(value: f64) -> f64 {
    // They compute with `AMP<f16>` in f32, whereas `AMP::from_f64` rounds to f16.
    #[cfg(feature = "f16")]
    if TypeId::of::<E>() == TypeId::of::<AMP<f16>>() {
        return f64::from(value as f32);
    }
    E::from_f64(value).and_then(|value| value.to_f64()).unwrap_or(f64::NAN)
}
