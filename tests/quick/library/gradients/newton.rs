//! `Accumulate` under learned rates: losses that are not finite, steps that are undone, exact
//! steps.

use super::{config, gathering, layers, momentum, sgd, Batches, Layers, BATCHES, LEN};
use dfdx::{optim::AdamConfig, prelude::*};
use support::{
    quadratic::norm,
    values::{bits, gradients, values, vector, weights, Vector},
};
use tlr::{
    optim::{Accumulate, Adam, Clip},
    Adaptation, Error, Newton, NewtonConfig, Outcome, PerLayer, Safeguard, TunableOptimizer,
};

/// What is to be the same, steps and losses included.
fn story(history: &[Adaptation]) -> Vec<(u64, String, u64, u64, Outcome)> {
    let bits = |a: &Adaptation| (a.from.to_bits(), a.to.to_bits());
    history.iter().map(|a| (a.step, a.layer.to_string(), bits(a).0, bits(a).1, a.outcome)).collect()
}

/// Newton around it learns what it learns on the large batches: the same weights, rates and
/// decisions to the bit, at the same steps, from rates far too small and far too large (with
/// rollbacks). Fails if a gathered batch counts in windows or steps, is judged by its own loss, or
/// survives a rollback.
#[test]
fn newton_learns_as_on_large_batches() {
    fn check<A, B>(a: impl Fn(&Layers) -> A, b: impl Fn(&Layers) -> B, window: usize) -> usize
    where
        A: TunableOptimizer<Model = Layers, Dtype = f64, Device = Cpu>,
        B: TunableOptimizer<Model = Layers, Dtype = f64, Device = Cpu>,
    {
        let (mut large, mut small) = (layers(), layers());
        // Slopes are of the last batch alone.
        let config = config(window).safeguard(Safeguard::default().blame(None));
        let mut plain = Newton::new(&large, a(&large), config).unwrap();
        let mut gathering = Newton::new(&small, b(&small), config).unwrap();
        let mut batches = Batches::new(1e-2);
        for step in 0..60 {
            let (parts, (mean, loss)) = batches.at(&weights(&large));
            // Parts of the loss far from their mean, which alone would undo the window.
            let spread = [1e3, -2e3, 1e3];
            let here = gradients(&large, &mean);
            plain.step(&mut large, &here, loss).unwrap();
            for (index, ((part, _), spread)) in parts.iter().zip(spread).enumerate() {
                assert_eq!(gathering.steps(), step);
                let before = bits(&small);
                let here = gradients(&small, part);
                gathering.step(&mut small, &here, loss + spread).unwrap();
                assert!(index + 1 == BATCHES || bits(&small) == before);
            }
            assert_eq!(gathering.steps(), step + 1);
            assert_eq!(bits(&small), bits(&large), "step {step}");
        }
        assert_eq!(story(gathering.history()), story(plain.history()));
        assert!(plain.history().iter().any(|a| a.products.is_some()));
        plain.history().iter().filter(|a| matches!(a.outcome, Outcome::RolledBack(_))).count()
    }

    let every = |opt| Accumulate::new(opt, BATCHES).unwrap();
    let mut rollbacks = 0;
    for lr in [1e-6, 1e-2, 30.0] {
        for window in [1, 4] {
            rollbacks += check(|m| sgd(m, lr), |m| every(sgd(m, lr)), window);
            let clip = |m: &Layers| Clip::by_norm(every(sgd(m, lr)), f64::MAX).unwrap();
            rollbacks += check(|m| sgd(m, lr), clip, window);
        }
        rollbacks +=
            check(|m| momentum(m, lr), |m| Accumulate::new(momentum(m, lr), BATCHES).unwrap(), 4);
        let adam = |m: &Layers| Adam::new(m, AdamConfig { lr, ..Default::default() });
        rollbacks += check(adam, |m| Accumulate::new(adam(m), BATCHES).unwrap(), 4);
        rollbacks +=
            check(|m| PerLayer::new(m, sgd(m, lr)), |m| PerLayer::new(m, every(sgd(m, lr))), 3);
        rollbacks += check(
            |m| PerLayer::new(m, sgd(m, lr)),
            |m| Accumulate::new(PerLayer::new(m, sgd(m, lr)), BATCHES).unwrap(),
            3,
        );
    }
    assert!(rollbacks > 5, "{rollbacks}");
}

/// A broken batch is left out and another takes its place; the second in a row undoes the window,
/// and the batch that was gathered before them is gone.
#[test]
fn a_batch_whose_loss_is_not_finite() {
    let (mut model, mut opt) = gathering(4);
    let mut feed = |model: &mut Vector<2>, g: f64, loss: f64| {
        let here = gradients(model, &[g, 0.0]);
        opt.step(model, &here, loss).unwrap();
        (weights(model)[0], opt.steps(), opt.optimizer().gathered(), opt.history().len())
    };
    let nan = f64::NAN;
    // First of a step, then last of it: neither is in the mean, and neither counts.
    assert_eq!(feed(&mut model, 100.0, nan), (1.0, 0, 0, 0));
    assert_eq!(feed(&mut model, 1.0, 5.0), (1.0, 0, 1, 0));
    assert_eq!(feed(&mut model, 100.0, nan), (1.0, 0, 1, 0));
    assert_eq!(feed(&mut model, 3.0, 5.0), (0.5, 1, 0, 0));
    // With a good one in between, they are not in a row.
    assert_eq!(feed(&mut model, 100.0, f64::INFINITY), (0.5, 1, 0, 0));
    assert_eq!(feed(&mut model, 1.0, 5.0), (0.5, 1, 1, 0));
    assert_eq!(feed(&mut model, 100.0, nan), (0.5, 1, 1, 0));
    // Now they are.
    assert_eq!(feed(&mut model, 100.0, nan), (1.0, 2, 0, 1));
    // The mean of the next step is of its own two, and so is its loss.
    assert_eq!(feed(&mut model, 10.0, 5.0), (1.0, 2, 1, 1));
    let rate = 0.25 * 0.1;
    assert_eq!(feed(&mut model, 20.0, 5.0), (1.0 - rate * 15.0, 3, 0, 1));
}

