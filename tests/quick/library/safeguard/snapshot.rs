//! The losses seen at a snapshot itself: what they say of the snapshot, and what is gone back to.

use super::{default, rolled_back, RATE};
use support::{quadratic::Random, values::bits};
use tlr::{
    Cause::{LossExploded, LossIncreased},
    Outcome,
};

// The snapshot itself may stand above the limit. No rate is small enough to get below at once, so
// its loss becomes the one to beat. Fails without `origin` in the watch: then every window is
// undone.
#[test]
fn a_snapshot_above_the_limit_is_no_trap() {
    let mut run = default(3);
    run.accept(&[2.0, 2.0, 2.0]);
    run.accept(&[1.0, 1.0, 1.0]);
    run.accept(&[1.3, 1.3]);
    assert_eq!(run.feed(1.3), rolled_back(LossIncreased));
    // 1.3 is the one to beat now, though the last window's mean was 1.
    run.accept(&[1.3, 1.3, 1.3]);
    // One that rises further is undone as before.
    run.accept(&[1.3, 1.49]);
    assert_eq!(run.feed(1.6), rolled_back(LossIncreased));
}

// A window may end worse than its losses tell. While no loss at that end is below the limit, the
// way back is one snapshot further, however the window goes on. Fails if any loss makes a snapshot
// good: then each of them is a little worse than the last, and the loss grows without end.
#[test]
fn a_doubtful_snapshot_is_not_gone_back_to() {
    let mut run = default(3);
    run.accept(&[2.0, 2.0, 2.0]);
    let snapshot = bits(&run.model);
    run.accept(&[1.0, 1.0, 1.0]);
    run.accept(&[1.3, 0.9]);
    assert_eq!(run.feed(1.4), rolled_back(LossIncreased));
    assert_eq!(bits(&run.model), snapshot);
}

// What is above the loss at the starting weights is never accepted, however slowly it gets there.
// Fails without the ceiling.
#[test]
fn no_window_is_accepted_above_the_start() {
    let mut run = default(1);
    run.accept(&[1.0]);
    let mut loss = 0.5;
    while run.feed(loss).is_some_and(|outcome| outcome != Outcome::RolledBack(LossIncreased)) {
        loss *= 1.04;
    }
    assert!(loss > 1.0 && loss < 1.04, "{loss}");
}

// Of noisy losses the first may be a low one: three deviations of the first window's are allowed.
#[test]
fn the_start_is_as_noisy_as_its_window() {
    let mut run = default(4);
    run.accept(&[1.0, 1.2, 0.8, 1.0]);
    run.accept(&[1.5; 4]); // up to 1 + 3·0.2, and to 1.5243
}

// Bad losses at the snapshot, before any step: the batch is to blame. The rate stays, and so does
// the reference, until three of them agree: then it is another task. Fails if every rollback cuts,
// or if one such loss is taken for the snapshot's own.
#[test]
fn bad_batches_do_not_cut() {
    let mut run = default(2);
    run.accept(&[1.0, 1.0, 1.0]);
    assert_eq!(run.explode(900.0), rolled_back(LossExploded));
    assert_eq!(run.feed(900.0), rolled_back(LossExploded));
    assert_eq!(run.rate(), RATE * 0.5);
    run.accept(&[1.0]);
    assert_eq!(run.feed(1.3), rolled_back(LossIncreased)); // 1.15 above 1.1
    let mut run = default(2);
    run.accept(&[1.0, 1.0, 1.0]);
    run.explode(900.0);
    for _ in 0..5 {
        run.feed(900.0);
    }
    assert_eq!(run.rate(), RATE * 0.5);
    let outcomes: Vec<_> = (0..4).filter_map(|_| run.feed(900.0)).collect();
    assert!(outcomes.iter().any(|outcome| !matches!(outcome, Outcome::RolledBack(_))));
}

// Batches of one image: the first loss may be far below its own mean. Fails if the first loss alone
// is the reference for ever: twenty rollbacks in a row are an error.
#[test]
fn a_lucky_first_loss_is_no_trap() {
    let random = &mut Random(2);
    let mut run = default(10);
    run.feed(0.01);
    for _ in 0..500 {
        run.feed(2.3 + random.uniform());
    }
    let last = run.newton.history().iter().rev().take(20);
    assert!(last.into_iter().all(|last| !matches!(last.outcome, Outcome::RolledBack(_))));
}

// Losses below zero: a tenth of the magnitude is allowed, an explosion is a rise of half of it, and
// what remains of a window counts as the lowest loss seen, not as 0. Fails where limits are plain
// products.
#[test]
fn negative_losses() {
    for (loss, bad) in [(-4.96, false), (-4.94, true)] {
        let mut run = default(1);
        run.accept(&[-2.0, -6.0, -5.5]);
        assert_eq!(run.feed(loss) == rolled_back(LossIncreased), bad); // −5.5 + 0.55 = −4.95
    }
    let mut run = default(16);
    run.accept(&[-5.0, -2.6]);
    assert_eq!(run.explode(-2.4), rolled_back(LossExploded)); // −5 + 2.5 = −2.5
    let mut run = default(2);
    run.accept(&[-2.0, -2.0, -5.0, -5.0, -4.6]);
    assert_eq!(run.feed(-4.3), rolled_back(LossIncreased)); // −4.45 above −5 + 0.5
}
