//! One step: the engine decides, and the model's [`ModelHost`] carries it out.

use super::{fault::StepFault, host::ModelHost, Trainer};
use crate::{
    engine::{drive, RateRule, Step, StepError, TensorKind},
    error::Error,
    optim::{gradients::StepGradients, ErrOf, TunableOptimizer},
};

impl<Opt, R> Trainer<Opt, R>
where
    Opt: TunableOptimizer,
    R: RateRule,
{
    /// Makes one step, by the means over all ranks if there are several.
    pub(super) fn drive(
        &mut self,
        model: &mut Opt::Model,
        gradients: StepGradients<'_, Opt::Dtype, Opt::Device>,
        loss: Option<f64>,
    ) -> Result<Step, StepFault<ErrOf<Opt>>> {
        match gradients {
            StepGradients::Borrowed(lent) => match self.averaged_copy(model, lent, loss)? {
                Some((mut own, loss)) => {
                    self.drive_averaged(model, StepGradients::Owned(&mut own), loss)
                }
                None => self.drive_averaged(model, StepGradients::Borrowed(lent), loss),
            },
            StepGradients::Owned(own) => {
                let loss = self.average_owned(model, own, loss)?;
                self.drive_averaged(model, StepGradients::Owned(own), loss)
            }
        }
    }

    /// Drives the engine through one step, with this trainer as its host.
    pub(super) fn drive_averaged(
        &mut self,
        model: &mut Opt::Model,
        gradients: StepGradients<'_, Opt::Dtype, Opt::Device>,
        loss: Option<f64>,
    ) -> Result<Step, StepFault<ErrOf<Opt>>> {
        self.snapshots.check(model)?;
        let only_gathers = self.optimizer.only_gathers();
        let mut host = ModelHost::new(
            model,
            gradients,
            &mut self.optimizer,
            &mut self.snapshots,
            &mut self.has_updated,
        );
        let driven = drive(&mut self.engine, &mut host, loss, only_gathers);
        let gathered_lost = host.gathered_lost;
        if gathered_lost {
            self.engine.gathered_gradients_lost();
        }
        self.apply_rates();
        if let Err(StepError::Engine(Error::NonFiniteLoss { .. } | Error::ScheduleFactor { .. })) =
            driven
        {
            // The batch has been through the forward pass, which may have changed the buffers. They
            // go back, as for a batch that is skipped.
            self.snapshots.restore_buffers(model)?;
        }
        let made = match &driven {
            Ok(step) => !matches!(step, Step::Skipped(_)),
            Err(StepError::Host { step_made, .. }) => *step_made,
            Err(StepError::Engine(_)) => false,
        };
        let taken = if made { self.take_buffers(model) } else { Ok(()) };
        let step = driven.map_err(|error| match error {
            StepError::Engine(error) => StepFault::Tlr(error),
            StepError::Host { error, step_made: true } => StepFault::AtWindowEnd(Box::new(error)),
            StepError::Host { error, step_made: false } => error,
        })?;
        taken.map_err(|error| StepFault::AtWindowEnd(Box::new(error.into())))?;
        Ok(step)
    }

    /// Takes the buffers now if the next step begins with a snapshot: its forward pass changes
    /// them, and its batch may be broken.
    pub(super) fn take_buffers(&mut self, model: &Opt::Model) -> Result<(), Error> {
        match self.engine.lacks_snapshot() {
            true => self.snapshots.take(model, TensorKind::Buffers),
            false => Ok(()),
        }
    }
}
