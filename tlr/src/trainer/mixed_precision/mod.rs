//! [`MixedPrecision`]: training in half precision with master weights in f32.

mod master;
#[cfg(feature = "cuda")]
mod on_gpu;
mod persistence;

use super::{
    loss_scale::{LossScale, ScaleState},
    Trainer,
};
use crate::{
    engine::{RateRule, Step},
    error::{Cause, Error, TensorDifference},
    optim::{gradients, OverRanks, TunableOptimizer},
    tensors::{self, Backend},
};
use dfdx::{
    nn::{RecursiveWalker, TensorCollection},
    shapes::{Dtype, Rank0},
    tensor::{Gradients, Tape, Tensor, UniqueId},
    tensor_ops::TryMul,
};
use master::{buffers, copy, failed, set_buffers, to_f32, Unscaled, Widen};
use std::{fmt, marker::PhantomData};

/// Trains a model in half precision. The optimizer updates the master, a copy of the model in f32.
///
/// A weight of 1 in half precision absorbs any update smaller than 5·10⁻⁴. At a small rate no
/// weight moves, and the engine learns nothing about the rate until it has
/// [raised](crate::Outcome::Raised) the rate far enough for weights to move. Even then, smaller
/// updates are lost. The master does move, and its snapshots lose no displacement. After each step
/// the model is the master, rounded to half precision.
///
/// The master and its two snapshots take 12 bytes a parameter, besides the model's 2 bytes and what
/// the optimizer accumulates. Without a master, the two snapshots take 4 bytes a parameter besides
/// the model's 2.
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
/// assert!(opt.trainer().rates()[0].1 > 1e-2); // from 1e-6
/// # }
/// # Ok::<(), tlr::Error>(())
/// ```
pub struct MixedPrecision<M, E, Opt: TunableOptimizer, R> {
    trainer: Trainer<Opt, R>,
    master: Opt::Model,
    /// The trainable tensors of the model in half precision.
    tensors: Vec<UniqueId>,
    config: LossScale,
    state: ScaleState,
    #[cfg(feature = "cuda")]
    converter: crate::snapshots::convert::Converter,
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
    /// Makes the master of `model`, and calls `optimizer` with it.
    ///
    /// # Errors
    /// The errors of `optimizer`; [`Error::OutOfRange`] for a number of `scale`;
    /// [`Error::NotContiguous`]; [`Error::NothingToTrain`]; [`Error::Device`].
    ///
    /// Example: [`MixedPrecision`].
    pub fn new(
        model: &M,
        scale: LossScale,
        optimizer: impl FnOnce(&Opt::Model) -> Result<Trainer<Opt, R>, Error>,
    ) -> Result<Self, Error> {
        scale.validate()?;
        let mut trained = Vec::new();
        // Values are copied in the order of memory. Only a contiguous tensor has its elements in
        // that order.
        for tensor in tensors::list(model) {
            if !tensor.contiguous {
                return Err(Error::NotContiguous { tensor: tensor.name });
            }
            if tensor.trainable {
                trained.push(tensor.id);
            }
        }
        let walk = M::iter_tensors(&mut RecursiveWalker { m: model, f: &mut Widen });
        let Some(master) = walk.map_err(failed)? else { return Err(Error::NothingToTrain) };
        let trainer = optimizer(&master)?;
        let marker = PhantomData;
        Ok(Self {
            trainer,
            master,
            tensors: trained,
            config: scale,
            state: ScaleState::new(&scale),
            #[cfg(feature = "cuda")]
            converter: Default::default(),
            marker,
        })
    }

    /// Multiplies the loss by the [scale](Self::loss_scale). Pass the gradients of the result to
    /// [`step`](Self::step).
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// Example: [`MixedPrecision`].
    pub fn scaled<T: Tape<E, D>>(
        &self,
        loss: Tensor<Rank0, E, D, T>,
    ) -> Result<Tensor<Rank0, E, D, T>, Error> {
        loss.try_mul(E::from_f64(self.state.scale).unwrap_or_default()).map_err(failed)
    }

    /// The current scale. The next loss is multiplied by it.
    ///
    /// Example: [`skipped_steps`](Self::skipped_steps).
    pub fn loss_scale(&self) -> f64 {
        self.state.scale
    }

