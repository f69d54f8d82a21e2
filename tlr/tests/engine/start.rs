//! The start: how a rate climbs, and how it is raised where a window is lost in rounding.

use super::{along, close, guarded, plain, run, run_from, still, RATE};
use tlr::engine::*;

#[test]
fn the_climb_goes_to_the_newton_point_until_windows_disagree() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.window(still(1.0));
    // ρ = 0.9: the point is ten times the rate of the window before.
    let (rate, outcome) = run.window(along(1.0, 0.9));
    close(rate, 10.0 * RATE);
    assert_eq!(outcome, Outcome::Climbed);
    // ‖u‖ has fallen from 1.8 to 0.18, and so ρ is 0.1. Held, where the rule would go down.
    assert_eq!(run.window(along(0.9, 0.9)), (rate, Outcome::Climbed));
    // A cosine of 0.5 ends it, and the next window that agrees does not begin it again.
    assert_eq!(run.window(WindowProducts { across: 0.405, own: 0.81 }).1, Outcome::Scaled);
    assert_eq!(run.window(along(0.9, 0.81)).1, Outcome::Scaled);
}

// ‖u‖ grows from 1 to 2, with a cosine of 0.9, and that is ρ.
#[test]
fn what_grows_climbs_by_its_cosine() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.window(still(1.0));
    let (rate, outcome) = run.window(WindowProducts { across: 1.8, own: 4.0 });
    close(rate, 10.0 * RATE);
    assert_eq!(outcome, Outcome::Climbed);
}

// (5, 0) and (4, 3): a cosine of 0.8, to the bit.
#[test]
fn a_cosine_at_the_threshold_is_no_agreement() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.window(still(25.0));
    assert_eq!(run.window(WindowProducts { across: 20.0, own: 25.0 }).1, Outcome::Scaled);
    // Nor is it seen then whether the loss falls along the way.
    assert_eq!(run.host.looked, 0);
    run.window(WindowProducts { across: 25.0, own: 25.0 });
    assert_eq!(run.host.looked, 1);
}

// A way that does not go down keeps a rate from rising, and is no reason where the rule keeps it
// anyway: here the directions grow, so that there is no curvature.
#[test]
fn a_rate_that_does_not_rise_is_not_kept_by_the_slope() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.host.slopes = vec![Slope { moved: 1.0, gradient: 1.0, norm: 1.0, ..Slope::default() }];
    run.window(still(1.0));
    run.window(still(1.0));
    assert_eq!(run.window(along(1.0, 2.0)).1, Outcome::Kept(KeptBecause::NonPositiveCurvature));
    // cos = 1 and ρ = 1/2: the rule alone would raise it.
    let kept = Outcome::Kept(KeptBecause::NotDownhill);
    assert_eq!(run.window(along(2.0, 1.0)).1, kept);
    run.host.slopes[0].along = -1.0;
    assert_eq!(run.window(along(1.0, 0.5)).1, Outcome::Scaled);
}

#[test]
fn a_climb_is_a_hundredfold_at_most() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.window(still(1.0));
    assert_eq!(run.window(along(1.0, 1.0)), (100.0 * RATE, Outcome::Climbed));
    // Where the rule itself goes as far, it is the rule's doing.
    let mut run = self::run(&plain(1).damping(1.0).max_factor(100.0).climb(0.8), &[false]);
    run.window(still(1.0));
    assert_eq!(run.window(along(1.0, 0.9999)), (100.0 * RATE, Outcome::Capped));
}

#[test]
fn what_is_lost_in_rounding_raises_the_rate() {
    // Weights of norm 1, and K·ε of noise: √1 · 1e-3/2.
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.host.norms = vec![1.0];
    let (rate, outcome) = run.window(still(1e-10));
    assert_eq!((rate, outcome), (1.0, Outcome::Raised), "a hundredfold, but no more than 1");
    assert_eq!(run.log(), "snapshot Weights; snapshot Buffers; update; end; norms");
    let mut low = run_from(1e-6, &plain(1).climb(0.8), &[false]);
    low.host.norms = vec![1.0];
    close(low.window(still(1e-10)).0, 1e-4);
    // At 1 it is not raised, however little it moves.
    assert_eq!(run.window(still(1e-10)).1, Outcome::WarmingUp);
}

#[test]
fn rounding_ends_where_a_window_moves_further() {
    let noise = 2.0_f64.sqrt() * 1e-3 / 2.0;
    for (moved, raised) in [(0.49e-3, Some(1e-3 / 0.49e-3)), (0.51e-3, None), (noise, None)] {
        let config = plain(2).climb(0.8).max_factor(100.0);
        let mut run = run(&config, &[false]);
        run.host.norms = vec![1.0];
        run.host.windows.push_back(vec![still(moved * moved)]);
        run.steps(&[1.0, 1.0]);
        match raised {
            Some(by) => close(run.rate(), (RATE * by).min(1.0)),
            None => assert_eq!(run.rate(), RATE),
        }
    }
}

