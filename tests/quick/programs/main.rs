//! The examples as their users run them, the packages and the pages.
//!
//! One program, so that what the tests share is compiled once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod again;
mod images;
mod mnist;
mod outputs;
mod packages;
mod pages;
mod runs;
mod says;
mod sweep;
mod translate;
