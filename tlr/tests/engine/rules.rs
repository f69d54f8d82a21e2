//! The rules that move a rate: both forms of the Newton rule, the first-order rules, and the bounds
//! of a rate.

use super::{along, close, plain, run, still, RATE};
use tlr::{engine::*, Cause, Error};

#[test]
fn both_forms_of_the_newton_rule() {
    // u₋ = 4/0.5 = 8 and u = 1/0.5 = 2 at the same rate: uu = 64, un = 16, curvature 48.
    let of = |config: NewtonConfig| {
        let mut run = run(&config, &[false]);
        run.window(still(16.0));
        run.window(along(4.0, 1.0))
    };
    let (rate, outcome) = of(plain(1).damping(0.3));
    close(rate, 0.7 * RATE + 0.3 * RATE * 64.0 / 48.0);
    assert_eq!(outcome, Outcome::Scaled);
    let (rate, _) = of(plain(1).damping(0.3).form(NewtonForm::Paper));
    close(rate, RATE * (1.0 + 0.3 * 16.0 / 48.0));
    assert_eq!(of(plain(1).max_factor(1.01)), (RATE * 1.01, Outcome::Capped));
    // Just as much as it may be is not capped: (1 − γ)·α + γ·α·4/2 at γ = 1.
    let mut run = run(&plain(1).damping(1.0).max_factor(2.0), &[false]);
    run.window(still(16.0));
    assert_eq!(run.window(along(4.0, 2.0)), (2.0 * RATE, Outcome::Scaled));
}

// Fails if a bound that `validate` refuses makes `propose` panic.
#[test]
fn a_bound_that_makes_no_sense_is_no_panic() {
    let products = DirectionProducts { uu: 1.0, un: 1.0, nn: 1.0 };
    for bound in [0.5, 0.0, f64::NAN] {
        let rule = HypergradientRule::additive(1.0).max_factor(bound);
        assert!(rule.validate().is_err());
        assert!(rule.propose(0.1, 0.1, &products).rate.is_finite());
    }
}

// The aligned form starts from the rate of the window before, the paper's from the one in force.
#[test]
fn after_a_change_of_rate_the_forms_differ() {
    let of = |form| {
        let mut run = run(&plain(1).damping(0.5).form(form), &[false]);
        run.window(still(16.0));
        let (second, _) = run.window(along(4.0, 2.0));
        close(second, 0.75);
        // u₋ = 2/0.5 = 4, u = 1.5/0.75 = 2: uu = 16, un = 8.
        run.window(along(2.0, 1.5)).0
    };
    close(of(NewtonForm::Aligned), 0.5 * 0.75 + 0.5 * 0.5 * 2.0);
    close(of(NewtonForm::Paper), 0.75 * 1.5);
}

#[test]
fn where_there_is_nothing_to_learn_the_rate_is_kept() {
    let kept = |first: WindowProducts, second: WindowProducts, because: KeptBecause| {
        let mut run = run(&plain(1), &[false]);
        run.window(first);
        assert_eq!(run.window(second), (RATE, Outcome::Kept(because)));
    };
    kept(still(1.0), along(1.0, 1.0), KeptBecause::NonPositiveCurvature);
    kept(still(1.0), along(1.0, 2.0), KeptBecause::NonPositiveCurvature);
    for bad in [f64::NAN, f64::INFINITY] {
        kept(still(1.0), WindowProducts { across: bad, own: 1.0 }, KeptBecause::NonFinite);
        kept(still(1.0), WindowProducts { across: 0.5, own: bad }, KeptBecause::NonFinite);
        kept(still(bad), along(1.0, 0.5), KeptBecause::NonFinite);
    }
    let mut run = run(&plain(1), &[true]);
    run.window(still(16.0));
    assert_eq!(run.window(along(4.0, 2.0)), (RATE, Outcome::Kept(KeptBecause::FixedRate)));
}

