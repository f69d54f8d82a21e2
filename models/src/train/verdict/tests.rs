//! Which runs are judged to have learned, and what is said of the others.

use super::*;
use crate::report::Epoch;
use tlr::Cause;

/// A run with a window of ten steps for each outcome.
fn run(losses: Vec<f64>, outcomes: &[Outcome]) -> Run {
    let decision = |(index, outcome): (usize, &Outcome)| {
        let step = 10 * (index as u64 + 1);
        // Two groups: a window counts once.
        ["a", "b"].map(|group| Adaptation::new(step, group, 0.1, 0.1, None, *outcome))
    };
    let rates = vec![("a".to_owned(), 0.1), ("b".to_owned(), 0.2)];
    Run {
        epochs: vec![Epoch { rates, ..Epoch::default() }],
        history: outcomes.iter().enumerate().flat_map(decision).collect(),
        batches_per_epoch: 100,
        parameters: 1,
        losses,
        seconds: 1.0,
    }
}

/// Losses that go from `from` to `to`, up and down by `noise`.
fn losses(from: f64, to: f64, noise: f64, steps: usize) -> Vec<f64> {
    let level = |i: usize| from + (to - from) * i as f64 / steps as f64;
    let sign = |i: usize| [1.0, -1.0][i % 2];
    (0..steps).map(|i| level(i) + noise * sign(i)).collect()
}

const GOOD: [Outcome; 3] = [Outcome::WarmingUp, Outcome::Scaled, Outcome::Scaled];
const BAD: Outcome = Outcome::RolledBack(Cause::LossIncreased);

fn verdict(run: &Run) -> Verdict {
    judge(&Options::default(), run)
}

fn fault_of(run: &Run) -> Option<Fault> {
    match verdict(run) {
        Verdict::Failed { fault, .. } => Some(fault),
        _ => None,
    }
}

#[test]
fn a_loss_that_fell_was_learned() {
    assert_eq!(verdict(&run(losses(2.3, 0.1, 0.2, 200), &GOOD)), Verdict::Learned);
    // Within twenty steps, and flat from there on.
    let mut early = losses(2.3, 0.1, 0.01, 15);
    early.extend(losses(0.1, 0.1, 0.01, 500));
    assert_eq!(verdict(&run(early, &GOOD)), Verdict::Learned);
}

// Fails if a loss below zero is far above itself.
#[test]
fn a_loss_may_be_below_zero() {
    assert_eq!(verdict(&run(losses(-1.0, -3.0, 0.0, 200), &GOOD)), Verdict::Learned);
    assert_eq!(verdict(&run(losses(0.5, -0.5, 0.1, 200), &GOOD)), Verdict::Learned);
    for rising in [losses(-3.0, -1.0, 0.1, 200), losses(-1.0, -0.8, 0.01, 200)] {
        assert!(matches!(fault_of(&run(rising, &GOOD)), Some(Fault::LossRose { .. })));
    }
    assert_eq!([far_above(2.0), far_above(0.0), far_above(-2.0)], [3.0, 0.0, -1.0]);
    assert!(!exploded(&run(losses(-1.0, -3.0, 0.0, 200), &GOOD)));
}

#[test]
fn a_loss_that_stayed_or_rose_was_not() {
    for losses in [
        losses(2.3, 2.3, 0.1, 200),
        losses(2.3, 2.29, 0.3, 200), // lost in noise
        losses(2.3, 2.31, 0.3, 200),
        losses(2.3, f64::NAN, 0.1, 200),
    ] {
        let fault = fault_of(&run(losses, &GOOD));
        assert!(matches!(fault, Some(Fault::LossStayed { .. })), "{fault:?}");
    }
    let exact = run([[2.0; 20], [3.0; 20], [4.0; 20], [5.0; 20]].concat(), &GOOD);
    assert_eq!(fault_of(&exact), Some(Fault::LossRose { start: 2.0, end: 5.0 }));
}

// Fails if twenty steps count as the first of forty, or thirty as the first of 120.
#[test]
fn the_first_steps_are_a_quarter_but_at_most_twenty() {
    let forty = [[3.0; 10], [2.0; 10], [4.0; 10], [5.0; 10]].concat();
    let many = [vec![3.0; 20], vec![1.0; 60], vec![5.0; 40]].concat();
    for losses in [forty, many] {
        let fault = fault_of(&run(losses, &GOOD));
        assert_eq!(fault, Some(Fault::LossRose { start: 3.0, end: 5.0 }));
    }
}

/// Skipped batches among good ones. Fails if one of them spoils a mean.
#[test]
fn a_few_losses_that_are_not_finite_are_left_out() {
    let mut fell = losses(2.3, 0.1, 0.2, 200);
    (fell[3], fell[19], fell[180], fell[199]) = (f64::NAN, f64::INFINITY, f64::NAN, f64::NAN);
    assert_eq!(verdict(&run(fell.clone(), &GOOD)), Verdict::Learned);
    // Half of the last quarter is too much.
    fell[150..175].fill(f64::NAN);
    let fault = fault_of(&run(fell, &GOOD));
    assert!(matches!(fault, Some(Fault::LossStayed { .. })), "{fault:?}");
}

