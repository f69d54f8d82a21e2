//! A dfdx model, its optimizer and its snapshots, as the engine's host.

use super::{
    fault::StepFault,
    update::{update_or_undo, FailedStep},
};
use crate::{
    engine::{Host, Slope, Target, TensorKind, WindowEnd},
    optim::{gradients::StepGradients, ErrOf, TunableOptimizer},
    snapshots::{Snapshots, Unmoved},
    tensors,
};
use dfdx::tensor::Gradients;

/// What the engine's requests act on during one step.
pub(super) struct ModelHost<'a, Opt: TunableOptimizer> {
    model: &'a mut Opt::Model,
    gradients: StepGradients<'a, Opt::Dtype, Opt::Device>,
    /// The copy of the gradients that the optimizer got, if it got one.
    copied_gradients: Option<Gradients<Opt::Dtype, Opt::Device>>,
    optimizer: &'a mut Opt,
    snapshots: &'a mut Snapshots<Opt::Dtype>,
    has_updated: &'a mut bool,
    /// Gradients that were gathered before this step are gone, because the update failed.
    pub(super) gathered_lost: bool,
}

impl<'a, Opt: TunableOptimizer> ModelHost<'a, Opt> {
    pub(super) fn new(
        model: &'a mut Opt::Model,
        gradients: StepGradients<'a, Opt::Dtype, Opt::Device>,
        optimizer: &'a mut Opt,
        snapshots: &'a mut Snapshots<Opt::Dtype>,
        has_updated: &'a mut bool,
    ) -> Self {
        let gathered_lost = false;
        Self {
            model,
            gradients,
            copied_gradients: None,
            optimizer,
            snapshots,
            has_updated,
            gathered_lost,
        }
    }
}

impl<Opt: TunableOptimizer> Host for ModelHost<'_, Opt> {
    type Error = StepFault<ErrOf<Opt>>;

    fn take_snapshot(&mut self, kind: TensorKind) -> Result<(), Self::Error> {
        Ok(self.snapshots.take(&*self.model, kind)?)
    }

    fn update(&mut self, rates: &[f64]) -> Result<(), Self::Error> {
        for (group, rate) in rates.iter().enumerate() {
            self.optimizer.set_rate(group, *rate);
        }
        let updated = update_or_undo(
            self.optimizer,
            self.model,
            &mut self.gradients,
            &mut self.copied_gradients,
            self.has_updated,
        );
        updated.map_err(|FailedStep { fault, gathered_lost }| {
            self.gathered_lost |= gathered_lost;
            fault
        })
    }

    fn skip(&mut self, drop_gathered: bool) -> Result<(), Self::Error> {
        self.snapshots.restore_buffers(self.model)?;
        if drop_gathered {
            self.optimizer.drop_gathered(self.model);
        }
        Ok(())
    }

    fn end_window(&mut self) -> Result<WindowEnd, Self::Error> {
        match self.snapshots.advance(&*self.model, self.optimizer.shards()) {
            Ok(products) => Ok(WindowEnd::Products(products)),
            Err(Unmoved::NotFinite(tensor)) => Ok(WindowEnd::Broken { tensor }),
            Err(Unmoved::Failed(error)) => Err(error.into()),
        }
    }

    fn weights_are_finite(&mut self) -> Result<bool, Self::Error> {
        Ok(tensors::weights_are_finite(&*self.model))
    }

    /// Measured with the gradients that the caller passed. If the optimizer works on a copy of
    /// them, the copy is made now, because an update may clip the gradients themselves.
    fn slopes(&mut self, since: Target) -> Result<Vec<Slope>, Self::Error> {
        let mut own;
        let gradients = match &mut self.gradients {
            StepGradients::Owned(gradients) => &mut **gradients,
            StepGradients::Borrowed(lent) => {
                if self.copied_gradients.is_none() {
                    self.copied_gradients = self.optimizer.complete_gradients(self.model, lent)?;
                }
                match &mut self.copied_gradients {
                    Some(copy) => copy,
                    None => {
                        own = lent.clone();
                        &mut own
                    }
                }
            }
        };
        Ok(self.snapshots.slopes(&*self.model, gradients, since, self.optimizer.shards())?)
    }

    /// Measured with the gradients that the optimizer has worked on: clipped, say, or the mean of
    /// several batches.
    fn movable(&mut self) -> Result<Vec<bool>, Self::Error> {
        let given = match (&self.copied_gradients, &self.gradients) {
            (Some(given), _) => given,
            (None, StepGradients::Owned(gradients)) => gradients,
            (None, StepGradients::Borrowed(gradients)) => gradients,
        };
        Ok(self.snapshots.movable(&*self.model, given).unwrap_or_default())
    }

    fn norms(&mut self) -> Result<Vec<f64>, Self::Error> {
        Ok(self.snapshots.norms(self.optimizer.shards())?)
    }

    fn clear_optimizer(&mut self) -> Result<(), Self::Error> {
        self.optimizer.reset(self.model);
        *self.has_updated = false;
        Ok(())
    }

    fn go_back(&mut self, target: Target) -> Result<(), Self::Error> {
        self.snapshots.go_back(self.model, target, self.optimizer.shards())?;
        self.clear_optimizer()
    }
}
