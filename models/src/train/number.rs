//! The numbers that a model is trained in.

use super::{chosen, AnyRanks, Learner, Options, TrainsIn};
use dfdx::{
    nn::{BuildModule, NumParams, ZeroGrads},
    prelude::Dtype,
};
use num_traits::Float;
use rand_distr::uniform::SampleUniform;
use std::borrow::Cow;
use tlr::{Error, TrainableLr};

/// The type of a model's numbers: `f32`, and with the feature `f16` dfdx's `AMP<f16>`, which a GPU
/// trains in. Weights in half precision have masters in f32, and the loss a scale: see
/// [`tlr::MixedPrecision`].
pub trait Number: Dtype + Float + SampleUniform {
    /// Its name on the command line and in checkpoints.
    const NAME: &'static str;

    /// These values, each rounded to the nearest.
    ///
    /// # Example
    /// ```
    /// use tlr_models::train::Number;
    ///
    /// assert_eq!(*f32::of(&[0.1, 2.0]), [0.1, 2.0]);
    /// ```
    fn of(values: &[f32]) -> Cow<'_, [Self]>;

    /// This number in f32, which can hold every number of these types.
    ///
    /// # Example
    /// ```
    /// use tlr_models::train::Number;
    ///
    /// assert_eq!(0.1f32.widened(), 0.1);
    /// ```
    fn widened(self) -> f32;

    /// The optimizer that `options` ask for, for a model of such numbers: as
    /// [`learner`](super::learner).
    ///
    /// # Errors
    /// Options that make no sense.
    fn learner<M: Trainable<Self, D>, D: TrainsIn<Self>>(
        model: &M,
        options: &Options,
        batches_per_epoch: usize,
        ranks: AnyRanks,
    ) -> Result<Box<dyn Learner<M, D, Self>>, Error>;
}

impl Number for f32 {
    const NAME: &'static str = "f32";

    fn of(values: &[f32]) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }

    fn widened(self) -> f32 {
        self
    }

    fn learner<M: Trainable<f32, D>, D: TrainsIn<f32>>(
        model: &M,
        options: &Options,
        batches_per_epoch: usize,
        ranks: AnyRanks,
    ) -> Result<Box<dyn Learner<M, D>>, Error> {
        chosen::learner(model, options, batches_per_epoch, ranks)
    }
}

#[cfg(feature = "f16")]
impl Number for dfdx::dtypes::AMP<dfdx::dtypes::f16> {
    const NAME: &'static str = "f16";

    fn of(values: &[f32]) -> Cow<'_, [Self]> {
        Cow::Owned(values.iter().map(|value| Self(dfdx::dtypes::f16::from_f32(*value))).collect())
    }

    fn widened(self) -> f32 {
        self.0.to_f32()
    }

    fn learner<M: Trainable<Self, D>, D: TrainsIn<Self>>(
        model: &M,
        options: &Options,
        batches_per_epoch: usize,
        ranks: AnyRanks,
    ) -> Result<Box<dyn Learner<M, D, Self>>, Error> {
        model.learner_of_master(options, batches_per_epoch, ranks)
    }
}

/// A model with numbers of one type, on one device.
///
/// # Example
/// ```
/// use tlr_models::train::{Model, Net, Number};
///
/// fn precision<M: Model>() -> &'static str {
///     M::Number::NAME
/// }
/// assert_eq!(precision::<Net>(), "f32");
/// ```
pub trait Model: 'static {
    /// The type of its numbers.
    type Number: Number;

    /// The device that holds its weights.
    type Device: TrainsIn<Self::Number>;
}

/// A model that can be trained in numbers of type `E`, and whose master in f32 can be. Every model
/// that fulfils these bounds is one.
pub trait Trainable<E: Number, D: TrainsIn<E>>:
    TrainableLr<E, D> + NumParams<E, D> + ZeroGrads<E, D> + BuildModule<D, E> + 'static
{
    /// The optimizer that `options` ask for, around the model's master.
    ///
    /// # Errors
    /// Options that make no sense.
    #[cfg(feature = "f16")]
    fn learner_of_master(
        &self,
        options: &Options,
        batches_per_epoch: usize,
        ranks: AnyRanks,
    ) -> Result<Box<dyn Learner<Self, D, E>>, Error>;
}

impl<E: Number, D: TrainsIn<E>, M> Trainable<E, D> for M
where
    M: TrainableLr<E, D> + NumParams<E, D> + ZeroGrads<E, D> + BuildModule<D, E> + 'static,
    M::To<f32, D>: TrainableLr<f32, D> + 'static,
{
    #[cfg(feature = "f16")]
    fn learner_of_master(
        &self,
        options: &Options,
        batches_per_epoch: usize,
        ranks: AnyRanks,
    ) -> Result<Box<dyn Learner<Self, D, E>>, Error> {
        super::half::learner(self, options, batches_per_epoch, ranks)
    }
}
