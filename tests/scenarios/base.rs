//! The base optimizers.

use dfdx::{
    optim::{AdamConfig, Momentum, SgdConfig, WeightDecay},
    prelude::*,
};
use tlr::{
    optim::{Buffer, Settings, UpdateRule},
    Backend,
};

/// Which optimizer it is whose rate is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Sgd,
    Momentum,
    Adam,
    Sign,
}

impl Base {
    pub(crate) const ALL: [Self; 4] = [Self::Sgd, Self::Momentum, Self::Adam, Self::Sign];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Momentum => "momentum",
            Self::Adam => "adam",
            Self::Sign => "sign",
        }
    }

    /// Whether a step does not depend on the scale of the loss.
    pub(crate) fn forgets_scale(self) -> bool {
        matches!(self, Self::Adam | Self::Sign)
    }
}

/// All four as one type, so that each model is compiled once. Plain descent, momentum and Adam are
/// the crate's own rules, which call dfdx's kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) base: Base,
    pub(crate) lr: f64,
    /// L2 around plain descent and momentum, decoupled around the others.
    pub(crate) decay: f64,
}

impl Rule {
    fn sgd(&self) -> SgdConfig {
        let momentum = (self.base == Base::Momentum).then_some(Momentum::Classic(0.9));
        SgdConfig { lr: self.lr, momentum, weight_decay: self.decay(WeightDecay::L2) }
    }

    fn adam(&self) -> AdamConfig {
        let weight_decay = self.decay(WeightDecay::Decoupled);
        AdamConfig { lr: self.lr, weight_decay, ..Default::default() }
    }

    fn decay(&self, kind: fn(f64) -> WeightDecay) -> Option<WeightDecay> {
        (self.decay > 0.0).then(|| kind(self.decay))
    }
}

impl UpdateRule<2> for Rule {
    const BUFFERS: [&'static str; 2] = ["first", "second"];
    const INFALLIBLE: bool = true;

    fn settings(&self) -> Settings {
        Settings::new(self.base.name()).with("decay", self.decay)
    }

    fn rate(&self) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, rate: f64) {
        self.lr = rate;
    }

    fn momentum(&self) -> f64 {
        match self.base {
            Base::Sgd | Base::Momentum => self.sgd().momentum(),
            Base::Adam => self.adam().momentum(),
            Base::Sign => 0.0,
        }
    }

    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        step: i32,
        parameter: &mut Tensor<S, E, D>,
        buffers: &mut [Buffer<E, D>; 2],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err> {
        match self.base {
            Base::Sgd | Base::Momentum => {
                let [velocity, _] = buffers;
                let velocity = std::array::from_mut(velocity);
                self.sgd().update(step, parameter, velocity, gradient)
            }
            Base::Adam => self.adam().update(step, parameter, buffers, gradient),
            Base::Sign => self.descend_by_sign(parameter, gradient),
        }
    }
}

impl Rule {
    /// w ← w − lr·(sign(g) + decay·w).
    fn descend_by_sign<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        parameter: &mut Tensor<S, E, D>,
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err> {
        let wide = |x: E| x.to_f64().unwrap_or(f64::NAN);
        let gradient = D::read(gradient, |gradient| gradient.to_vec())?;
        let mut weights = vec![E::default(); gradient.len()];
        parameter.copy_into(&mut weights);
        for (w, g) in weights.iter_mut().zip(gradient) {
            // Unlike `f64::signum`, 0 at 0.
            let sign = if wide(g) == 0.0 { 0.0 } else { wide(g).signum() };
            let next = wide(*w) - self.lr * (sign + self.decay * wide(*w));
            *w = E::from_f64(next).unwrap_or_default();
        }
        parameter.copy_from(&weights);
        Ok(())
    }
}
