//! Losses and gradients that are not finite.

use super::{good_step, newton, sgd, step, tells, Model, NEVER};
use support::values::{bits, gradients, values, vector};
use tlr::{Cause, Error, Newton, NewtonConfig, Outcome, Safeguard, Step, Window};

#[test]
fn loss_not_finite() {
    for bad in NEVER {
        // Off: an error, and nothing moved.
        let mut model: Model = vector(&[1.0, 2.0]);
        let mut newton_off = newton(&model, sgd(&model, 0.01), 2, false);
        good_step(&mut newton_off, &mut model, Some(1.0)).unwrap();
        let before = bits(&model);
        let error = good_step(&mut newton_off, &mut model, Some(bad)).unwrap_err();
        assert!(matches!(error, Error::NonFiniteLoss { step: 2, .. }));
        tells(&error, &["step 2", "safeguard is off", "nothing was updated"]);
        assert_eq!((bits(&model), newton_off.steps()), (before, 1));
        // It goes on as if that step had not been.
        good_step(&mut newton_off, &mut model, Some(1.0)).unwrap();
        assert_eq!(newton_off.history().len(), 1);

        // On: skipped, then back to the snapshot, and no error.
        let mut model: Model = vector(&[1.0, 2.0]);
        let start = bits(&model);
        let mut newton_on = newton(&model, sgd(&model, 0.01), 2, true);
        good_step(&mut newton_on, &mut model, Some(1.0)).unwrap();
        good_step(&mut newton_on, &mut model, Some(bad)).unwrap();
        good_step(&mut newton_on, &mut model, Some(bad)).unwrap();
        assert_eq!(bits(&model), start);
        let outcome = newton_on.history().last().unwrap().outcome;
        assert_eq!(outcome, Outcome::RolledBack(Cause::NonFiniteLoss));
    }
}

// After good windows, one gradient is not finite; by the end of that window the weights are the
// last good ones, bit for bit: with a loss and without, in windows of one step and of five, with
// the safeguard and without. Fails if a snapshot takes in such weights.
#[test]
fn gradient_not_finite() {
    for steps in [1, 5] {
        for with_loss in [true, false] {
            for guarded in [true, false] {
                for bad in NEVER {
                    let mut model: Model = vector(&[1.0, 2.0]);
                    let mut newton = newton(&model, sgd(&model, 0.01), steps, guarded);
                    let loss = with_loss.then_some(1.0);
                    for _ in 0..2 * steps {
                        good_step(&mut newton, &mut model, loss).unwrap();
                    }
                    let good = bits(&model);
                    let mut outcome = step(&mut newton, &mut model, [bad, 1.0], loss);
                    for _ in 1..steps {
                        // Without a loss a look within the window has seen it.
                        if let Ok(Step::RolledBack { .. }) = outcome {
                            assert!(!with_loss);
                            break;
                        }
                        outcome.unwrap();
                        outcome = good_step(&mut newton, &mut model, loss);
                    }
                    assert_eq!(bits(&model), good, "K = {steps}, {with_loss}, {guarded}, {bad}");
                    if guarded {
                        outcome.unwrap();
                        let last = newton.history().last().unwrap().outcome;
                        assert_eq!(last, Outcome::RolledBack(Cause::NonFiniteWeights));
                    } else {
                        let error = outcome.unwrap_err();
                        let step = 3 * steps as u64;
                        assert!(
                            matches!(error, Error::NonFiniteWeights { step: at, .. } if at == step)
                        );
                        tells(&error, &["last good snapshot", "lower the rate"]);
                    }
                    good_step(&mut newton, &mut model, loss).unwrap();
                    assert!(values(&model).iter().all(|value| value.is_finite()));
                }
            }
        }
    }
}

// The exact form looks before it moves.
#[test]
fn lookahead_not_finite() {
    for bad in NEVER {
        let mut model: Model = vector(&[1.0, 2.0]);
        let mut newton = newton(&model, sgd(&model, 0.01), 1, false);
        let before = bits(&model);
        let here = gradients(&model, &[bad, 1.0]);
        let error = newton
            .step_lookahead(&mut model, &here, |ahead| gradients(ahead, &[1.0, 1.0]))
            .unwrap_err();
        assert!(matches!(error, Error::NonFiniteStep { step: 1, .. }));
        tells(&error, &["nothing was moved", "step 1"]);
        assert_eq!((bits(&model), newton.steps()), (before, 0));
        // A gradient ahead that is not finite only keeps the rate.
        let here = gradients(&model, &[1.0, 1.0]);
        newton.step_lookahead(&mut model, &here, |ahead| gradients(ahead, &[bad, 1.0])).unwrap();
        assert_eq!(newton.rates(), [("model", 0.01)]);
        assert!(values(&model).iter().all(|value| value.is_finite()));
    }
}

// Rollbacks that do not help end in an error, with the model at the last good snapshot; one good
// window starts the count anew.
#[test]
fn too_many_rollbacks() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let safeguard = Safeguard::default().max_rollbacks(3);
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .window(Window::steps(1).unwrap())
        .safeguard(safeguard);
    let mut newton = Newton::new(&model, sgd(&model, 0.01), config).unwrap();
    for _ in 0..2 {
        good_step(&mut newton, &mut model, Some(f64::NAN)).unwrap();
    }
    good_step(&mut newton, &mut model, Some(1.0)).unwrap();
    good_step(&mut newton, &mut model, Some(1.0)).unwrap();
    let good = bits(&model);
    for _ in 0..2 {
        step(&mut newton, &mut model, [f64::NAN, 0.0], None).unwrap();
    }
    let error = step(&mut newton, &mut model, [f64::NAN, 0.0], None).unwrap_err();
    let cause = Cause::NonFiniteWeights;
    assert_eq!(error, Error::TooManyRollbacks { count: 3, step: 7, cause });
    tells(&error, &["3 rollbacks", "step 7", "a weight is not finite", "last good snapshot"]);
    assert_eq!(bits(&model), good);
}
