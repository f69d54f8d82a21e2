//! Several ranks, as threads of this process: what they make together, and what stops them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod again;
mod equal;
mod exact;
mod faults;
mod half;
mod nested;
mod normed;
mod problem;
mod ranks;
mod resumed;
mod runs;
mod sharded;
mod uneven;
