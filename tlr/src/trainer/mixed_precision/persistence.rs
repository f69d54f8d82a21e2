//! [`MixedPrecision`]'s way into a checkpoint, and out of it.

use super::{master::copy, MixedPrecision};
use crate::{
    checkpoint::Checkpoint,
    engine::RateRule,
    error::{CheckpointError, Error},
    optim::{Resumable, TunableOptimizer},
    tensors::Backend,
    trainer::loss_scale::ScaleState,
};
use dfdx::{nn::TensorCollection, shapes::Dtype};
use serde::Serialize;
use std::path::Path;

/// The name of the loss scale in a checkpoint.
const LOSS_SCALE: &str = "loss_scale";

impl<M, E, D, Opt, R> MixedPrecision<M, E, Opt, R>
where
    M: TensorCollection<E, D, To<f32, D> = Opt::Model> + Clone,
    E: Dtype,
    D: Backend<E> + Backend<f32>,
    Opt: TunableOptimizer<Dtype = f32, Device = D> + Resumable,
    R: RateRule + Serialize,
{
    /// Everything that [`Trainer::checkpoint`](crate::Trainer::checkpoint) saves, and the loss
    /// scale.
    ///
    /// # Errors
    /// [`Error::Device`]; [`Error::UpdateInterrupted`] as for
    /// [`Trainer::checkpoint`](crate::Trainer::checkpoint).
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
    /// let saved = opt.checkpoint()?;
    /// model.bias.copy_from(&[AMP(f16::ONE)]);
    /// opt.resume(&mut model, &saved)?; // the weights and the loss scale are as they were
    /// assert_eq!(opt.checkpoint()?, saved);
    /// # }
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let state = self.state.to_bytes(&self.config);
        Ok(self.trainer.checkpoint(&self.master)?.with_own(LOSS_SCALE, state))
    }

    /// Resumes from a checkpoint. Overwrites the model by the master of the checkpoint, rounded.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::ModelChanged`], [`Error::Device`]. Nothing has changed then.
    ///
    /// Example: [`checkpoint`](Self::checkpoint).
    pub fn resume(&mut self, model: &mut M, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.check(model)?;
        let state = ScaleState::from_bytes(checkpoint.own(LOSS_SCALE), &self.config);
        let matching = self.trainer.matching(&self.master, checkpoint);
        let (state, progress) = match (state, matching) {
            (Ok(state), Ok(progress)) => (state, progress),
            (Ok(_), Err(error)) => return Err(error),
            (Err(problem), matching) => {
                return Err(checkpoint.refused(with_differences(problem, matching.err())))
            }
        };
        self.trainer.take_over(&mut self.master, checkpoint, progress)?;
        self.state = state;
        copy(&self.master, model, true);
        Ok(())
    }

    /// Makes a [`checkpoint`](Self::checkpoint) and writes it to a file, as
    /// [`Trainer::save`](crate::Trainer::save) does.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], and the errors of [`checkpoint`](Self::checkpoint).
    ///
    /// Example: [`Trainer::save`](crate::Trainer::save).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.trainer.write(&self.checkpoint()?, path)
    }

    /// Opens a checkpoint file and [resumes](Self::resume) from it.
    ///
    /// # Errors
    /// The errors of [`resume`](Self::resume). Nothing has changed then.
    ///
    /// Example: [`Trainer::save`](crate::Trainer::save).
    pub fn load(&mut self, model: &mut M, path: impl AsRef<Path>) -> Result<(), Error> {
        self.resume(model, &self.trainer.open(path)?)
    }
}

/// The problem of the loss scale, and with it all other differences, so that all are told at once.
fn with_differences(problem: CheckpointError, of_the_rest: Option<Error>) -> CheckpointError {
    match (problem, of_the_rest) {
        (
            CheckpointError::Differs(mut all),
            Some(Error::Checkpoint { problem: CheckpointError::Differs(others), .. }),
        ) => {
            all.extend(others);
            CheckpointError::Differs(all)
        }
        (problem, _) => problem,
    }
}
