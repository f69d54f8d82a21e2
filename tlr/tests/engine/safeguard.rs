//! The safeguard: which losses make it skip a batch or undo a window, and how far it cuts a rate.

use super::{along, close, guarded, plain, run, still, Run, RATE};
use std::f64::consts::SQRT_2;
use tlr::{engine::*, Cause, Error};

#[test]
fn one_broken_batch_is_skipped_and_two_undo_the_window() {
    let mut run = run(&guarded(8), &[false]);
    run.steps(&[1.0, 1.0]);
    run.log();
    assert_eq!(run.step(f64::NAN), Step::Skipped(Cause::NonFiniteLoss));
    assert_eq!((run.log().as_str(), run.engine.steps()), ("skip", 3));
    assert_eq!(run.step(1.0), Step::Made);
    assert_eq!(run.step(f64::INFINITY), Step::Skipped(Cause::NonFiniteLoss));
    run.log();
    let Step::RolledBack { cause, decisions } = run.step(f64::NAN) else { panic!("no rollback") };
    assert_eq!((cause, run.log().as_str()), (Cause::NonFiniteLoss, "check; back Last"));
    assert_eq!(decisions[0].outcome, Outcome::RolledBack(cause));
    // No window has been accepted: the first cut, and its square.
    close(run.rate(), RATE * 0.1);
    run.step(1.0);
    run.steps(&[f64::NAN, f64::NAN]);
    close(run.rate(), RATE * 0.1 * 0.01);
}

#[test]
fn at_the_snapshot_itself_the_rate_is_not_to_blame() {
    let mut run = run(&guarded(8), &[false]);
    assert_eq!(run.step(f64::NAN), Step::Skipped(Cause::NonFiniteLoss));
    assert!(matches!(run.step(f64::NAN), Step::RolledBack { .. }));
    assert_eq!(run.rate(), RATE);
    assert_eq!(run.engine.steps(), 2);
}

#[test]
fn an_explosion_is_half_as_much_again_as_the_start() {
    for (loss, skipped) in [(1.49, false), (1.51, true)] {
        let mut run = run(&guarded(100), &[false]);
        run.step(1.0);
        let expected = if skipped { Step::Skipped(Cause::LossExploded) } else { Step::Made };
        assert_eq!(run.step(loss), expected);
        if skipped {
            // In a row with one that is not finite.
            assert!(matches!(run.step(f64::NAN), Step::RolledBack { .. }));
        }
    }
    // Below zero the limit goes up as well.
    let mut run = run(&guarded(100), &[false]);
    run.step(-1.0);
    assert_eq!(run.step(-0.51), Step::Made);
    assert_eq!(run.step(-0.49), Step::Skipped(Cause::LossExploded));
}

#[test]
fn after_good_windows_an_explosion_is_measured_by_the_largest_loss() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0, 1.4, 1.0, 1.0]);
    assert_eq!(run.step(2.0), Step::Made);
    assert_eq!(run.steps(&[2.11]), Step::Skipped(Cause::LossExploded));
}

#[test]
fn a_doomed_window_is_undone_before_it_ends() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0; 4]);
    // The limit is 1.1 of the mean before, but the start is the ceiling: 1. At best (1.2·4 + 0)/4 =
    // 1.2.
    assert_eq!(run.steps(&[1.2, 1.2, 1.2]), Step::Made);
    run.log();
    let Step::RolledBack { cause: Cause::LossIncreased, .. } = run.step(1.2) else {
        panic!("not undone");
    };
    // Its start was above the limit, so it goes one further back.
    assert_eq!(run.log(), "check; back BeforeLast");
    close(run.rate(), RATE * 0.5);
}

