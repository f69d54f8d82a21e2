//! Steps that several ranks make together: before anything is decided, gradients and loss are
//! replaced by their means.

use super::{fault::StepFault, Trainer};
use crate::{
    engine::{RateRule, Step},
    error::Error,
    optim::{
        gradients::{self, StepGradients},
        ErrOf, OverRanks, StepFigures, TunableOptimizer,
    },
};
use dfdx::tensor::Gradients;

impl<Opt, R> Trainer<Opt, R>
where
    Opt: TunableOptimizer,
    R: RateRule,
{
    /// A copy of the gradients, averaged over all ranks, and the mean loss. None if the optimizer
    /// averages nothing.
    pub(super) fn averaged_copy(
        &mut self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        loss: Option<f64>,
    ) -> Result<Option<Averaged<Opt>>, StepFault<ErrOf<Opt>>> {
        let figures = StepFigures::new(loss);
        self.averaged_by(model, gradients, figures)
    }

    /// As [`averaged_copy`](Self::averaged_copy), for further gradients of the same batches.
    pub(super) fn averaged_again(
        &mut self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        loss: f64,
    ) -> Result<Option<Averaged<Opt>>, StepFault<ErrOf<Opt>>> {
        self.averaged_by(model, gradients, StepFigures::new(Some(loss)).again())
    }

    fn averaged_by(
        &mut self,
        model: &Opt::Model,
        gradients: &Gradients<Opt::Dtype, Opt::Device>,
        figures: StepFigures,
    ) -> Result<Option<Averaged<Opt>>, StepFault<ErrOf<Opt>>> {
        if !self.optimizer.averages_over_ranks() {
            return Ok(None);
        }
        let checked = self.snapshots.check(model).map_err(StepFault::from);
        let mut own = checked.and_then(|()| {
            let copy = self.optimizer.complete_gradients(model, gradients)?;
            Ok(copy.unwrap_or_else(|| gradients.clone()))
        });
        let loss = self.average(model, own.as_mut(), figures);
        Ok(Some((own?, loss?)))
    }

    /// Averages the gradients in place. Returns the mean loss.
    pub(super) fn average_owned(
        &mut self,
        model: &Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
        loss: Option<f64>,
    ) -> Result<Option<f64>, StepFault<ErrOf<Opt>>> {
        if !self.optimizer.averages_over_ranks() {
            return Ok(loss);
        }
        let checked = self.snapshots.check(model).map_err(StepFault::from);
        let mut filled = checked.and_then(|()| {
            gradients::fill(model, gradients).map_err(StepFault::Device)?;
            Ok(gradients)
        });
        let figures = StepFigures::new(loss);
        let loss = self.average(model, filled.as_mut().map(|own| &mut **own), figures);
        filled?;
        Ok(loss?)
    }

    /// The means over all ranks, for a caller that has to see them before
    /// [`step_averaged`](Self::step_averaged). The other ranks learn of an error of this one.
    pub(super) fn average_first(
        &mut self,
        model: &Opt::Model,
        own: Result<Gradients<Opt::Dtype, Opt::Device>, Error>,
        loss: f64,
    ) -> Result<Averaged<Opt>, Error> {
        if !self.optimizer.averages_over_ranks() {
            return own.map(|own| (own, Some(loss)));
        }
        let mut own = own.map_err(StepFault::from);
        let mean = self.average(model, own.as_mut(), StepFigures::new(Some(loss)));
        let own = own.map_err(|fault| self.to_error(&fault))?;
        Ok((own, mean?))
    }

    /// Makes one step by gradients that are means over all ranks already.
    pub(super) fn step_averaged(
        &mut self,
        model: &mut Opt::Model,
        gradients: &mut Gradients<Opt::Dtype, Opt::Device>,
        loss: f64,
    ) -> Result<Step, Error> {
        let stepped = self.drive_averaged(model, StepGradients::Owned(gradients), Some(loss));
        stepped.map_err(|fault| self.to_error(&fault))
    }

    /// Averages with all other ranks, even if this one has failed: the others wait for it.
    fn average(
        &mut self,
        model: &Opt::Model,
        own: Own<'_, Opt>,
        mut figures: StepFigures,
    ) -> Result<Option<f64>, Error> {
        let own = own.map_err(|fault| self.to_error(fault));
        figures.standing = Some(self.engine.standing());
        self.optimizer.average_over_ranks(model, own, &mut figures)?;
        Ok(figures.loss)
    }
}

/// This rank's gradients, or why it has none.
type Own<'a, Opt> = Result<
    &'a mut Gradients<<Opt as TunableOptimizer>::Dtype, <Opt as TunableOptimizer>::Device>,
    &'a mut StepFault<ErrOf<Opt>>,
>;

/// Gradients and a loss.
type Averaged<Opt> =
    (Gradients<<Opt as TunableOptimizer>::Dtype, <Opt as TunableOptimizer>::Device>, Option<f64>);

impl<Opt: OverRanks, R> Trainer<Opt, R> {
    /// Sends a flag to all ranks with each step from now on:
    /// [`DataParallel::set_flag`](crate::DataParallel::set_flag).
    ///
    /// Example: [`average_buffers`](Self::average_buffers).
    pub fn set_flag(&mut self, raised: bool) {
        self.optimizer.set_flag(raised);
    }

    /// Whether any rank had the flag of [`set_flag`](Self::set_flag) set in the last step:
    /// [`DataParallel::flag_was_set`](crate::DataParallel::flag_was_set).
    ///
    /// Example: [`average_buffers`](Self::average_buffers).
    pub fn flag_was_set(&self) -> bool {
        self.optimizer.flag_was_set()
    }

    /// Replaces the buffers of `model` by their means over the ranks:
    /// [`DataParallel::average_buffers`](crate::DataParallel::average_buffers).
    ///
    /// # Errors
    /// [`Error::Parallel`].
    ///
    /// # Example
    /// Each of two ranks has its own running mean, and the second one is asked to stop.
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{
    ///     optim::{Accumulate, Sgd},
    ///     parallel::{Ranks, Threads},
    ///     DataParallel, Newton, NewtonConfig,
    /// };
    ///
    /// let ranks = Threads::new(2).into_iter().zip([1.0, 3.0]).map(|(link, mean)| {
    ///     std::thread::spawn(move || {
    ///         let mut norm = Cpu::default().build_module::<BatchNorm1D<1>, f64>();
    ///         norm.running_mean.copy_from(&[mean]);
    ///         let sgd = Sgd::new(&norm, SgdConfig::default());
    ///         let optimizer = Accumulate::new(DataParallel::new(sgd, Ranks::new(link)), 1)?;
    ///         let mut opt = Newton::new(&norm, optimizer, NewtonConfig::default())?;
    ///         opt.set_flag(mean == 3.0);
    ///         let gradients = norm.alloc_grads();
    ///         opt.step(&mut norm, &gradients, 1.0)?;
    ///         opt.average_buffers(&mut norm)?;
    ///         Ok::<_, tlr::Error>((opt.flag_was_set(), norm.running_mean.array()))
    ///     })
    /// });
    /// for rank in ranks.collect::<Vec<_>>() {
    ///     assert_eq!(rank.join().unwrap()?, (true, [2.0]));
    /// }
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn average_buffers(&self, model: &mut Opt::Model) -> Result<(), Error> {
        self.optimizer.average_buffers(model)
    }
}
