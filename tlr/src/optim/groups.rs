//! [`Groups`]: which tensors share a learning rate.

use dfdx::tensor::UniqueId;
use std::{collections::HashMap, sync::Arc};

/// A partition of a model's trainable tensors into groups that share a learning rate.
///
/// Example: [`one`](Self::one).
#[derive(Clone, Debug)]
pub struct Groups {
    pub(crate) groups: Vec<TensorGroup>,
    members: Members,
}

/// A group: its name, and whether its rate is fixed.
#[derive(Clone, Debug)]
pub(crate) struct TensorGroup {
    /// The path of the layer, or `model` for a group of all tensors.
    pub(crate) name: Arc<str>,
    pub(crate) fixed_rate: bool,
}

#[derive(Clone, Debug)]
enum Members {
    All,
    Listed(HashMap<UniqueId, usize>),
}

impl Groups {
    /// One group, called `model`, of all trainable tensors.
    ///
    /// # Example
    /// [`TunableOptimizer::groups`](super::TunableOptimizer::groups) returns this by default.
    /// ```
    /// let groups = tlr::optim::Groups::one();
    /// ```
    pub fn one() -> Self {
        let groups = vec![TensorGroup { name: "model".into(), fixed_rate: false }];
        Self { groups, members: Members::All }
    }

    /// One group for each layer. `members` maps each tensor to the index of its group.
    pub(crate) fn listed(groups: Vec<TensorGroup>, members: HashMap<UniqueId, usize>) -> Self {
        Self { groups, members: Members::Listed(members) }
    }

    /// Whether all tensors are one group.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self.members, Members::All)
    }

    /// The group of a trainable tensor, or `None` if the tensor is in no layer.
    pub(crate) fn of(&self, tensor: UniqueId) -> Option<usize> {
        match &self.members {
            Members::All => Some(0),
            Members::Listed(groups) => groups.get(&tensor).copied(),
        }
    }
}
