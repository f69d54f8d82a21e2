//! Jobs as rows, ways to run them as columns: does a learned rate get as far as the best constant?
//!
//! **A row** is a job: a model, a stream of batches, and the error that a user of it would care
//! about, measured on data that training never sees or in closed form. See
//! `tests/scenarios/rows/`. All of it is drawn from a seed.
//!
//! **A column** is a way to run it: the base optimizer (plain descent, momentum 0.9, Adam, sign
//! descent), one rate or a rate a layer, with the loss (`step`) or without (`update`), with a
//! horizon or without, and the rate to start from (1e-9, 1e-6, 1e-2, 10). That is 128 columns;
//! `tests/scenarios/ways.rs` tells which of them are run by default.
//!
//! **A cell** passes if no step failed, all weights and rates are finite at the end, and the error
//! is at most 1.5 times that of the best constant rate. The constants are run here as well: the
//! same base optimizer without `Newton`, the same seed, the same number of steps. Errors are a
//! share of the error at the start, and one percent is added to both sides: what is smaller is as
//! good as solved. An error is never negative and 0 at the optimum, or at a known floor. Where the
//! floor is not known, as for an autoencoder, it is the total loss. Where no constant learns with a
//! seed, the error is not judged.
//!
//! Not all cells pass: `tests/scenarios/expected.rs` lists which rows have how many that do not,
//! and why. All weights and rates are finite, and no step fails, without exception.
//!
//! A second test, which is ignored by default, asks how near the ramp ends to the best constant,
//! with batches of 1, 16 and 128 examples.
//!
//! By default this takes some 140 seconds of CPU time, shared out to all cores. Variables of the
//! environment:
//!
//! * `TLR_SCENARIO=name`: only the rows whose name contains one of these names (by commas);
//! * `TLR_SCENARIO_SEEDS=10`: that many seeds in place of three;
//! * `TLR_SCENARIOS_ALL=1`: all 128 columns;
//! * `TLR_SCENARIOS_REPORT=path`: writes all cells as CSV.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "scenarios/mod.rs"]
mod scenarios;

// Fails if a cell is not finite, if a step fails, or if more cells have too high an error than
// `tests/scenarios/expected.rs` lists.
#[test]
fn a_learned_rate_gets_as_far_as_the_best_constant() {
    if let Err(report) = scenarios::judge() {
        panic!("{report}");
    }
}

// The reason why sign descent fails on rows with classes: its best constant is the one that is
// near the lowest error when the steps are over. With four times the steps the error there has
// doubled, around plain descent it has not. Fails if that is no longer so.
#[test]
fn sign_descent_leaves_where_classes_overlap() {
    use scenarios::Base::{Sgd, Sign};
    for (row, best_by_sign, best_by_sgd) in [("clusters", 3e-3, 0.3), ("attention", 3e-3, 0.3)] {
        let [early, late] = scenarios::early_and_late(row, Sign, best_by_sign, 1);
        assert!(late > 2.0 * early, "{row}: {early}, {late}");
        let [early, late] = scenarios::early_and_late(row, Sgd, best_by_sgd, 1);
        assert!(late < 1.2 * early, "{row}: {early}, {late}");
    }
}

// Fails if ramps take longer where batches have sixteen examples and more: nine in ten are over in
// 75 steps, and in 30 if batches have 128.
#[test]
#[ignore = "takes 20 minutes of processor time"]
fn the_ramp_arrives_near_the_best_constant() {
    let arrivals = scenarios::arrive();
    for arrival in &arrivals {
        println!("{}", arrival.line());
    }
    for (batch, most) in [(16, 75), (128, 30)] {
        let of_batch = arrivals.iter().filter(|arrival| arrival.batch == batch);
        assert!(of_batch.clone().count() == 3);
        assert!(of_batch.clone().all(|arrival| arrival.steps_of_nine_in_ten() <= most), "{batch}");
    }
}