    /// The number of batches that were skipped because a gradient overflowed.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "f16")] {
    /// use dfdx::{dtypes::{f16, AMP}, optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, LossScale, MixedPrecision, Newton, NewtonConfig};
    ///
    /// let mut model = Cpu::default().build_module::<Linear<4, 1>, AMP<f16>>();
    /// let mut opt = MixedPrecision::new(&model, LossScale::default(), |master| {
    ///     Newton::new(master, Sgd::new(master, SgdConfig::default()), NewtonConfig::default())
    /// })?;
    /// assert_eq!((opt.loss_scale(), opt.skipped_steps()), (1024.0, 0));
    /// let ones: Tensor<Rank2<1, 4>, AMP<f16>, _> = model.weight.device().ones();
    /// let out = model.forward(ones.trace(model.alloc_grads()));
    /// let loss = (out * AMP(f16::from_f32(3e4))).mean::<Rank0, _>(); // times 1024 it is infinite
    /// opt.step(&mut model, &opt.scaled(loss)?.backward(), 1.0)?;
    /// assert_eq!((opt.loss_scale(), opt.skipped_steps()), (512.0, 1));
    /// # }
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn skipped_steps(&self) -> u64 {
        self.state.skipped
    }

    /// The trainer of the master.
    ///
    /// Example: [`MixedPrecision`].
    pub fn trainer(&self) -> &Trainer<Opt, R> {
        &self.trainer
    }

    /// The trainer of the master: to set what holds for the next step, such as the weight of its
    /// batch, or to [take the history](Trainer::take_history). Only [`step`](Self::step) makes
    /// steps.
    ///
    /// Example: [`into_inner`](Self::into_inner).
    pub fn trainer_mut(&mut self) -> &mut Trainer<Opt, R> {
        &mut self.trainer
    }

    /// [`Trainer::reset`], at the weights of the master: the way on after an error. The loss scale
    /// stays as it is.
    ///
    /// # Errors
    /// As [`Trainer::reset`].
    ///
    /// Example: [`into_inner`](Self::into_inner).
    pub fn reset(&mut self) -> Result<(), Error> {
        self.trainer.reset(&self.master)
    }

    /// The base optimizer, with the learned rates and all that it has accumulated, and the master
    /// that it updates.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "f16")] {
    /// use dfdx::{dtypes::{f16, AMP}, optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, LossScale, MixedPrecision, Newton, NewtonConfig};
    ///
    /// let mut model = Cpu::default().build_module::<Linear<4, 1>, AMP<f16>>();
    /// let mut opt = MixedPrecision::new(&model, LossScale::default(), |master| {
    ///     Newton::new(master, Sgd::new(master, SgdConfig::default()), NewtonConfig::default())
    /// })?;
    /// opt.trainer_mut().take_history();
    /// opt.reset()?;
    /// let (sgd, master) = opt.into_inner();
    /// assert_eq!((sgd.cfg.lr, master.weight.shape()), (1e-2, model.weight.shape()));
    /// # }
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn into_inner(self) -> (Opt, Opt::Model) {
        (self.trainer.into_inner(), self.master)
    }

    /// The master: the model in f32.
    ///
    /// Example: [`into_inner`](Self::into_inner).
    pub fn master(&self) -> &Opt::Model {
        &self.master
    }

    /// Makes one step. `gradients` are those of the [`scaled`](Self::scaled) loss, and `loss` is
    /// the loss without the scale.
    ///
    /// If a gradient is not finite but the loss is, the scale is too large. It is halved and the
    /// batch is skipped. The batch counts in no window. At a scale of 1, or if the loss is not
    /// finite either, the safeguard decides what to do.
    ///
    /// # Errors
    /// The errors of [`Trainer::step`]. The weights are then unchanged, or those of the last good
    /// snapshot.
    ///
    /// Example: [`MixedPrecision`].
    pub fn step(
        &mut self,
        model: &mut M,
        gradients: &Gradients<E, D>,
        loss: impl Into<f64>,
    ) -> Result<Step, Error> {
        let (own, finite) = match self.unscale(model, gradients) {
            Ok(Unscaled { gradients, are_finite }) => (Ok(gradients), are_finite),
            Err(error) => (Err(error), None),
        };
        // All ranks skip a batch that overflows on any, so their scales stay equal.
        let loss = loss.into();
        let (mut unscaled, mean) = self.trainer.average_first(&self.master, own, loss)?;
        let loss = mean.unwrap_or(loss);
        // What is known of this rank's own says nothing of the mean.
        let finite = match finite.filter(|_| !self.trainer.optimizer.averages_over_ranks()) {
            Some(finite) => finite,
            None => gradients::are_finite(&self.master, &mut unscaled).map_err(failed)?,
        };
        if !finite && loss.is_finite() && self.state.scale > 1.0 {
            tracing::debug!(scale = self.state.scale, "a gradient overflowed, step left out");
            self.state.overflowed();
            // The forward pass has changed the model's buffers. A skipped batch leaves no trace.
            self.write_model(model, false);
            return Ok(Step::Skipped(Cause::GradientOverflow));
        }
        // The forward pass has changed the model's buffers, so they are copied to the master.
        self.write_master(model);
        let stepped = self.trainer.step_averaged(&mut self.master, &mut unscaled, loss);
        self.write_model(model, true);
        let step = stepped?;
        self.state.stepped(finite, &self.config);
        Ok(step)
    }

