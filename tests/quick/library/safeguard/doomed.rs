//! A window whose mean loss cannot come below the limit any more ends at once.

use super::{default, guarded, rolled_back, RATE};
use support::values::bits;
use tlr::{Cause::LossIncreased, Safeguard};

// Of 4 steps and after a mean of 1 without noise: as soon as the losses sum to more than 4.4. Fails
// with another τ, if the remaining losses count as more than 0, or if only whole windows are
// judged.
#[test]
fn a_window_ends_when_it_cannot_be_saved() {
    let mut run = default(4);
    run.accept(&[2.0; 4]);
    run.accept(&[1.0; 4]);
    let snapshot = bits(&run.model);
    run.accept(&[1.0, 1.4, 1.4]);
    assert_eq!(run.feed(0.7), rolled_back(LossIncreased));
    assert_eq!(bits(&run.model), snapshot);
    assert_eq!(run.rate(), RATE * 0.5);

    run.accept(&[1.4, 1.4, 1.4, 0.1]);
    run.accept(&[0.9; 4]);
    run.accept(&[1.4, 1.4]);
    // 2.8 + 1.3 of 4 · 0.99
    assert_eq!(run.feed(1.3), rolled_back(LossIncreased));
}

// One loss a window has no standard error: only τ. That loss is the snapshot's own, so the way back
// is one further.
#[test]
fn windows_of_one_step() {
    let mut run = default(1);
    run.accept(&[2.0, 1.0]);
    let snapshot = bits(&run.model);
    run.accept(&[1.099]); // within 10 %
    assert_eq!(run.feed(1.099 * 1.1 + 1e-9), rolled_back(LossIncreased));
    assert_eq!(bits(&run.model), snapshot);
    assert_eq!(run.rate(), RATE * 0.5);
}

// (1.0, 1.2, 0.8, 1.0) has mean 1, and by its differences a deviation of √(0.24/6) = 0.2 and sem of
// 0.1: up to 1.1 + 3·√2·0.1 = 1.5243 is noise. Fails with a factor of 0 on sem, with the deviation
// in its place, without √2, or by the deviation from the mean, which is 0.163.
#[test]
fn noise_of_the_window_before() {
    for (loss, bad) in [(1.524, false), (1.525, true)] {
        let mut run = default(4);
        run.accept(&[2.0; 4]);
        run.accept(&[1.0, 1.2, 0.8, 1.0]);
        run.accept(&[loss; 3]);
        assert_eq!(run.feed(loss) == rolled_back(LossIncreased), bad, "{loss}");
    }
}

// A fall is no noise: (8, 6, 4, 2, …) has a small deviation by its differences, √(4/2), and a large
// one from its mean, 4.9. Fails by the latter.
#[test]
fn a_fall_is_no_noise() {
    let mut run = default(8);
    run.accept(&[16.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0]);
    // 9.9 + 3·√2·√2/√8 = 12.02
    run.accept(&[12.1; 7]);
    assert_eq!(run.feed(12.1), rolled_back(LossIncreased));
}

// The window's own noise does not count: a window that diverges is noisy. Fails if it does, by
// 3 · 0.1/√3 at least.
#[test]
fn noise_of_the_window_itself() {
    let mut run = default(4);
    run.accept(&[2.0; 4]);
    run.accept(&[1.0; 4]);
    run.accept(&[1.01, 1.21, 1.01]);
    assert_eq!(run.feed(1.21), rolled_back(LossIncreased));
}

// The first window has no predecessor: the first loss stands in, with the window's own noise.
// `standard_errors` = 0 leaves only τ.
#[test]
fn mean_of_the_first_window() {
    for (loss, bad) in [(1.13, false), (1.14, true)] {
        let mut run = guarded(4, Safeguard::default().blame(None).standard_errors(0.0));
        let start = bits(&run.model);
        run.accept(&[1.0, loss, loss]);
        // (1 + 3·loss)/4 against 1.1.
        assert_eq!(run.feed(loss) == rolled_back(LossIncreased), bad, "{loss}");
        assert_eq!(bits(&run.model) == start, bad);
        assert_eq!(run.rate(), if bad { RATE * 0.1 } else { RATE });
    }
    let mut noisy = default(8);
    noisy.accept(&[1.0, 1.2, 1.4, 1.0, 1.2, 1.4, 1.0, 1.2]);
}