// Only the loss of a whole step, and only that at the snapshot, speaks for it.
#[test]
fn a_snapshot_is_confirmed_by_the_loss_there() {
    let mut later = run(&guarded(4), &[false]);
    later.steps(&[1.0; 4]);
    later.steps(&[1.2, 0.9, 1.45]);
    later.log();
    assert!(matches!(later.step(1.46), Step::RolledBack { .. }));
    assert_eq!(later.log(), "check; back BeforeLast");
    let mut gathered = run(&guarded(4), &[false]);
    gathered.steps(&[1.0; 4]);
    gathered.batch(0.9, true).unwrap();
    gathered.batch(1.6, false).unwrap();
    gathered.step(1.3);
    gathered.log();
    assert!(matches!(gathered.step(1.5), Step::RolledBack { .. }));
    assert_eq!(gathered.log(), "check; back BeforeLast");
}

#[test]
fn a_snapshot_with_a_good_loss_is_gone_back_to() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0; 4]);
    run.steps(&[0.9, 1.4, 1.4]);
    run.log();
    assert!(matches!(run.step(1.4), Step::RolledBack { .. }));
    assert_eq!(run.log(), "check; back Last");
}

#[test]
fn the_limit_has_room_for_noise() {
    // Differences of ±2 in a window of four: deviation √(12/6), standard error half of it.
    let first = [4.0, 2.0, 4.0, 2.0];
    let (deviation, mean) = (2f64.sqrt(), 3.0);
    let ceiling = 4.0 + 3.0 * deviation;
    let limit = 1.1 * mean + 3.0 * SQRT_2 * deviation / 2.0;
    assert!(limit < ceiling);
    for (loss, undone) in [(limit - 0.01, false), (limit + 0.01, true)] {
        let safeguard = Safeguard::default().explosion(10.0);
        let mut run = run(&plain(4).safeguard(safeguard), &[false]);
        run.steps(&first);
        let last = run.steps(&[loss; 4]);
        assert_eq!(matches!(last, Step::RolledBack { .. }), undone, "{loss}");
    }
}

#[test]
fn hopeless_by_one_loss_alone_is_that_batch() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[8.0, 8.0, 8.0, 8.0]);
    run.steps(&[1.0; 4]);
    run.step(1.0);
    // Not beyond the start, but of four losses one of 8 is a mean of 2.25 at least.
    assert_eq!(run.step(8.0), Step::Skipped(Cause::LossIncreased));
    assert!(matches!(run.step(8.0), Step::RolledBack { cause: Cause::LossIncreased, .. }));
}

// After a rollback the level is no less than the mean of the losses at the snapshot. The first
// window has a mean of 3.5 and a standard error of √1.5, so a limit of 3.85 + 3√3, which is 9.05.
// What explodes does not move it.
#[test]
fn losses_at_the_snapshot_are_the_level_after_a_rollback() {
    let undone = |at_snapshot: &[f64], window: [f64; 4]| {
        let mut run = run(&guarded(4), &[false]);
        run.steps(&[8.0, 2.0, 2.0, 2.0]);
        assert!(matches!(run.steps(&[3.0, 11.9, 11.9, 11.9]), Step::RolledBack { .. }));
        at_snapshot.iter().for_each(|loss| drop(run.step(*loss)));
        matches!(run.steps(&window), Step::RolledBack { .. })
    };
    // The losses at the snapshot are 3 and 3, or 3 and 9: a limit of 9.05, or of 11.8.
    assert!(undone(&[], [3.0, 12.0, 12.0, 12.0]));
    assert!(!undone(&[], [9.0, 11.0, 11.0, 11.0]));
    // One that explodes there is the batch's doing.
    assert!(undone(&[13.0], [3.0, 12.0, 12.0, 12.0]));
    // What three losses there agree on is the snapshot's level, also above where training began.
    assert!(!undone(&[13.0, 13.0, 13.0, 13.0], [13.0, 13.0, 13.0, 13.0]));
}

