//! Half precision, with a master copy of the weights in f32.

use super::Trainer;
use crate::{
    checkpoint::Checkpoint,
    engine::{RateRule, Step, MOST_STEPS},
    error::{Cause, CheckpointError, Error},
    optim::{gradients, Resumable, TunableOptimizer},
    tensors::{self, Backend},
};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef},
    optim::OptimizerUpdateError,
    shapes::{Dtype, HasShape, Rank0, Shape},
    tensor::{Gradients, HasErr, Tape, Tensor, TensorFromVec},
    tensor_ops::{Device, TryMul},
};
use serde::Serialize;
use std::{fmt, marker::PhantomData, path::Path};

/// What the loss is multiplied by before its gradients are taken, so that small ones do not vanish in half
/// precision.
///
/// Where a gradient overflows, the step is left out and the scale halved; after `interval` steps without, it is
/// doubled. Micikevicius et al., *Mixed precision training*, 2018.
///
/// A power of two, so that scaling is exact. The largest is 2¹⁵: half precision ends at 65504.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    start: f64,
    interval: u64,
}

impl LossScale {
    const LARGEST: f64 = 32768.0;

    /// Where it starts: a power of two from 1 to 2¹⁵. Default 2¹⁰.
    pub fn start(mut self, start: f64) -> Self {
        self.start = start;
        self
    }

    /// The steps without overflow until it is doubled, at least 1. Default 2000.
    pub fn interval(mut self, steps: u64) -> Self {
        self.interval = steps;
        self
    }

    fn is_possible(scale: f64) -> bool {
        (1.0..=Self::LARGEST).contains(&scale) && scale.log2().fract() == 0.0
    }

    fn validate(&self) -> Result<(), Error> {
        let range = "a power of two from 1 to 32768";
        Error::unless(Self::is_possible(self.start), "loss scale: start", range, self.start)?;
        let interval = self.interval as f64;
        Error::unless(self.interval > 0, "loss scale: interval", "at least 1", interval)
    }
}

impl Default for LossScale {
    fn default() -> Self {
        Self { start: 1024.0, interval: 2000 }
    }
}

/// Trains a model in half precision by an optimizer of a copy in f32, the master.
///
/// In half precision a weight of 1 does not move by less than 5·10⁻⁴: at a small rate nothing moves and nothing is learned of
/// the rate, until it has been [raised](crate::Outcome::Raised) to where something does; and what is smaller than that is lost
/// all along. The master moves, and its snapshots lose no displacement; the model is
/// the master, rounded. That takes 12 bytes a parameter (master and two snapshots) beside the model's 2 and what the
/// optimizer accumulates; without a master 4 (two snapshots) beside the 2.
///
/// # Example
/// ```
/// # #[cfg(feature = "f16")] {
/// use dfdx::{dtypes::{f16, AMP}, optim::SgdConfig, prelude::*};
/// use tlr::{optim::Sgd, LossScale, MixedPrecision, Newton, NewtonConfig, Window};
///
/// let dev = Cpu::default();
/// let mut model = dev.build_module::<Linear<4, 1>, AMP<f16>>();
/// let config = NewtonConfig::default().window(Window::steps(5)?);
/// let mut opt = MixedPrecision::new(&model, LossScale::default(), |master| {
///     Newton::new(master, Sgd::new(master, SgdConfig { lr: 1e-6, ..Default::default() }), config)
/// })?;
///
/// let x: Tensor<Rank2<32, 4>, AMP<f16>, _> = dev.sample_normal();
/// for _ in 0..200 {
///     let loss = model.forward(x.trace(model.alloc_grads())).square().mean::<Rank0, _>();
///     let value = loss.array().0.to_f32();
///     let gradients = opt.scaled(loss)?.backward();
///     opt.step(&mut model, &gradients, value)?;
/// }
/// assert!(opt.optimizer().rates()[0].1 > 1e-2); // from 1e-6
/// # }
/// # Ok::<(), tlr::Error>(())
/// ```
pub struct MixedPrecision<M, E, Opt: TunableOptimizer, R> {
    optimizer: Trainer<Opt, R>,
    master: Opt::Model,
    config: LossScale,
    scale: f64,
    /// Steps since the scale last changed.
    since: u64,
    skipped: u64,
    marker: PhantomData<fn(&M, E)>,
}

