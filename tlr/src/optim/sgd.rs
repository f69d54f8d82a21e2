//! [`Sgd`]: stochastic gradient descent.

use super::{Elementwise, Settings, UpdateRule};
use crate::{
    error::Error,
    tensors::{Backend, Buffer},
};
use dfdx::{
    optim::{Momentum, SgdConfig, WeightDecay},
    shapes::{Dtype, Shape},
    tensor::Tensor,
};

/// Stochastic gradient descent, with or without momentum:
///
/// - w ← w − α·g without momentum,
/// - v ← g + μ·v and w ← w − α·v with [`Momentum::Classic`]`(μ)`,
/// - v ← g + μ·v and w ← w − α·(g + μ·v) with [`Momentum::Nesterov`]`(μ)`.
///
/// Here α is `lr`, g the gradient, and v the velocity, which starts at 0. With
/// [`WeightDecay::L2`]`(λ)`, g + λ·w takes the place of g. [`WeightDecay::Decoupled`]`(λ)` also
/// subtracts α·λ·w from w.
///
/// Its updates of finite weights equal those of dfdx's [`Sgd`](dfdx::optim::Sgd) bit for bit, and a
/// checkpoint can save its state.
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
    const INFALLIBLE: bool = true;

    fn rate(&self) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, rate: f64) {
        self.lr = rate;
    }

    fn settings(&self) -> Settings {
        Settings::new("sgd")
            .with("momentum", self.momentum())
            .with("nesterov", matches!(self.momentum, Some(Momentum::Nesterov(_))))
            .with("weight_decay", decay(self.weight_decay))
    }

    fn momentum(&self) -> f64 {
        match self.momentum {
            None => 0.0,
            Some(Momentum::Classic(momentum) | Momentum::Nesterov(momentum)) => momentum,
        }
    }

    fn validate<E: Dtype>(&self) -> Result<(), Error> {
        check_decay_rate("sgd: momentum", self.momentum())?;
        valid_decay("sgd: weight_decay", self.weight_decay)
    }

    fn without_decay(&self) -> Self {
        Self { weight_decay: None, ..*self }
    }

    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        _step: i32,
        parameter: &mut Tensor<S, E, D>,
        [velocity]: &mut [Buffer<E, D>; 1],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err> {
        // The compiler vectorizes dfdx's loop only where there is a decay. A decay of 0 changes no
        // bit of a finite weight, and the update takes a third of the time.
        let weight_decay = self.weight_decay.or(Some(WeightDecay::L2(0.0)));
        Self { weight_decay, ..*self }.try_update(parameter, velocity, gradient)
    }
}

/// dfdx's weight decay, as settings to store in a checkpoint.
pub(super) fn decay(decay: Option<WeightDecay>) -> Settings {
    match decay {
        None => Settings::default(),
        Some(WeightDecay::L2(decay)) => Settings::default().with("l2", decay),
        Some(WeightDecay::Decoupled(decay)) => Settings::default().with("decoupled", decay),
    }
}

/// Checks a weight decay. A negative one would drive weights away from 0.
pub(super) fn valid_decay(what: &'static str, decay: Option<WeightDecay>) -> Result<(), Error> {
    let Some(WeightDecay::L2(value) | WeightDecay::Decoupled(value)) = decay else {
        return Ok(());
    };
    let in_range = value >= 0.0 && value.is_finite();
    Error::unless_advised(in_range, what, "finite and at least 0", value, "1e-4 is usual")
}

/// Checks a momentum, or the decay rate of a mean. At 1 the past would never fade.
pub(super) fn check_decay_rate(what: &'static str, kept: f64) -> Result<(), Error> {
    Error::unless_advised((0.0..1.0).contains(&kept), what, "in [0, 1)", kept, "0.9 is usual")
}
