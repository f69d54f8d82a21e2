//! [`RMSprop`]: gradients over the root of the running mean of their squares.

use super::{
    adam::epsilon,
    sgd::{check_decay_rate, decay, valid_decay},
    Elementwise, Settings, UpdateRule,
};
use crate::{
    error::Error,
    tensors::{Backend, Buffer},
};
use dfdx::{
    optim::RMSpropConfig,
    shapes::{Dtype, Shape},
    tensor::Tensor,
};

/// RMSprop. With g the gradient, ρ = `alpha` and α = `lr`:
///
/// - s ← s + (1 − ρ)·(g² − s),
/// - u = g/√(s + ε) or, if `centered`, u = g/√(s − a² + ε) with a ← a + (1 − ρ)·(g − a),
/// - w ← w − α·u without momentum, or m ← μ·m + u and w ← w − α·m with a `momentum` of μ.
///
/// a and m start at 0. With `WeightDecay::L2(λ)`, g + λ·w takes the place of g.
/// `WeightDecay::Decoupled(λ)` also subtracts α·λ·w from w.
///
/// Its updates equal those of dfdx's [`RMSprop`](dfdx::optim::RMSprop) bit for bit, and a
/// checkpoint can save its state.
///
/// Hinton, *Neural networks for machine learning*, lecture 6e, 2012. The running mean of squares
/// starts at 1, as in dfdx and TensorFlow.
///
/// Its default ε of 1e-8 rounds to 0 in f16. [`Newton::new`](crate::Trainer::new) refuses such
/// an ε.
///
/// # Example
/// ```
/// use dfdx::{optim::RMSpropConfig, prelude::*};
/// use tlr::{optim::RMSprop, Newton, NewtonConfig};
///
/// let dev = Cpu::default();
/// let model = dev.build_module::<Linear<4, 2>, f32>();
/// let rmsprop = RMSprop::new(&model, RMSpropConfig { lr: 1e-4, ..Default::default() });
/// let opt = Newton::new(&model, rmsprop, NewtonConfig::default())?;
/// # Ok::<(), tlr::Error>(())
/// ```
pub type RMSprop<M, E, D> = Elementwise<M, E, D, RMSpropConfig, 3>;

impl UpdateRule<3> for RMSpropConfig {
    const BUFFERS: [&'static str; 3] = ["momentum", "square_avg", "grad_avg"];
    const INFALLIBLE: bool = true;

    fn rate(&self) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, rate: f64) {
        self.lr = rate;
    }

    fn settings(&self) -> Settings {
        Settings::new("rmsprop")
            .with("momentum", self.momentum)
            .with("alpha", self.alpha)
            .with("eps", self.eps)
            .with("centered", self.centered)
            .with("weight_decay", decay(self.weight_decay))
    }

    fn momentum(&self) -> f64 {
        self.momentum.unwrap_or(0.0)
    }

    fn validate<E: Dtype>(&self) -> Result<(), Error> {
        check_decay_rate("rmsprop: momentum", UpdateRule::momentum(self))?;
        check_decay_rate("rmsprop: alpha", self.alpha)?;
        valid_decay("rmsprop: weight_decay", self.weight_decay)?;
        epsilon::<E>("rmsprop: eps", self.eps)
    }

    fn without_decay(&self) -> Self {
        Self { weight_decay: None, ..*self }
    }

    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        step: i32,
        parameter: &mut Tensor<S, E, D>,
        [momentum, square_avg, grad_avg]: &mut [Buffer<E, D>; 3],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err> {
        if step == 1 {
            D::write(square_avg, |values| values.fill(E::ONE))?;
        }
        self.try_update(parameter, momentum, square_avg, grad_avg, gradient)
    }
}
