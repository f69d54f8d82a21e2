//! [`Clip`]: gradient clipping by norm or by value.

use super::{
    forward, gradients, update_alone, CompleteGradients, ErrOf, Family, OptimizerState,
    RestoreError, Resumable, ResumableFamily, Settings, TunableOptimizer,
};
use crate::{
    error::Error,
    tensors::{wide, Backend, Model},
};
use dfdx::{
    nn::TensorCollection,
    optim::{Optimizer, OptimizerUpdateError},
    shapes::Dtype,
    tensor::Gradients,
};

/// Clips gradients before an optimizer sees them.
///
/// [`by_norm`](Self::by_norm) scales all gradients down by one factor. [`by_value`](Self::by_value)
/// clamps each element. Gradients within the limit pass unchanged, bit for bit. The norm is taken
/// over all trainable tensors of the optimizer: over the whole model in `Clip<PerLayer<Sgd>>`, and
/// over one layer in `PerLayer<Clip<Sgd>>`.
///
/// If a gradient is missing, the update is an error and no parameter moves.
///
/// # Learned rates
/// A rate is learned for the gradients that the optimizer receives. While ‖g‖ exceeds `max_norm`,
/// every clipped gradient has the length `max_norm`, so the gradients show no curvature until their
/// direction reverses. [`Newton`](crate::Newton) therefore increases the rate until a step of
/// α·`max_norm` crosses the valley. That rate is about ‖g‖/`max_norm` times the rate without
/// clipping. As ‖g‖ falls, the rate becomes too large, and the more so the further ‖g‖ falls.
///
/// For example, take a quadratic with curvatures from 0.1 to 5, a start at ‖g‖ = 1000 and windows
/// of 5 steps. After 20 steps the rate is 0.095 without clipping, 1.8 with a `max_norm` of 100, and
/// 183 with a `max_norm` of 1. After 200 steps the loss is above its minimum by 1e-5, 7e-7 and 25
/// respectively. So choose `max_norm` well above the usual ‖g‖, to catch outliers only.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{optim::{Clip, Sgd}, Newton, NewtonConfig};
///
/// let dev = Cpu::default();
/// let mut w: Tensor<Rank1<2>, f64, _> = dev.tensor([3.0, -4.0]);
/// let sgd = Sgd::new(&w, SgdConfig { lr: 1.0, ..Default::default() });
/// let clip = Clip::by_norm(sgd, 5.0)?;
/// let mut opt = Newton::new(&w, clip, NewtonConfig::default().ramp(false))?;
/// let gradients = w.leaky_trace().square().sum().backward(); // (6, −8), of norm 10
/// opt.update(&mut w, &gradients)?;
/// assert_eq!(w.array(), [0.0, 0.0]); // by (3, −4)
/// # Ok::<(), tlr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clip<Opt> {
    pub(super) optimizer: Opt,
    limit: Limit,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Norm(f64),
    Value(f64),
}

impl<Opt> Clip<Opt> {
    /// Replaces g by g·`max_norm`/‖g‖ if ‖g‖ > `max_norm`. Here g is the vector of all gradients
    /// together, and ‖g‖ is computed in f64.
    ///
    /// If ‖g‖ is not finite, the gradients pass unchanged. They have no direction left to keep, and
    /// the optimizer or the [`Safeguard`](crate::Safeguard) decides what to do.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `max_norm` is finite and above 0.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::optim::{Clip, Sgd};
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// let sgd: Sgd<_, f32, Cpu> = Sgd::new(&model, SgdConfig::default());
    /// let clip = Clip::by_norm(sgd, 5.0)?;
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn by_norm(optimizer: Opt, max_norm: f64) -> Result<Self, Error> {
        Ok(Self { optimizer, limit: Limit::Norm(checked("clip: max_norm", max_norm)?) })
    }

    /// Clamps each element to [−`limit`, `limit`], infinite elements too. NaN stays NaN.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `limit` is finite and above 0.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::optim::{Clip, Sgd};
    ///
    /// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
    /// let sgd: Sgd<_, f32, Cpu> = Sgd::new(&model, SgdConfig::default());
    /// let clip = Clip::by_value(sgd, 0.5)?;
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn by_value(optimizer: Opt, limit: f64) -> Result<Self, Error> {
        Ok(Self { optimizer, limit: Limit::Value(checked("clip: limit", limit)?) })
    }

    /// The optimizer that receives the clipped gradients.
    ///
    /// Example: [`Clip`].
    pub fn optimizer(&self) -> &Opt {
        &self.optimizer
    }
}

fn checked(what: &'static str, value: f64) -> Result<f64, Error> {
    let in_range = value > 0.0 && value.is_finite();
    Error::unless(in_range, what, "finite and above 0", value).map(|()| value)
}