impl<M, E, D, Opt, R> MixedPrecision<M, E, Opt, R>
where
    M: TensorCollection<E, D, To<f32, D> = Opt::Model> + Clone,
    E: Dtype,
    D: Backend<E> + Backend<f32>,
    Opt: TunableOptimizer<Dtype = f32, Device = D>,
    R: RateRule,
{
    /// The master of `model`, and the optimizer that is made for it.
    ///
    /// # Errors
    /// Those of `optimizer`; [`Error::OutOfRange`], [`Error::Device`].
    ///
    /// # Example
    /// See [`MixedPrecision`].
    pub fn new(
        model: &M,
        scale: LossScale,
        optimizer: impl FnOnce(&Opt::Model) -> Result<Trainer<Opt, R>, Error>,
    ) -> Result<Self, Error> {
        scale.validate()?;
        let walk = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut Widen });
        let Some(master) = walk.map_err(device_error)? else { return Err(Error::NothingToTrain) };
        let optimizer = optimizer(&master)?;
        let marker = PhantomData;
        let (since, skipped) = (0, 0);
        Ok(Self { optimizer, master, config: scale, scale: scale.start, since, skipped, marker })
    }

    /// The loss times the [scale](Self::loss_scale), for the gradients that [`step`](Self::step) takes.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn scaled<T: Tape<E, D>>(
        &self,
        loss: Tensor<Rank0, E, D, T>,
    ) -> Result<Tensor<Rank0, E, D, T>, Error> {
        loss.try_mul(E::from_f64(self.scale).unwrap_or_default()).map_err(device_error)
    }

    /// What the next loss is multiplied by.
    pub fn loss_scale(&self) -> f64 {
        self.scale
    }

    /// Steps that were left out because a gradient overflowed.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The optimizer of the master.
    pub fn optimizer(&self) -> &Trainer<Opt, R> {
        &self.optimizer
    }

    /// The master.
    pub fn master(&self) -> &Opt::Model {
        &self.master
    }

    /// One step, by gradients of the [`scaled`](Self::scaled) loss, and the loss itself.
    ///
    /// Where a gradient is not finite and the loss is, the scale is too large. It is halved and the step is
    /// left out; it counts in no window. At a scale of 1, or where the loss itself is not finite, the
    /// safeguard sees to it.
    ///
    /// # Errors
    /// As [`Trainer::step`]. The weights are as they were, or as they were at the last good snapshot.
    pub fn step(
        &mut self,
        model: &mut M,
        gradients: &Gradients<E, D>,
        loss: impl Into<f64>,
    ) -> Result<Step, Error> {
        let loss = loss.into();
        let gradients = match gradients::complete(&*model, gradients) {
            Ok(gradients) => gradients,
            Err(OptimizerUpdateError::DeviceError(error)) => return Err(device_error(error)),
            Err(OptimizerUpdateError::UnusedParams(unused)) => {
                let names = tensors::list(model).into_iter();
                let names = names.filter(|tensor| unused.ids.contains(&tensor.id));
                return Err(Error::UnusedParameters { tensors: names.map(|t| t.name).collect() });
            }
        };
        let (mut unscaled, finite) = self.unscale(model, gradients).map_err(device_error)?;
        if !finite && loss.is_finite() && self.scale > 1.0 {
            tracing::debug!(scale = self.scale, "a gradient overflowed, step left out");
            self.scale *= 0.5;
            self.since = 0;
            self.skipped += 1;
            return Ok(Step::Skipped(Cause::GradientOverflow));
        }
        self.since += 1;
        if self.since >= self.config.interval {
            self.scale = (2.0 * self.scale).min(LossScale::LARGEST);
            self.since = 0;
        }
        // The forward pass has changed the model's.
        copy(model, &mut self.master, false);
        let stepped = self.optimizer.step_owned(&mut self.master, &mut unscaled, loss);
        copy(&self.master, model, true);
        stepped
    }

    /// The master's gradients, and whether all of them are finite.
    fn unscale(
        &self,
        model: &M,
        mut gradients: Gradients<E, D>,
    ) -> Result<(Gradients<f32, D>, bool), <D as HasErr>::Err> {
        let mut values: Vec<Vec<f32>> = Vec::new();
        gradients::each(model, &mut gradients, |_, gradient| {
            let read = |scaled: &[E]| scaled.iter().map(to_f32).collect();
            values.push(<D as Backend<E>>::read(gradient, read)?);
            Ok(())
        })?;
        let factor = self.scale.recip() as f32; // a power of two
        values.iter_mut().flatten().for_each(|value| *value *= factor);
        let finite = values.iter().flatten().all(|value| value.is_finite());
        let (mut unscaled, mut values) = (Gradients::leaky(), values.iter());
        gradients::each(&self.master, &mut unscaled, |_, gradient| {
            <D as Backend<f32>>::write(gradient, |gradient| {
                let values = values.next().into_iter().flatten();
                gradient.iter_mut().zip(values).for_each(|(to, value)| *to = *value);
            })
        })?;
        Ok((unscaled, finite))
    }

    /// Everything, as [`Trainer::checkpoint`], with the loss scale attached.
    ///
    /// # Errors
    /// As [`Trainer::checkpoint`].
    pub fn checkpoint(&self) -> Result<Checkpoint, Error>
    where
        Opt: Resumable,
        R: Serialize,
    {
        let state: Vec<u8> = [self.scale.to_bits(), self.since, self.skipped]
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect();
        Ok(self.optimizer.checkpoint(&self.master)?.attach(ATTACHMENT, state))
    }

    /// Takes over a checkpoint, and the model with it.
    ///
    /// # Errors
    /// As [`Trainer::resume`]. Nothing has changed then.
    pub fn resume(&mut self, model: &mut M, checkpoint: &Checkpoint) -> Result<(), Error>
    where
        Opt: Resumable,
        R: Serialize,
    {
        let mut words = checkpoint.attachment(ATTACHMENT).unwrap_or_default().chunks_exact(8);
        let mut word =
            || words.next().and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let damaged = |what: &str| checkpoint.refused(CheckpointError::Damaged(what.to_owned()));
        let (Some(scale), Some(since), Some(skipped)) = (word(), word(), word()) else {
            return Err(damaged("it has no loss scale"));
        };
        let possible = LossScale::is_possible(f64::from_bits(scale));
        if !possible || since >= MOST_STEPS || skipped >= MOST_STEPS {
            return Err(damaged("its loss scale is impossible"));
        }
        self.optimizer.resume(&mut self.master, checkpoint)?;
        (self.scale, self.since, self.skipped) = (f64::from_bits(scale), since, skipped);
        copy(&self.master, model, true);
        Ok(())
    }

    /// [`checkpoint`](Self::checkpoint), written to a file.
    ///
    /// # Errors
    /// As [`Trainer::save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error>
    where
        Opt: Resumable,
        R: Serialize,
    {
        self.checkpoint()?.save(path)
    }

    /// [`resume`](Self::resume), from a file.
    ///
    /// # Errors
    /// As [`Trainer::load`].
    pub fn load(&mut self, model: &mut M, path: impl AsRef<Path>) -> Result<(), Error>
    where
        Opt: Resumable,
        R: Serialize,
    {
        self.resume(model, &Checkpoint::open(path)?)
    }
}

