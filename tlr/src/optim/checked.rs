//! Checks of an optimizer against its model, when a trainer is made.

use super::{Groups, TunableOptimizer};
use crate::{error::Error, tensors};

/// What to do about an attribute that says how a tensor is updated.
const OF_TENSORS: &str = "this optimizer updates all tensors alike; take one of `tlr::optim`, or make one of an `UpdateRule` by `tlr::optim::Elementwise`";

/// The groups of `optimizer` for `model`, if its hyperparameters are possible and it can follow the
/// attributes of the model's fields.
pub(crate) fn checked_groups<Opt: TunableOptimizer>(
    optimizer: &Opt,
    model: &Opt::Model,
) -> Result<Groups, Error> {
    optimizer.validate()?;
    let groups = optimizer.groups(model);
    for mark in tensors::list(model).into_iter().map(|tensor| tensor.mark) {
        let of_tensors = [("untrained", mark.untrained), ("no_decay", mark.no_decay)];
        for (attribute, field) in of_tensors {
            if let (Some(field), false) = (field, optimizer.follows_attributes()) {
                let advice = OF_TENSORS;
                return Err(Error::AttributeWithoutEffect { attribute, field, advice });
            }
        }
    }
    Ok(groups)
}