// Before a window has been accepted, the losses there are all there is to go by: 1, 2 and 1.6.
#[test]
fn at_first_every_loss_at_the_snapshot_counts() {
    let mut run = run(&guarded(4), &[false]);
    run.steps(&[1.0, f64::NAN, f64::NAN]);
    // In a row with two that were not finite, so that it is not skipped.
    assert!(matches!(run.step(2.0), Step::RolledBack { cause: Cause::LossExploded, .. }));
    assert!(matches!(run.steps(&[1.6; 4]), Step::WindowEnded { .. }));
}

// A step without a loss is not one whose loss is 0.
#[test]
fn losses_may_be_left_out() {
    let mut run = run(&guarded(2), &[false]);
    for loss in [None, None, None, Some(5.0), Some(5.0)] {
        let step = drive(&mut run.engine, &mut run.host, loss, false).unwrap();
        assert!(matches!(step, Step::Made | Step::WindowEnded { .. }), "{loss:?}: {step:?}");
    }
}

// Three losses say nothing of noise.
#[test]
fn fewer_than_four_losses_have_no_noise() {
    let safeguard = Safeguard::default().explosion(10.0);
    for (length, undone) in [(3, true), (4, false)] {
        let mut run = run(&plain(length).safeguard(safeguard), &[false]);
        run.steps(&[4.0, 2.0, 4.0, 2.0][..length]);
        // Above 1.1 of the mean, and within the noise of four.
        let last = run.steps(&vec![3.9; length]);
        assert_eq!(matches!(last, Step::RolledBack { .. }), undone, "{length}");
    }
}

#[test]
fn each_number_of_the_safeguard_does_what_it_says() {
    let default = Safeguard::default;
    let undone = |safeguard: Safeguard, losses: &[f64]| {
        let mut run = run(&plain(4).safeguard(safeguard), &[false]);
        run.steps(&[4.0, 3.0, 3.0, 3.0]);
        let rolled_back = matches!(run.steps(losses), Step::RolledBack { .. });
        rolled_back.then(|| run.rate() / RATE)
    };
    // A mean of 3.25 and a deviation of √(1/6), so a limit of 3.575 + 0.866.
    assert_eq!(undone(default(), &[3.6; 4]), None);
    assert_eq!(undone(default().standard_errors(0.0), &[3.6; 4]), Some(0.5));
    assert_eq!(undone(default().standard_errors(0.0).tolerance(0.2), &[3.6; 4]), None);
    assert_eq!(undone(default().standard_errors(0.0).cut(0.25), &[3.6; 4]), Some(0.25));
    let mut first = run(&plain(4).safeguard(default().first_cut(0.125)), &[false]);
    first.steps(&[1.0, f64::NAN, f64::NAN]);
    close(first.rate(), RATE * 0.125);
    // Trusted after one good window in place of five.
    let mut trusting = run(&plain(4).safeguard(default().standard_errors(0.0).trust(1)), &[false]);
    trusting.steps(&[4.0, 3.0, 3.0, 3.0]);
    trusting.steps(&[4.0, 3.0, 3.0, 3.0]);
    trusting.steps(&[3.0, 4.0, 4.0, 4.0]);
    close(trusting.rate(), RATE * 0.5);
    trusting.steps(&[3.0; 4]);
    assert_eq!(trusting.rate(), RATE);
}

#[test]
fn weights_that_are_not_finite_are_the_gradients_fault_once() {
    let mut run = run(&guarded(2), &[false]);
    run.steps(&[1.0, 1.0]);
    run.host.broken = true;
    let Step::RolledBack { cause: Cause::NonFiniteWeights, .. } = run.steps(&[1.0, 1.0]) else {
        panic!("not undone");
    };
    assert_eq!(run.rate(), RATE);
    assert!(run.log().ends_with("end; back Last"));
    run.steps(&[1.0, 1.0]);
    close(run.rate(), RATE * 0.5);
    // Before a window was good, they are the rate's.
    let mut first = self::run(&guarded(1), &[false]);
    first.host.broken = true;
    first.step(1.0);
    close(first.rate(), RATE * 0.1);
    // Found by a loss.
    let mut by_loss = self::run(&guarded(8), &[false]);
    by_loss.step(1.0);
    by_loss.host.unfinished = true;
    let undone = by_loss.steps(&[f64::NAN, f64::NAN]);
    assert!(matches!(undone, Step::RolledBack { cause: Cause::NonFiniteWeights, .. }));
    close(by_loss.rate(), RATE * 0.1);
}