#[test]
fn weights_that_have_not_moved_raise_a_rate_that_could_move_them() {
    for (movable, rate) in [(vec![true], 1.0), (vec![false], RATE), (vec![], RATE)] {
        let mut run = run(&plain(1).climb(0.8), &[false]);
        run.host.movable = movable;
        assert_eq!(run.window(still(0.0)).0, rate);
        assert!(run.log().ends_with("end; movable; norms"));
    }
    // Not of a layer with a fixed rate, not without a climb, and not where a schedule holds the
    // weights still.
    let mut fixed_rate = run(&plain(1).climb(0.8), &[true]);
    fixed_rate.host.movable = vec![true];
    assert_eq!(fixed_rate.window(still(0.0)), (RATE, Outcome::Kept(KeptBecause::FixedRate)));
    let mut without = run(&plain(1), &[false]);
    without.window(still(0.0));
    assert!(without.log().ends_with("end"));
    let mut held = run(&plain(1).climb(0.8), &[false]);
    held.engine.set_schedule(Some(Schedule::from_fn(|_| 0.5)));
    held.window(still(0.0));
    assert!(held.log().ends_with("end"));
}

// Before its last step a window that ends where it began was a way off, or it was not. Only then
// was it lost in rounding. The same if it ends nearly there.
#[test]
fn weights_that_have_come_back_do_not_raise_a_rate() {
    let learned = |moved, own| {
        let mut run = run(&plain(2).climb(0.8).settle(true), &[false]);
        run.host.movable = vec![true];
        run.host.norms = vec![1.0];
        run.host.slopes = vec![Slope { moved, gradient: 1.0, norm: 1.0, ..Slope::default() }];
        run.host.windows.push_back(vec![still(own)]);
        run.steps(&[1.0, 1.0]);
        run.rate()
    };
    assert_eq!(learned(0.0, 0.0), 1.0);
    assert_eq!(learned(0.1, 0.0), RATE);
    assert!(learned(0.0, 1e-10) > RATE);
    assert_eq!(learned(0.1, 1e-10), RATE);
}

// Weights that have moved in a good window and stand still later have arrived. Fails if their rate
// rises above all that have moved them: it would take them away from the lowest point.
#[test]
fn weights_that_have_arrived_do_not_raise_a_rate() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.host.movable = vec![true];
    run.window(still(1.0));
    let arrived = (RATE, Outcome::Kept(KeptBecause::NoGradient));
    assert_eq!(run.window(still(0.0)), arrived);
    // Steps that turn round lower the rate. It comes back as far as it was.
    run.window(still(1.0));
    let (lower, _) = run.window(WindowProducts { across: -1.0, own: 1.0 });
    assert!(lower < RATE, "{lower}");
    assert_eq!(run.window(still(0.0)), (RATE, Outcome::Raised));
    assert_eq!(run.window(still(0.0)), arrived);
}

// A schedule's factor of a tenth: the weights have moved at a tenth of the rate.
#[test]
fn a_rate_comes_back_as_far_as_it_was_in_effect() {
    let mut run = run(&plain(1).climb(0.8), &[false]);
    run.host.movable = vec![true];
    run.engine.set_schedule(Some(Schedule::from_fn(|_| 0.1)));
    run.window(still(1.0));
    run.engine.set_schedule(None);
    assert_eq!(run.window(still(0.0)), (RATE, Outcome::Kept(KeptBecause::NoGradient)));
}

// A rate that was undone at 0.5 is not raised above 0.45 and the growth of that bound.
#[test]
fn a_rate_that_was_undone_is_not_raised_above_its_bound() {
    let mut run = run(&guarded(1).climb(0.8), &[false]);
    run.host.movable = vec![true];
    run.window(still(1.0));
    assert!(matches!(run.steps(&[f64::NAN, f64::NAN]), Step::RolledBack { .. }));
    let undone = run.rate();
    let (raised, outcome) = run.window(still(0.0));
    assert_eq!(outcome, Outcome::Raised);
    assert!(undone < raised && raised <= 0.9 * RATE, "{undone} {raised}");
}

// Without `retry` a rate that was undone has no bound: it is raised to what has moved the weights.
#[test]
fn without_retry_a_rate_is_raised_to_what_was_undone() {
    let config = guarded(1).safeguard(Safeguard::default().retry(None)).climb(0.8);
    let mut run = run(&config, &[false]);
    run.host.movable = vec![true];
    run.window(still(1.0));
    assert!(matches!(run.steps(&[f64::NAN, f64::NAN]), Step::RolledBack { .. }));
    assert_eq!(run.window(still(0.0)), (RATE, Outcome::Raised));
}