/// Losses that begin at 2.3 and are `high` from the second step on, until they end as `end` says.
fn after_an_explosion(high: f64, end: Vec<f64>) -> Vec<f64> {
    [vec![2.3, 2.3 * high], vec![3.0 * high; 10], end].concat()
}

// Fails if the run is compared with what its first step left.
#[test]
fn the_start_is_before_the_first_large_step() {
    for high in [10.0, 1e3, 1e11] {
        let learned = run(after_an_explosion(high, losses(5.0, 0.1, 0.2, 200)), &GOOD);
        assert_eq!(verdict(&learned), Verdict::Learned);
        let worse = run(after_an_explosion(high, losses(high, 30.0, 5.0, 200)), &GOOD);
        let fault = fault_of(&worse);
        assert!(matches!(fault, Some(Fault::LossRose { start: 2.3, .. })), "{fault:?}");
        let back = run(after_an_explosion(high, losses(5.0, 2.3, 0.05, 200)), &GOOD);
        let fault = fault_of(&back);
        let failed = matches!(fault, Some(Fault::LossStayed { .. } | Fault::LossRose { .. }));
        assert!(failed, "{fault:?}");
    }
    // Too little above the first for an explosion, but above it to the end.
    let above = [vec![2.3], vec![3.2; 60], losses(2.8, 2.7, 0.05, 60)].concat();
    let fault = fault_of(&run(above, &GOOD));
    assert!(matches!(fault, Some(Fault::LossRose { start: 2.3, .. })), "{fault:?}");
    // The first batch was left out.
    let skipped = [vec![f64::NAN], losses(2.3, 0.1, 0.2, 200)].concat();
    assert_eq!(verdict(&run(skipped, &GOOD)), Verdict::Learned);
}

// Fails if a loss that went to the sky has a rate that is too small for its cause.
#[test]
fn what_exploded_was_too_large() {
    let high = run(after_an_explosion(1e3, losses(5.0, 2.3, 0.1, 200)), &GOOD);
    let nan = run([vec![2.3], vec![f64::NAN; 200]].concat(), &[BAD; 4]);
    for run in [&high, &nan] {
        for (rule, says) in [
            (Rule::Constant, "a constant --rate of 10 is too large"),
            (Rule::Paper, "a --rate of 10 is too large for the paper's rule"),
            (Rule::Multiplicative, "does not suit a --rate of 10"),
            (Rule::Aligned, "a --rate of 10 is far too large to start from"),
        ] {
            let options = Options { rule, rate: 10.0, ramp: false, ..Options::default() };
            let words = judge(&options, run).to_string();
            assert!(words.contains(says), "{words}");
        }
    }
    let nothing = run(vec![f64::NAN; 200], &GOOD);
    let words = verdict(&nothing).to_string();
    assert!(words.contains("the data holds values that are not finite"), "{words}");
}

// A constant rate has no windows to wait for.
#[test]
fn a_constant_rate_is_judged_by_its_loss() {
    let options = Options { rule: Rule::Constant, rate: 10.0, ..Options::default() };
    let failed = |losses| judge(&options, &run(losses, &[])).to_string();
    let words = failed(after_an_explosion(1e4, losses(3e4, 2e4, 1e4, 100)));
    assert!(words.starts_with("did not learn: ") && words.contains("was 2.3000"), "{words}");
    assert!(words.contains("too large"), "{words}");
    assert!(failed(losses(2.3, 2.3, 0.1, 60)).contains("too small"));
}

// Fails if such a run is called too short.
#[test]
fn a_loss_that_no_rate_moves_is_a_fault() {
    let mut flat = run(losses(2.3, 2.3, 0.1, 100), &[Outcome::Ramped; 3]);
    for rate in &mut flat.epochs[0].rates {
        rate.1 = 9.1e9;
    }
    let options = Options { weight_decay: 1e30, ..Options::default() };
    let words = judge(&options, &flat).to_string();
    assert!(words.starts_with("did not learn: the training loss is"), "{words}");
    assert!(words.contains("the loss does not depend on the weights"), "{words}");
    assert!(words.contains("a --weight-decay of 1e30 too large"), "{words}");
    // One group of two says nothing of the others.
    flat.epochs[0].rates[0].1 = 0.1;
    assert_eq!(judge(&options, &flat), Verdict::TooShort { steps: 100 });
}

