//! A learning rate that learns itself, for [dfdx].
//!
//! [`Newton`] wraps any dfdx optimizer and trains its learning rate along with the weights: every K
//! steps a damped Newton step on the rate, from two dot products of averaged update directions
//! (Retsinas et al., *Newton-based Trainable Learning Rate*). One rate for the model, or one a layer
//! ([`PerLayer`]). The rate is always positive and bounded, whatever it starts from.
//!
//! [dfdx]: https://docs.rs/dfdx/0.13

mod checkpoint;
mod config;
mod device;
mod dots;
mod error;
#[cfg(feature = "cuda")]
mod gpu;
mod history;
mod line_search;
mod lookahead;
mod memory;
mod moments;
mod newton;
mod precision;
mod safeguard;
mod schedule;
mod sketch;
mod tensors;
mod window;

pub mod layers;
pub mod optim;
pub mod rule;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use ::dfdx::nn::TensorCollection;
pub use tlr_derive::{TensorCollection, TrainableLr};

pub use checkpoint::{Checkpoint, CheckpointError, Difference, Element};
pub use config::{Config, HypergradientConfig, NewtonConfig};
pub use device::Backend;
pub use error::Error;
pub use history::{Adaptation, KeptBecause, Outcome, RollbackCause};
pub use layers::TrainableLr;
pub use line_search::LineSearch;
pub use newton::{Hypergradient, Newton, Tlr};
pub use optim::{Family, LearningRate, PerLayer};
pub use precision::{LossScale, MixedPrecision};
pub use safeguard::Safeguard;
pub use schedule::Schedule;
pub use window::Window;
