//! dfdx's own optimizers.

use super::{Family, LearningRate};
use ::dfdx::{
    nn::TensorCollection,
    optim::{Adam, AdamConfig, Momentum, RMSprop, RMSpropConfig, Sgd, SgdConfig},
    shapes::Dtype,
    tensor_ops::Device,
};

macro_rules! dfdx_optimizer {
    ($($Optimizer:ident, $momentum:expr;)+) => {$(
        impl<M: TensorCollection<E, D> + Clone, E: Dtype, D: Device<E>> LearningRate
            for $Optimizer<M, E, D>
        {
            type Model = M;
            type Dtype = E;
            type Device = D;

            fn rate(&self, _group: usize) -> f64 {
                self.cfg.lr
            }

            fn set_rate(&mut self, _group: usize, rate: f64) {
                self.cfg.lr = rate;
            }

            fn momentum(&self) -> f64 {
                ($momentum)(&self.cfg)
            }

            fn reset(&mut self, model: &M) {
                *self = $Optimizer::new(model, self.cfg);
            }
        }

        impl<M: TensorCollection<E, D> + Clone, E: Dtype, D: Device<E>> Family
            for $Optimizer<M, E, D>
        {
            type For<L: TensorCollection<E, D> + Clone> = $Optimizer<L, E, D>;

            fn for_layer<L: TensorCollection<E, D> + Clone>(&self, layer: &L) -> Self::For<L> {
                $Optimizer::new(layer, self.cfg)
            }
        }
    )+};
}

dfdx_optimizer! {
    Sgd, |config: &SgdConfig| match config.momentum {
        None => 0.0,
        Some(Momentum::Classic(momentum) | Momentum::Nesterov(momentum)) => momentum,
    };
    Adam, |config: &AdamConfig| config.betas[0];
    RMSprop, |config: &RMSpropConfig| config.momentum.unwrap_or(0.0);
}