impl<M, E, Opt: TunableOptimizer, R: fmt::Debug> fmt::Debug for MixedPrecision<M, E, Opt, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MixedPrecision")
            .field("scale", &self.scale)
            .field("skipped", &self.skipped)
            .field("optimizer", &self.optimizer)
            .finish_non_exhaustive()
    }
}

const ATTACHMENT: &str = "loss_scale";

fn device_error(error: impl std::fmt::Display) -> Error {
    Error::Device(error.to_string())
}

/// Buffers only, or weights as well, from one model to another of the same shape and another element type.
fn copy<A, B, E, F, D>(from: &A, to: &mut B, weights: bool)
where
    A: TensorCollection<E, D>,
    B: TensorCollection<F, D>,
    E: Dtype,
    F: Dtype,
    D: Device<E> + Device<F>,
{
    let mut values = Vec::new();
    tensors::read(from, |tensor| {
        if weights || !tensor.trainable {
            values.push(tensor.to_vec());
        }
    });
    let mut values = values.iter();
    tensors::write(to, |trainable, _| {
        if trainable && !weights {
            return None;
        }
        let rounded = |value: &E| F::from_f32(to_f32(value)).unwrap_or_default();
        Some(values.next()?.iter().map(rounded).collect())
    });
}

/// Builds the same model in f32.
struct Widen;

impl<E: Dtype, D: Device<E> + Device<f32>> TensorVisitor<E, D> for Widen {
    type Viewer = ViewTensorRef;
    type Err = <D as HasErr>::Err;
    type E2 = f32;
    type D2 = D;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, E, D>,
        tensor: &Tensor<S, E, D>,
    ) -> Result<Option<Tensor<S, f32, D>>, Self::Err> {
        let values: Vec<f32> = tensors::values(tensor).iter().map(to_f32).collect();
        let device: D = tensor.device().clone();
        Ok(Some(TensorFromVec::<f32>::try_tensor_from_vec(&device, values, *tensor.shape())?))
    }
}

fn to_f32<E: Dtype>(value: &E) -> f32 {
    value.to_f32().unwrap_or(f32::NAN)
}