#[test]
fn the_first_order_rules() {
    let of = |rule: HypergradientRule, then: f64, now: f64| {
        let config = Config::new(rule).safeguard(None).window(Window::steps(1).unwrap());
        let mut run = run(&config, &[false]);
        run.window(still(then * then));
        run.window(along(then, now))
    };
    // u₋ = 4, u = 2.
    let (rate, outcome) = of(HypergradientRule::additive(0.01), 2.0, 1.0);
    close(rate, RATE + 0.01 * 8.0);
    assert_eq!(outcome, Outcome::Scaled);
    close(of(HypergradientRule::multiplicative(0.1), 2.0, 1.0).0, RATE * 1.1);
    close(of(HypergradientRule::multiplicative(0.1), 2.0, -1.0).0, RATE * 0.9);
    // At a cosine of 1/2.
    let rule = HypergradientRule::multiplicative(0.1);
    let config = Config::new(rule).safeguard(None).window(Window::steps(1).unwrap());
    let mut half = run(&config, &[false]);
    half.window(still(4.0));
    close(half.window(WindowProducts { across: 2.0, own: 4.0 }).0, RATE * 1.05);
    let capped = of(HypergradientRule::additive(1.0).max_factor(10.0), 2.0, 1.0);
    assert_eq!(capped, (RATE * 10.0, Outcome::Capped));
    assert_eq!(of(HypergradientRule::additive(1.0), 2.0, -1.0), (RATE / 100.0, Outcome::Capped));
}

#[test]
fn rates_stay_within_their_bounds() {
    let mut run = run(&plain(1).damping(1.0).max_factor(1e308), &[false]);
    run.window(still(1.0));
    let almost = 1.0 - f64::EPSILON;
    for _ in 0..4 {
        run.window(along(1.0, almost));
        run.window(along(almost, 1.0));
    }
    assert!(run.rate() <= 1e30);
    let errors = [1e-31, 1e31, f64::NAN, 0.0, -1.0].map(|rate| {
        let groups = vec![Group { name: "w".into(), fixed_rate: false, rate }];
        let facts = HostFacts { momentum: 0.0, epsilon: 1e-3 };
        Engine::new(plain(1), groups, facts).map(drop).unwrap_err()
    });
    assert!(errors.iter().all(|error| matches!(error, Error::Rate { group, .. } if group == "w")));
    let none = Engine::new(plain(1), vec![], HostFacts { momentum: 0.0, epsilon: 1e-3 });
    assert_eq!(none.map(drop).unwrap_err(), Error::NothingToTrain);
}

#[test]
fn products_add_up_and_vanish_into_a_cosine_of_zero() {
    let parts =
        [WindowProducts { across: 1.0, own: 2.0 }, WindowProducts { across: -3.0, own: 5.0 }];
    let sum: WindowProducts = parts.into_iter().sum();
    assert_eq!(sum, WindowProducts { across: -2.0, own: 7.0 });
    let cosine = |uu, un, nn| DirectionProducts { uu, un, nn }.cosine();
    assert_eq!(
        [cosine(0.0, 0.0, 1.0), cosine(4.0, 3.0, 9.0), cosine(1.0, -2.0, 1.0)],
        [0.0, 0.5, -1.0]
    );
}

#[test]
fn outcomes_in_words() {
    let words = [
        (Outcome::WarmingUp, "warming up"),
        (Outcome::Scaled, "scaled"),
        (Outcome::Capped, "capped"),
        (Outcome::Climbed, "climbed: the windows agree"),
        (Outcome::Raised, "raised: lost in rounding"),
        (Outcome::CutReverted, "cut reverted: it was not needed"),
        (Outcome::Kept(KeptBecause::NonPositiveCurvature), "kept: the curvature is not positive"),
        (Outcome::Kept(KeptBecause::NonFinite), "kept: a figure is not finite"),
        (Outcome::Kept(KeptBecause::FixedRate), "kept: the rate is fixed"),
        (Outcome::Searched, "set by the line search"),
        (Outcome::RolledBack(Cause::LossIncreased), "rolled back: the mean loss rose"),
    ];
    words.into_iter().for_each(|(outcome, words)| assert_eq!(outcome.to_string(), words));
}
