//! Optimizers: what one must offer to have its learning rate trained, and some that can be saved as well.
//!
//! [`Sgd`], [`Adam`], [`AdamW`] and [`RMSprop`] take the steps of dfdx's to the bit and own what they
//! accumulate, so that a checkpoint holds it; dfdx's keep it to themselves. [`Clip`] clips the gradients
//! of any of them, [`Accumulate`] gathers those of several batches for a step, and
//! [`PerLayer`](crate::PerLayer) gives each layer a rate of its own.

mod accumulate;
mod adam;
mod clip;
mod dfdx;
mod elementwise;
pub(crate) mod gradients;
mod groups;
mod rmsprop;
mod sgd;
mod state;
mod tunable;
mod update_rule;

pub use crate::{settings::Settings, tensors::Buffer};
pub use accumulate::Accumulate;
pub use adam::{Adam, AdamW, AdamWConfig};
pub use clip::Clip;
pub use elementwise::Elementwise;
pub use groups::Groups;
pub use rmsprop::RMSprop;
pub use sgd::Sgd;
pub use state::{OptimizerState, Resumable, ResumableFamily};
pub use tunable::{CompleteGradients, FailedUpdate, Family, TunableOptimizer};
pub use update_rule::UpdateRule;

pub(crate) use groups::TensorGroup;
pub(crate) use tunable::DeviceError;
