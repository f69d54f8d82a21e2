//! Models, their golden figures and checkpoints, and the peers.
//!
//! One program, so that what the tests share is compiled once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod averaged;
mod baselines;
mod checkpoints;
mod golden_models;
mod golden_transformer;
mod models;
mod persistence;
mod shapes;
mod translating;