#[test]
fn a_cut_after_five_good_windows_is_on_probation() {
    let trusted = |good: usize, then: &[f64]| {
        let mut run = run(&guarded(4), &[false]);
        (0..good).for_each(|_| drop(run.steps(&[1.0; 4])));
        run.steps(&[0.9, 1.4, 1.4, 1.4]);
        close(run.rate(), RATE * 0.5);
        run.steps(then);
        (run.rate(), run.engine.history().last().unwrap().outcome)
    };
    assert_eq!(trusted(5, &[1.0; 4]), (RATE, Outcome::CutReverted));
    assert_eq!(trusted(4, &[1.0; 4]), (RATE * 0.5, Outcome::WarmingUp));
    let (again, outcome) = trusted(5, &[1.0, 1.4, 1.4, 1.4]);
    close(again, RATE * 0.5 * 0.25);
    assert_eq!(outcome, Outcome::RolledBack(Cause::LossIncreased));
}

#[test]
fn a_rate_that_has_just_risen_is_not_given_back() {
    for (factor, given_back) in [(1.2, true), (1.3, false)] {
        let mut run = run(&guarded(4).damping(1.0).max_factor(factor), &[false]);
        (0..5).for_each(|_| drop(run.steps(&[1.0; 4])));
        run.host.windows.push_back(vec![along(1.0, 0.99)]);
        run.steps(&[1.0; 4]);
        close(run.rate(), RATE * factor);
        run.steps(&[0.9, 1.4, 1.4, 1.4]);
        run.steps(&[1.0; 4]);
        close(run.rate(), RATE * factor * if given_back { 1.0 } else { 0.5 });
    }
}

// At the limit, by hand: a loss of 1.5 after windows of 1 has increased, and more has exploded.
#[test]
fn a_loss_at_the_limit_of_an_explosion_has_only_increased() {
    let after = |loss| {
        let mut run = run(&guarded(1), &[false]);
        run.steps(&[1.0, 1.0]);
        run.step(loss)
    };
    let increased =
        |step: &Step| matches!(step, Step::RolledBack { cause: Cause::LossIncreased, .. });
    assert!(increased(&after(1.5)));
    assert!(matches!(after(1.5 + 1e-9), Step::Skipped { .. }));
}

#[test]
fn a_rollback_ends_the_climb_once_windows_were_good() {
    for (good, climbs) in [(0, true), (1, false)] {
        let at_once = Safeguard::default().retry(None);
        let mut run = run(&guarded(4).climb(0.8).safeguard(at_once), &[false]);
        (0..good).for_each(|_| drop(run.steps(&[1.0; 4])));
        run.steps(&[0.9, f64::NAN, f64::NAN]);
        run.steps(&[0.9; 4]);
        run.host.windows.push_back(vec![along(1.0, 0.9)]);
        run.steps(&[0.9; 4]);
        let outcome = run.engine.history().last().unwrap().outcome;
        assert_eq!(outcome == Outcome::Climbed, climbs, "{outcome}");
    }
}

