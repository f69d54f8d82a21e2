//! How a run ends that was asked to stop.
#![allow(missing_docs)]

#[allow(dead_code)]
#[path = "../common/signals.rs"]
mod signals;

#[allow(dead_code)]
fn warn(_: std::fmt::Arguments<'_>) {}

// Ctrl-C, SIGTERM, and a rank that stopped because another one was asked to. Fails if that one ends
// by 128, which stands for no signal.
#[test]
fn a_rank_that_another_one_stopped_ends_like_it() {
    assert_eq!([2, 15, 0].map(signals::status_of), [130, 143, 130]);
}
