//! The library from outside: rates, derive, resume, faults, and the golden figures.
//!
//! One program, so that what the tests share is compiled once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod climb;
mod derive;
mod exact_failures;
mod failed_updates;
mod failed_windows;
mod faults;
mod golden;
mod gradients;
mod half_precision;
mod handed_on;
mod history;
mod line_search;
mod momentum_spans;
mod needs;
mod optimizers;
mod quadratics;
mod ramp;
mod resume;
mod safeguard;
mod schedule;
mod steps;
