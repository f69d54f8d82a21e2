//! The peers: optimizers that `tlr` is compared with, one a file.
//!
//! "The paper" is Retsinas et al., *Newton-based Trainable Learning Rate*, ICASSP 2023.
//!
//! A [`PeerRule`] is settings and pure arithmetic over slices, and knows no model. A [`Peer`] holds
//! its state. A [`PeerOptimizer`] walks a dfdx model for it, so that each peer is an optimizer of
//! any model on the CPU and a [`Learner`](crate::train::Learner). Scalars and sums are in f64. What
//! is kept of each weight has the weight's type. A failed step leaves weights and state as they
//! were. [`Saved`] holds all that a peer remembers, for serde. [`PeerOptimizer::checkpoint`] makes
//! a checkpoint for a file.
//!
//! | peer | why it is here |
//! | --- | --- |
//! | [`Sgd`], with a [multistep](tlr::Schedule::multi_step) or [cosine](tlr::Schedule::cosine) | the paper's; a baseline to beat |
//! | [`Adam`], [`RmsProp`] | the paper's |
//! | [`Sls`], [`Sps`], [`Hypergradient`] | the paper's |
//! | [`DAdaptSgd`], [`DAdaptAdam`], [`Prodigy`] | in use today |
//! | [`Dog`], [`ScheduleFreeSgd`], [`ScheduleFreeAdamW`] | in use today; averages the weights |
//! | [`Cocob`], [`Mechanic`], [`Momo`], [`MomoAdam`] | in use today |
//! | [`NAdamW`], with a cosine | a baseline to beat |
//! | [`RangeTest`] with [`valley`], [`steep`] or [`steepest_gradient`] | what users do by hand |
//!
//! [`AnyPeer`] holds any of them, as one type. Each is checked step by step against its package:
//! `tests/quick/networks/baselines.rs`.

mod adam;
mod any;
mod cocob;
mod dadapt;
mod dog;
mod error;
mod hypergradient;
mod mechanic;
mod momo;
mod nadamw;
mod optimizer;
mod prodigy;
mod range_test;
mod real;
mod recalibration;
mod rmsprop;
mod rule;
mod schedule_free;
mod sgd;
mod slices;
mod sls;
mod sps;
mod walk;

pub use adam::{Adam, AdamState};
pub use any::{AnyPeer, AnyPeerState};
pub use cocob::{Cocob, CocobState};
pub use dadapt::{DAdaptAdam, DAdaptAdamState, DAdaptSgd, DAdaptSgdState};
pub use dog::{Dog, DogState};
pub use error::PeerError;
pub use hypergradient::{Hypergradient, HypergradientState};
pub use mechanic::{Mechanic, MechanicState};
pub use momo::{Momo, MomoAdam, MomoAdamState, MomoState};
pub use nadamw::{NAdamW, NAdamWState};
pub use optimizer::PeerOptimizer;
pub use prodigy::{Prodigy, ProdigyState};
pub use range_test::{steep, steepest_gradient, valley, RangePoint, RangeTest};
pub use real::{Real, Tensors};
pub use recalibration::recalibrated;
pub use rmsprop::{RmsProp, RmsPropState};
pub use rule::{LossAtWeights, Peer, PeerRule, PeerState, Saved, StepFacts};
pub use schedule_free::{
    ScheduleFreeAdamW, ScheduleFreeAdamWState, ScheduleFreeSgd, ScheduleFreeSgdState,
};
pub use sgd::{Sgd, SgdState};
pub use sls::{Sls, SlsState};
pub use sps::{Sps, SpsBound, SpsState};
pub use walk::CpuReal;

pub(crate) use walk::{has_buffers, parameters};
