//! [`TunableOptimizer`] for dfdx's own optimizers. They cannot be saved, because dfdx keeps private
//! what they accumulate.

use super::{FailedUpdate, Family, TunableOptimizer, UpdateRule};
use crate::error::Error;
use ::dfdx::{
    nn::TensorCollection,
    optim::{Adam, RMSprop, Sgd},
    shapes::Dtype,
    tensor_ops::Device,
};

macro_rules! dfdx_optimizer {
    ($($Optimizer:ident;)+) => {$(
        impl<M: TensorCollection<E, D> + Clone, E: Dtype, D: Device<E>> TunableOptimizer
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
                UpdateRule::momentum(&self.cfg)
            }

            fn validate(&self) -> Result<(), Error> {
                UpdateRule::validate::<E>(&self.cfg)
            }

            fn failed_update(&self) -> FailedUpdate {
                FailedUpdate::Impossible
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
    Sgd;
    Adam;
    RMSprop;
}