impl Limit {
    fn clip<E, D>(
        self,
        model: &dyn Model<E, D>,
        gradients: &mut Gradients<E, D>,
    ) -> Result<(), D::Err>
    where
        E: Dtype,
        D: Backend<E>,
    {
        match self {
            Self::Norm(max) => {
                let mut whole = 0.0_f64;
                gradients::each(model, gradients, |_, gradient| {
                    whole = whole.hypot(D::read(gradient, norm)?);
                    Ok(())
                })?;
                if !(whole > max && whole.is_finite()) {
                    return Ok(());
                }
                // The factor is at most 1, so rounding makes no element larger than it was.
                let factor = max / whole;
                change(model, gradients, |value| value * factor)
            }
            Self::Value(limit) => change(model, gradients, |value| {
                // `f64::clamp` is not used: the comparison is false for NaN, so NaN passes
                // unchanged, and so does every element within the limit.
                if value.abs() > limit {
                    limit.copysign(value)
                } else {
                    value
                }
            }),
        }
    }
}

/// Applies `to` to every element, in f64.
fn change<E, D>(
    model: &dyn Model<E, D>,
    gradients: &mut Gradients<E, D>,
    to: impl Fn(f64) -> f64,
) -> Result<(), D::Err>
where
    E: Dtype,
    D: Backend<E>,
{
    gradients::each(model, gradients, |_, gradient| {
        D::write(gradient, |values| {
            for value in values {
                if let Some(changed) = value.to_f64().and_then(|value| E::from_f64(to(value))) {
                    *value = changed;
                }
            }
        })
    })
}

/// ‖v‖, computed without overflow of the squares.
fn norm<E: Dtype>(values: &[E]) -> f64 {
    let values = || values.iter().map(|value| wide(*value).abs());
    let largest = values().fold(0.0, f64::max);
    if largest > 0.0 && largest.is_finite() {
        largest * values().map(|value| (value / largest).powi(2)).sum::<f64>().sqrt()
    } else {
        // `largest` is 0 or infinite here. It is 0 too if all elements are 0 or NaN, because `max`
        // ignores NaN. The plain sum is then 0, infinite or NaN, as the norm should be.
        values().sum()
    }
}

impl<Opt: TunableOptimizer> Optimizer<Opt::Model, Opt::Device, Opt::Dtype> for Clip<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    fn update(
        &mut self,
        model: &mut Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>> {
        update_alone(self, model, gradients)
    }
}

#[warn(clippy::missing_trait_methods)]
impl<Opt: TunableOptimizer> TunableOptimizer for Clip<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    type Model = Opt::Model;
    type Dtype = Opt::Dtype;
    type Device = Opt::Device;

    forward! {
        Self { optimizer, .. } => optimizer;
        but complete_gradients, update_owned;
    }

    fn complete_gradients(
        &self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
    ) -> CompleteGradients<Self> {
        gradients::complete(model, gradients).map(Some)
    }

    fn update_owned(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
    ) -> Result<(), OptimizerUpdateError<ErrOf<Opt>>> {
        self.limit.clip(&*model, gradients).map_err(OptimizerUpdateError::DeviceError)?;
        self.optimizer.update_owned(model, gradients)
    }
}

impl<Opt: Family> Family for Clip<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    type For<L: TensorCollection<Opt::Dtype, Opt::Device> + Clone> = Clip<Opt::For<L>>;

    fn for_layer<L>(&self, layer: &L) -> Self::For<L>
    where
        L: TensorCollection<Opt::Dtype, Opt::Device> + Clone,
    {
        Clip { optimizer: self.optimizer.for_layer(layer), limit: self.limit }
    }
}

impl<Opt> Clip<Opt> {
    fn around(&self, state: OptimizerState) -> OptimizerState {
        state.within(match self.limit {
            Limit::Norm(max) => Settings::new("clip").with("max_norm", max),
            Limit::Value(limit) => Settings::new("clip").with("limit", limit),
        })
    }
}

impl<Opt: Resumable> Resumable for Clip<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    fn state(&self, model: &Opt::Model) -> Result<OptimizerState, ErrOf<Opt>> {
        let state = self.optimizer.state(model)?;
        Ok(self.around(state))
    }

    fn restore(
        &mut self,
        model: &mut Opt::Model,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<ErrOf<Opt>>> {
        self.optimizer.restore(model, state)
    }
}

impl<Opt: ResumableFamily> ResumableFamily for Clip<Opt>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    fn layer_state<L>(optimizer: &Self::For<L>, layer: &L) -> Result<OptimizerState, ErrOf<Opt>>
    where
        L: TensorCollection<Opt::Dtype, Opt::Device> + Clone,
    {
        let state = Opt::layer_state(&optimizer.optimizer, layer)?;
        Ok(optimizer.around(state))
    }

    fn restore_layer<L>(
        optimizer: &mut Self::For<L>,
        layer: &mut L,
        state: &OptimizerState,
    ) -> Result<(), RestoreError<ErrOf<Opt>>>
    where
        L: TensorCollection<Opt::Dtype, Opt::Device> + Clone,
    {
        Opt::restore_layer(&mut optimizer.optimizer, layer, state)
    }
}