    /// Checks that `model` is the one that the master was made of.
    fn check(&self, model: &M) -> Result<(), Error> {
        let (of_model, of_master) = (tensors::list(model), tensors::list(&self.master));
        let trained = of_model.iter().filter(|tensor| tensor.trainable).map(|tensor| tensor.id);
        let shapes = of_model.iter().map(|tensor| &tensor.shape);
        match trained.eq(self.tensors.iter().copied())
            && shapes.eq(of_master.iter().map(|tensor| &tensor.shape))
        {
            true => Ok(()),
            false => Err(another_model()),
        }
    }

    /// Copies the model's buffers to the master.
    fn write_master(&mut self, model: &M) {
        #[cfg(feature = "cuda")]
        if on_gpu::widen::<E, D>(&mut self.converter, model, &mut self.master) {
            return;
        }
        copy(model, &mut self.master, false);
    }

    /// Copies the master's buffers to the model, and the weights too if `weights` is set.
    fn write_model(&mut self, model: &mut M, weights: bool) {
        #[cfg(feature = "cuda")]
        if on_gpu::narrow::<E, D>(&mut self.converter, &self.master, model, weights) {
            return;
        }
        copy(&self.master, model, weights);
    }

    /// The gradients of the master, without the scale.
    fn unscale(&mut self, model: &M, gradients: &Gradients<E, D>) -> Result<Unscaled<D>, Error> {
        let factor = self.state.scale.recip() as f32; // exact: a power of two
        #[cfg(feature = "cuda")]
        if let Some(unscaled) = on_gpu::unscale(
            &mut self.converter,
            (model, &self.master),
            gradients,
            &self.tensors,
            factor,
        )? {
            return Ok(unscaled);
        }
        let complete = gradients::complete(model, gradients);
        let mut gradients = complete.map_err(|error| gradients::to_error(model, &error))?;
        let (mut values, mut ids) = (Vec::<Vec<f32>>::new(), Vec::new());
        let read = gradients::each(model, &mut gradients, |id, gradient| {
            ids.push(id);
            let read = |scaled: &[E]| scaled.iter().map(|value| factor * to_f32(value)).collect();
            values.push(<D as Backend<E>>::read(gradient, read)?);
            Ok(())
        });
        read.map_err(failed)?;
        if ids != self.tensors {
            return Err(another_model());
        }
        let (mut unscaled, mut values) = (Gradients::leaky(), values.iter());
        let written = gradients::each(&self.master, &mut unscaled, |_, gradient| {
            <D as Backend<f32>>::write(gradient, |gradient| {
                let values = values.next().into_iter().flatten();
                gradient.iter_mut().zip(values).for_each(|(to, value)| *to = *value);
            })
        });
        written.map_err(failed)?;
        Ok(Unscaled { gradients: unscaled, are_finite: None })
    }
}

impl<M, E, D, Opt, R> MixedPrecision<M, E, Opt, R>
where
    M: TensorCollection<E, D, To<f32, D> = Opt::Model> + Clone,
    E: Dtype,
    D: Backend<E> + Backend<f32>,
    Opt: OverRanks<Dtype = f32, Device = D>,
    R: RateRule,
{
    /// [`Trainer::average_buffers`], for `model` and the master.
    ///
    /// # Errors
    /// As [`Trainer::average_buffers`], and [`Error::ModelChanged`]. Nothing has changed then.
    ///
    /// Example: [`Trainer::average_buffers`].
    pub fn average_buffers(&mut self, model: &mut M) -> Result<(), Error> {
        self.check(model)?;
        let before = buffers(&self.master);
        copy(model, &mut self.master, false);
        if let Err(error) = self.trainer.average_buffers(&mut self.master) {
            set_buffers(&mut self.master, before);
            return Err(error);
        }
        copy(&self.master, model, false);
        Ok(())
    }
}

fn another_model() -> Error {
    Error::ModelChanged(vec![TensorDifference::NotOfMaster])
}

impl<M, E, Opt: TunableOptimizer, R: fmt::Debug> fmt::Debug for MixedPrecision<M, E, Opt, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MixedPrecision")
            .field("scale", &self.state.scale)
            .field("skipped", &self.state.skipped)
            .field("trainer", &self.trainer)
            .finish_non_exhaustive()
    }
}
