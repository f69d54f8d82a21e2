//! The peers: optimizers that `tlr` is compared with, one a file.
//!
//! "The paper" is Retsinas et al., *Newton-based Trainable Learning Rate*, ICASSP 2023.
//!
//! A [`PeerRule`] is settings and pure arithmetic over slices, and knows no model. A [`Peer`] holds
//! its state. A [`PeerOptimizer`] walks a dfdx model for it, so that each is an optimizer of any
//! model on the CPU and a [`Learner`](crate::train::Learner). Scalars and sums are in f64. What is
//! kept of each weight has the weight's type. A failed step leaves weights and state as they were.
//! [`Saved`] is all that a peer remembers, by serde; [`PeerOptimizer::checkpoint`] is a file's.
//!
//! | peer | of |
//! | --- | --- |
//! | [`Sgd`], with a [multistep](tlr::Schedule::multi_step) or [cosine](tlr::Schedule::cosine) | the paper; to beat |
//! | [`Adam`], [`RmsProp`] | the paper |
//! | [`Sls`], [`Sps`], [`Hypergradient`] | the paper |
//! | [`DAdaptSgd`], [`DAdaptAdam`], [`Prodigy`] | today |
//! | [`Dog`], [`ScheduleFreeSgd`], [`ScheduleFreeAdamW`] | today, with averages |
//! | [`Cocob`], [`Mechanic`], [`Momo`], [`MomoAdam`] | today |
//! | [`NAdamW`], with a cosine | to beat |
//! | [`RangeTest`] with [`valley`], [`steep`] or [`steepest_gradient`] | what users do by hand |
//!
//! [`AnyPeer`] is any of them, as one type. Each is checked step by step against its package:
//! `tests/quick/networks/baselines.rs`.

mod adam;
mod any;
mod cocob;
mod dadapt;
mod dog;
mod error;
mod host;
mod hypergradient;
mod mechanic;
mod momo;
mod nadamw;
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
pub use host::PeerOptimizer;
pub use hypergradient::{Hypergradient, HypergradientState};
pub use mechanic::{Mechanic, MechanicState};
pub use momo::{Momo, MomoAdam, MomoAdamState, MomoState};
pub use nadamw::{NAdamW, NAdamWState};
pub use prodigy::{Prodigy, ProdigyState};
pub use range_test::{steep, steepest_gradient, valley, RangePoint, RangeTest};
pub use real::{Real, Tensors};
pub use recalibration::recalibrated;
pub use rmsprop::{RmsProp, RmsPropState};
pub use rule::{Batch, Peer, PeerRule, PeerState, Saved, Trial};
pub use schedule_free::{
    ScheduleFreeAdamW, ScheduleFreeAdamWState, ScheduleFreeSgd, ScheduleFreeSgdState,
};
pub use sgd::{Sgd, SgdState};
pub use sls::{Sls, SlsState};
pub use sps::{Sps, SpsBound, SpsState};
pub use walk::CpuReal;

pub(crate) use walk::{has_buffers, parameters};
