//! A learning rate that learns itself, for [dfdx].
//!
//! [`Newton`] wraps any dfdx optimizer and trains its learning rate along with the weights: every K
//! steps a damped Newton step on the rate, from two dot products of averaged update directions
//! (Retsinas, Sfikas, Filntisis and Maragos, *Newton-based Trainable Learning Rate*, ICASSP 2023).
//! One rate for the model, or one a layer ([`PerLayer`]). The rate is always positive and bounded,
//! whatever it starts from.
//!
//! Without the default feature `dfdx`, the crate is the [`engine`] alone: what decides on rates,
//! for a host of your own that has the weights.
//!
//! [dfdx]: https://docs.rs/dfdx/0.13

#![warn(missing_debug_implementations)]
#![cfg_attr(
    not(feature = "dfdx"),
    doc = "\n[`Newton`]: https://docs.rs/tlr/latest/tlr/type.Newton.html\n[`PerLayer`]: https://docs.rs/tlr/latest/tlr/struct.PerLayer.html"
)]

pub mod engine;
mod error;

pub use engine::{
    Adaptation, Config, HypergradientConfig, KeptBecause, NewtonConfig, Outcome, Safeguard,
    Schedule, Step, Window,
};
pub use error::{Cause, CheckpointError, Difference, Error, ParallelError};

#[cfg(feature = "dfdx")]
mod checkpoint;
#[cfg(feature = "dfdx")]
#[doc(hidden)]
pub mod layers;
#[cfg(feature = "dfdx")]
pub mod optim;
#[cfg(feature = "dfdx")]
pub mod parallel;
#[cfg(feature = "dfdx")]
mod settings;
#[cfg(feature = "dfdx")]
mod snapshots;
#[cfg(feature = "dfdx")]
mod tensors;
#[cfg(feature = "dfdx")]
mod trainer;

#[cfg(feature = "dfdx")]
#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

#[cfg(feature = "dfdx")]
pub use {
    ::dfdx::nn::TensorCollection,
    checkpoint::Checkpoint,
    layers::{PerLayer, TrainableLr},
    optim::{Family, TunableOptimizer},
    parallel::DataParallel,
    tensors::{Backend, Element},
    tlr_derive::{TensorCollection, TrainableLr},
    trainer::{Hypergradient, LineSearch, LossScale, MixedPrecision, Newton, Trainer},
};