#[test]
fn nobody_knows_of_a_few_steps() {
    let steps = losses(2.3, 2.3, 0.1, 60);
    for outcomes in [&[][..], &[Outcome::Ramped; 3], &[Outcome::WarmingUp]] {
        assert_eq!(verdict(&run(steps.clone(), outcomes)), Verdict::TooShort { steps: 60 });
    }
    assert_eq!(verdict(&run(Vec::new(), &[])), Verdict::TooShort { steps: 0 });
    // Four losses that fall may be luck.
    let falling = |steps| verdict(&run(losses(2.3, 0.1, 0.1, steps), &[]));
    assert_eq!(falling(4), Verdict::TooShort { steps: 4 });
    assert_eq!(falling(39), Verdict::TooShort { steps: 39 });
    assert_eq!(falling(40), Verdict::Learned);
    // A fault that is certain is reported after few steps, too.
    let undone = run(losses(2.3, 0.1, 0.1, 30), &[BAD, BAD, BAD]);
    assert_eq!(fault_of(&undone), Some(Fault::Rollbacks { undone: 3, kept: 0 }));
}

#[test]
fn more_windows_undone_than_kept() {
    let fell = || losses(2.3, 0.1, 0.1, 200);
    let undone = run(fell(), &[BAD, BAD, BAD, Outcome::WarmingUp, Outcome::Scaled]);
    assert_eq!(fault_of(&undone), Some(Fault::Rollbacks { undone: 3, kept: 2 }));
    let as_many = [&GOOD[..], &[BAD; 3]].concat();
    assert_eq!(verdict(&run(fell(), &as_many)), Verdict::Learned);
    // Two rollbacks are no sign of a failure.
    assert_eq!(verdict(&run(fell(), &[BAD, BAD, Outcome::WarmingUp])), Verdict::Learned);
}

#[test]
fn a_rate_at_its_bound() {
    for rate in [1e-30, 1e30] {
        let mut run = run(losses(2.3, 0.1, 0.1, 200), &GOOD);
        run.epochs[0].rates[1].1 = rate;
        let fault = fault_of(&run);
        assert_eq!(fault, Some(Fault::RateAtBound { group: "b".into(), rate }));
    }
    let mut run = run(losses(2.3, 0.1, 0.1, 200), &GOOD);
    run.epochs[0].rates[1].1 = 2e-30;
    assert_eq!(verdict(&run), Verdict::Learned);
}

// Fails if a run whose rate still rises is taken for one whose labels are wrong, or the other way
// round.
#[test]
fn a_rate_that_still_rises_was_too_small() {
    let stays = run(losses(2.3, 2.3, 0.1, 200), &[Outcome::Raised; 3]);
    // The group `a` from 1e-9 on, multiplied by `factor` after each window.
    let raised = |factor: f64, last: Outcome| {
        let mut run = stays.clone();
        let mut rate = 1e-9;
        for decision in run.history.iter_mut().filter(|decision| &*decision.layer == "a") {
            decision.from = rate;
            rate *= factor;
            decision.to = rate;
            decision.outcome = if decision.step == 30 { last } else { Outcome::Raised };
        }
        run.epochs[0].rates[0].1 = rate;
        run
    };
    let options = Options { rate: 1e-9, ramp: false, ..Options::default() };
    let words = judge(&options, &raised(10.0, Outcome::Raised)).to_string();
    assert!(words.contains("a --rate of 1e-9 is far too small to start from"), "{words}");
    assert!(words.contains("10 epochs are too few: the rate still rises"), "{words}");
    let words =
        judge(&Options { ramp: true, epochs: 1, ..options }, &raised(10.0, Outcome::Raised));
    assert!(words.to_string().contains("most likely 1 epoch is too few: the rate still rises"));
    for run in [raised(1.2, Outcome::Raised), raised(10.0, BAD)] {
        let words = judge(&options, &run).to_string();
        assert!(words.contains("labels do not belong to the examples"), "{words}");
    }
}

// Fails if a cause names a flag that has no part in the run.
#[test]
fn causes_are_those_of_the_rule() {
    let run = run(losses(2.3, 2.3, 0.1, 200), &GOOD);
    let rising = Run { losses: losses(2.3, 5.0, 0.1, 200), ..run.clone() };
    for (rule, run, says) in [
        (Rule::Constant, &run, "constant --rate of 1e-6 is too small"),
        (Rule::Constant, &rising, "constant --rate of 1e-6 is too large"),
        (Rule::Additive, &run, "--meta-rate of 0.01"),
        (Rule::Paper, &run, "--rule aligned"),
        (Rule::Aligned, &run, "labels do not belong to the examples"),
    ] {
        let options = Options { rule, ..Options::default() };
        let words = judge(&options, run).to_string();
        assert!(words.starts_with("did not learn: the training loss is"), "{words}");
        assert!(words.contains(says), "{words}");
        assert!(!words.contains("--weight-decay"), "{words}");
        let decayed = judge(&Options { weight_decay: 10.0, ..options }, run).to_string();
        assert!(decayed.contains("--weight-decay of 10 "), "{decayed}");
    }
}