// A rate of 1, undone and cut to a half, may rise to 0.9 in the next window, to 0.9 · 1.5 in the
// one after that, and so on. Fails without a bound, with one that does not grow, and if a cut that
// is reverted leaves its bound.
#[test]
fn a_rate_that_was_undone_is_not_tried_at_once() {
    let rates = |safeguard: Safeguard| {
        let config = guarded(4).damping(1.0).max_factor(100.0).safeguard(safeguard);
        let mut run = run(&config, &[false]);
        run.steps(&[1.0; 4]);
        run.steps(&[0.9, f64::NAN, f64::NAN]);
        let undone = run.rate() / 0.5;
        let mut then = run.rate();
        let mut end = |run: &mut Run<NewtonRule>| {
            // Directions of length 1 with a product of 0.9: Newton's point is ten times the rate.
            let (across, own) = (0.9 * then * run.rate(), run.rate() * run.rate());
            then = run.rate();
            run.host.windows.push_back(vec![WindowProducts { across, own }]);
            run.steps(&[0.9; 4]);
            run.rate() / undone
        };
        end(&mut run);
        let rates = (0..3).map(|_| end(&mut run));
        rates.collect::<Vec<_>>()
    };
    let expected = [0.9, 0.9 * 1.5, 0.9 * 1.5 * 1.5];
    let found = rates(Safeguard::default().retry(1.5));
    found.iter().zip(expected).for_each(|(found, expected)| close(*found, expected));
    assert!(rates(Safeguard::default().retry(None))[0] > 4.0);
}

#[test]
fn a_fixed_rate_is_not_cut() {
    let mut run = run(&guarded(4), &[true, false]);
    run.steps(&[1.0, f64::NAN, f64::NAN]);
    let rates: Vec<_> = run.engine.rates().map(|(_, rate)| rate).collect();
    assert_eq!(rates, [RATE, RATE * 0.1]);
}

#[test]
fn too_many_rollbacks_are_an_error_and_not_the_end() {
    let safeguard = Safeguard::default().max_rollbacks(2);
    let mut run = run(&guarded(4).safeguard(safeguard), &[false]);
    run.steps(&[1.0, f64::NAN, f64::NAN]);
    run.steps(&[1.0, f64::NAN]);
    let Err(StepError::Engine(error)) = run.batch(f64::NAN, false) else { panic!("no error") };
    let Error::TooManyRollbacks { count: 2, step: 6, cause: Cause::NonFiniteLoss } = error else {
        panic!("{error}");
    };
    let one = Error::TooManyRollbacks { count: 1, step: 6, cause: Cause::NonFiniteLoss };
    assert!(error.to_string().starts_with("2 rollbacks without"), "{error}");
    assert!(one.to_string().starts_with("1 rollback without"), "{one}");
    assert!(matches!(run.steps(&[1.0; 4]), Step::WindowEnded { .. }));
    // Counted anew after a good window.
    run.steps(&[1.0, f64::NAN, f64::NAN]);
}

// As if new: from the same rates, by the level of the next loss, and climbing again.
#[test]
fn a_reset_begins_anew_at_the_weights_as_they_are() {
    let mut run = run(&guarded(4).climb(0.8), &[false, true]);
    let two = || vec![still(1.0), still(1.0)];
    run.host.windows = [two(), two(), two()].into();
    run.steps(&[1.0; 6]);
    run.batch(1.0, true).unwrap();
    run.steps(&[f64::NAN, f64::NAN]);
    close(run.rate(), RATE * 0.5);
    run.step(1.0);
    let (steps, decisions) = (run.engine.steps(), run.engine.history().len());
    let fresh = self::run(&guarded(4).climb(0.8), &[false, true]);
    run.engine.reset();
    assert_eq!((run.engine.steps(), run.engine.history().len()), (steps, decisions));
    let forget = |engine: &Engine<NewtonRule>| {
        let mut state = serde_json::to_value(engine.state()).unwrap();
        state["steps"] = 0.into();
        state["level_from"] = 0.into();
        state["history"] = serde_json::json!([]);
        state
    };
    assert_eq!(forget(&run.engine), forget(&fresh.engine));
    // A loss that would have exploded is the new level.
    run.log();
    assert_eq!(run.step(100.0), Step::Made);
    assert_eq!(run.log(), "snapshot Weights; snapshot Buffers; update");
}
