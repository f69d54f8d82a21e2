//! Which tensors share a learning rate.

use dfdx::tensor::UniqueId;
use std::{collections::HashMap, sync::Arc};

/// Which tensors share a learning rate.
#[derive(Clone, Debug)]
pub struct Groups {
    pub(crate) groups: Vec<TensorGroup>,
    members: Members,
}

/// One group of tensors.
#[derive(Clone, Debug)]
pub(crate) struct TensorGroup {
    /// A layer's path, or `model`.
    pub(crate) name: Arc<str>,
    pub(crate) frozen: bool,
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
    /// An optimizer's [`groups`](super::TunableOptimizer::groups) answers with this by default.
    /// ```
    /// let groups = tlr::optim::Groups::one();
    /// ```
    pub fn one() -> Self {
        let groups = vec![TensorGroup { name: "model".into(), frozen: false }];
        Self { groups, members: Members::All }
    }

    /// One group a layer, and for each tensor the index of its group.
    pub(crate) fn listed(groups: Vec<TensorGroup>, members: HashMap<UniqueId, usize>) -> Self {
        Self { groups, members: Members::Listed(members) }
    }

    /// The group of a trainable tensor; none if no layer tells of it.
    pub(crate) fn of(&self, tensor: UniqueId) -> Option<usize> {
        match &self.members {
            Members::All => Some(0),
            Members::Listed(groups) => groups.get(&tensor).copied(),
        }
    }
}
