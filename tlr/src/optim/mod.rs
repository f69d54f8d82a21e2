//! Optimizers whose learning rate can be trained, and the traits that they implement.
//!
//! [`Sgd`], [`Adam`], [`AdamW`] and [`RMSprop`] make the same updates as dfdx's optimizers of these
//! names, bit for bit. They own what they accumulate, so a checkpoint can save it, whereas dfdx's
//! optimizers keep it private. [`Clip`] clips the gradients of any optimizer. [`Accumulate`]
//! gathers the gradients of several batches for one step. [`PerLayer`](crate::PerLayer) gives each
//! layer its own rate.

mod accumulate;
mod adam;
mod alone;

mod buffers;
mod checked;
mod clip;
mod dfdx;
mod elementwise;
mod forward;
mod gather_batches;
pub(crate) mod gradients;
mod groups;
mod names;
mod over_ranks;
mod rmsprop;
mod sgd;
mod shards;
mod state;
mod step_figures;
mod tunable;
mod update_rule;
mod weigh_batches;

#[doc(inline)]
pub use crate::__forward as forward;
pub use crate::{settings::Settings, tensors::Buffer};
pub use accumulate::Accumulate;
pub use adam::{Adam, AdamW, AdamWConfig};
pub use clip::Clip;
pub use elementwise::Elementwise;
pub use gather_batches::GatherBatches;
pub use groups::Groups;
pub use over_ranks::OverRanks;
pub use rmsprop::RMSprop;
pub use sgd::Sgd;
pub use shards::Shards;
pub use state::{OptimizerState, RestoreError, Resumable, ResumableFamily};
pub use step_figures::StepFigures;
pub use tunable::{CompleteGradients, FailedUpdate, Family, TunableOptimizer};
pub use update_rule::UpdateRule;
pub use weigh_batches::WeighBatches;

pub(crate) use alone::{average_alone, update_alone};
pub(crate) use checked::checked_groups;
pub(crate) use groups::TensorGroup;
pub(crate) use state::OPTIMIZER;
pub(crate) use step_figures::check_weight;
pub(crate) use tunable::ErrOf;
