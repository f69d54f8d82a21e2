//! Checks of an optimizer against its model, when a trainer is made.

use super::{Groups, TunableOptimizer};
use crate::{
    error::Error,
    tensors::{self, TensorInfo},
};

/// What to do about an attribute that is about the rates of layers.
const ADVICE_ON_RATES: &str =
    "the optimizer has one rate for the whole model; give each layer its \
    own by `PerLayer::new(&model, optimizer)`, or leave the attribute out";

/// What to do about an attribute that says how a tensor is updated.
const ADVICE_ON_TENSORS: &str =
    "this optimizer updates all tensors alike; take one of `tlr::optim`, \
    or make one of an `UpdateRule` by `tlr::optim::Elementwise`";

/// The groups of `optimizer` for `model`, if its hyperparameters are possible and it can follow the
/// attributes of the model's fields.
pub(crate) fn checked_groups<Opt: TunableOptimizer>(
    optimizer: &Opt,
    model: &Opt::Model,
) -> Result<Groups, Error> {
    optimizer.validate()?;
    let groups = optimizer.groups(model);
    check_attributes(tensors::list(model), groups.is_one(), optimizer.follows_attributes())?;
    Ok(groups)
}

fn check_attributes(
    tensors: Vec<TensorInfo>,
    one_rate: bool,
    follows_attributes: bool,
) -> Result<(), Error> {
    for TensorInfo { mark, trainable, .. } in tensors {
        let of_rates = trainable && one_rate;
        let of_tensors = !follows_attributes;
        let without_effect = [
            ("fixed_rate", mark.fixed_rate.filter(|_| of_rates), ADVICE_ON_RATES),
            ("rate", mark.rate.filter(|_| of_rates), ADVICE_ON_RATES),
            ("untrained", mark.untrained.filter(|_| of_tensors), ADVICE_ON_TENSORS),
            ("no_decay", mark.no_decay.filter(|_| of_tensors), ADVICE_ON_TENSORS),
        ];
        for (attribute, field, advice) in without_effect {
            if let Some(field) = field {
                return Err(Error::AttributeWithoutEffect { attribute, field, advice });
            }
        }
    }
    Ok(())
}