/// A step is judged by the mean of its losses, so that of an undone step must not be left in the
/// next one's.
#[test]
fn an_undone_step_leaves_no_loss() {
    let (mut model, mut opt) = gathering(8);
    let here = gradients(&model, &[1.0, 1.0]);
    let mut feed = |losses: [f64; 2]| {
        for loss in losses {
            opt.step(&mut model, &here, loss).unwrap();
        }
        opt.history().len()
    };
    assert_eq!(feed([1.0, 1.0]), 0);
    assert_eq!(feed([1.0, 1.9]), 0); // 1.45, within 1.5 times the first
    assert_eq!(feed([1.4, 1.7]), 0); // 1.55, above: skipped as a whole
    assert_eq!(feed([1.9, 1.0]), 0); // but not with what was left of that
    assert_eq!(feed([1.4, 1.7]), 0);
    assert_eq!(feed([1.4, 1.7]), 1); // twice in a row
    assert_eq!(feed([1.9, 1.0]), 1);
    assert_eq!(feed([1.0, 1.9]), 1);
}

/// Without the safeguard it is an error, of which nothing is left: neither gradients nor loss.
#[test]
fn without_a_safeguard_a_broken_batch_is_an_error() {
    let mut model: Vector<2> = vector(&[1.0, 2.0]);
    let accumulate = Accumulate::new(sgd(&model, 0.25), 2).unwrap();
    let mut opt = Newton::new(&model, accumulate, config(4).safeguard(None)).unwrap();
    let here = |model: &Vector<2>, g: f64| gradients(model, &[g, 0.0]);
    let good = here(&model, 1.0);
    opt.step(&mut model, &good, 1.0).unwrap();
    let result = opt.step(&mut model, &here(&vector(&[0.0; 2]), 9.0), f64::INFINITY);
    assert_eq!(result, Err(Error::NonFiniteLoss { step: 1, loss: f64::INFINITY }));
    let good = here(&model, 3.0);
    opt.step(&mut model, &good, 1.0).unwrap();
    assert_eq!(weights(&model), [0.5, 2.0]);
}

/// A batch without all gradients is not gathered; those before it stay, and another takes its
/// place.
#[test]
fn a_missing_gradient_leaves_what_was_gathered() {
    let mut model = layers();
    let accumulate = Accumulate::new(sgd(&model, 1.0), 2).unwrap();
    let mut opt = Newton::new(&model, accumulate, config(4)).unwrap();
    let ones = gradients(&model, &[1.0; LEN]);
    opt.step(&mut model, &ones, 1.0).unwrap();
    let result = opt.step(&mut model, &Gradients::leaky(), 1.0);
    assert!(matches!(result, Err(Error::UnusedParameters { .. })), "{result:?}");
    assert_eq!((opt.optimizer().gathered(), opt.steps()), (1, 0));
    let threes = gradients(&model, &[3.0; LEN]);
    opt.step(&mut model, &threes, 1.0).unwrap();
    assert_eq!(weights(&model), [-2.0; LEN]);
}

/// The exact form gathers as well, and decides at the last batch of a step; so does the line
/// search.
#[test]
fn exact_steps_gather_first() {
    let quadratic = |w: &mut Vector<2>| (w.leaky_trace().square() * 2.0).sum();
    for search in [false, true] {
        let mut model: Vector<2> = vector(&[3.0, -1.0]);
        let accumulate = Accumulate::new(sgd(&model, 0.01), 2).unwrap();
        let newton =
            NewtonConfig::default().ramp(false).settle(false).damping(1.0).max_factor(100.0);
        let mut opt = Newton::new(&model, accumulate, newton).unwrap();
        for calls in 1..=2 {
            let loss = quadratic(&mut model);
            let (value, here) = (loss.array(), loss.backward());
            let mut asked = 0;
            if search {
                let there = |w: &mut Vector<2>| {
                    asked += 1;
                    let loss = quadratic(w);
                    (loss.array(), loss.backward())
                };
                let how = tlr::LineSearch::default();
                opt.step_line_search(&mut model, &here, value, how, there).unwrap();
            } else {
                let there = |w: &mut Vector<2>| {
                    asked += 1;
                    quadratic(w).backward()
                };
                opt.step_lookahead(&mut model, &here, there).unwrap();
            }
            assert_eq!((opt.steps(), asked > 0), (calls / 2, calls == 2));
        }
        assert!(norm(&weights(&model)) < 1e-9, "{:?}", values(&model));
        assert!((opt.rates()[0].1 - 0.25).abs() < 1e-9);
    }
}
