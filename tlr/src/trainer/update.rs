//! The base optimizer's update: all of it, or nothing.

use super::fault::StepFault;
use crate::optim::{
    gradients::{self, StepGradients},
    ErrOf, FailedUpdate, TunableOptimizer,
};
use dfdx::tensor::Gradients;

/// An update that has failed. The weights are as they were before it.
pub(super) struct FailedStep<Err> {
    pub(super) fault: StepFault<Err>,
    /// Whether gradients that were gathered for the step are gone.
    pub(super) gathered_lost: bool,
}

/// Makes one update. If it fails, the weights are as they were before it.
///
/// dfdx's optimizers report unused parameters only after they have moved the others, and dfdx
/// offers no way to ask before. So the weights are copied where needed: a clone of the model shares
/// its tensors until they are written to. If the update fails, they are put back, and the
/// optimizer's state, which has seen half a step, is cleared. `copied` is the copy of the gradients
/// that the optimizer has used, if they were copied.
pub(super) fn update_or_undo<Opt: TunableOptimizer>(
    optimizer: &mut Opt,
    model: &mut Opt::Model,
    gradients: &mut StepGradients<'_, Opt::Dtype, Opt::Device>,
    copied: &mut Option<Gradients<Opt::Dtype, Opt::Device>>,
    has_updated: &mut bool,
) -> Result<(), FailedStep<ErrOf<Opt>>> {
    // Until the optimizer begins, all that was gathered is as it was.
    let complete = completed(optimizer, model, gradients, copied);
    let complete = complete.map_err(|fault| FailedStep { fault, gathered_lost: false })?;
    let mut reset = false;
    let updated = update(optimizer, model, complete, has_updated, &mut reset);
    updated.map_err(|fault| {
        // A device that fails in the middle of gathering leaves sums that are of no use.
        let drops = matches!(fault, StepFault::Device(_));
        if drops {
            optimizer.drop_gathered(model);
        }
        FailedStep { fault, gathered_lost: drops || reset }
    })
}

type Complete<'g, Opt> = Result<
    StepGradients<'g, <Opt as TunableOptimizer>::Dtype, <Opt as TunableOptimizer>::Device>,
    StepFault<ErrOf<Opt>>,
>;

/// The gradients, of which none is missing any more unless the optimizer reports it itself.
fn completed<'g, Opt: TunableOptimizer>(
    optimizer: &Opt,
    model: &Opt::Model,
    gradients: &'g mut StepGradients<'_, Opt::Dtype, Opt::Device>,
    copied: &'g mut Option<Gradients<Opt::Dtype, Opt::Device>>,
) -> Complete<'g, Opt> {
    match gradients {
        StepGradients::Owned(own) => {
            gradients::fill(model, own).map_err(StepFault::Device)?;
            Ok(StepGradients::Owned(own))
        }
        StepGradients::Borrowed(lent) => {
            // The copy may have been made for this step before.
            if copied.is_none() {
                *copied = optimizer.complete_gradients(model, lent)?;
            }
            Ok(match copied {
                Some(copy) => StepGradients::Owned(copy),
                None => StepGradients::Borrowed(lent),
            })
        }
    }
}

/// Makes the update. `reset` says whether the optimizer's state was cleared because it has failed.
fn update<Opt: TunableOptimizer>(
    optimizer: &mut Opt,
    model: &mut Opt::Model,
    gradients: StepGradients<'_, Opt::Dtype, Opt::Device>,
    has_updated: &mut bool,
    reset: &mut bool,
) -> Result<(), StepFault<ErrOf<Opt>>> {
    let only_gathers = optimizer.only_gathers();
    let is_complete = matches!(gradients, StepGradients::Owned(_));
    let copies = match optimizer.failed_update() {
        FailedUpdate::Undone => !is_complete,
        FailedUpdate::Impossible => !(is_complete && *has_updated),
        FailedUpdate::HalfDone => true,
    };
    let before = copies.then(|| model.clone());
    let updated = match gradients {
        StepGradients::Owned(own) => optimizer.update_owned(model, own),
        StepGradients::Borrowed(lent) => optimizer.update(model, lent),
    };
    match updated {
        Ok(()) => {
            *has_updated |= !only_gathers;
            Ok(())
        }
        Err(error) => {
            if let Some(before) = before {
                *model = before;
                optimizer.reset(model);
                (*has_updated, *reset) = (false, true);
            }
            Err(error.into())
        }
    }
}
