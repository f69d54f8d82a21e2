use super::{Buffer, Elementwise, UpdateRule};
use crate::device::Backend;
use dfdx::{
    optim::{Momentum, SgdConfig},
    shapes::{Dtype, Shape},
    tensor::Tensor,
};

/// Stochastic gradient descent, with or without momentum: dfdx's [`Sgd`](dfdx::optim::Sgd) to the bit, and saved
/// with a checkpoint.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{optim::Sgd, Newton, NewtonConfig};
///
/// let dev = Cpu::default();
/// let model = dev.build_module::<Linear<4, 2>, f32>();
/// let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
/// let opt = Newton::new(&model, sgd, NewtonConfig::default())?;
/// # Ok::<(), tlr::Error>(())
/// ```
pub type Sgd<M, E, D> = Elementwise<M, E, D, SgdConfig, 1>;

impl UpdateRule<1> for SgdConfig {
    const BUFFERS: [&'static str; 1] = ["velocity"];

    fn rate(&self) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, rate: f64) {
        self.lr = rate;
    }

    fn momentum(&self) -> f64 {
        match self.momentum {
            None => 0.0,
            Some(Momentum::Classic(momentum) | Momentum::Nesterov(momentum)) => momentum,
        }
    }

    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        _step: i32,
        parameter: &mut Tensor<S, E, D>,
        [velocity]: &mut [Buffer<E, D>; 1],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err> {
        self.try_update(parameter, velocity, gradient)
    }
}
