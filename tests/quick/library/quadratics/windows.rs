//! The form over windows (Eq. 8), against an oracle on vectors.

use super::{config, count, descend, quadratic, run, sgd, spectra, Spectrum};
use dfdx::optim::*;
use proptest::prelude::*;
use std::cell::Cell;
use support::{
    oracle::Windows,
    quadratic::{dot, norm, Quadratic, Random},
    values::{vector, weights, Vector},
};
use tlr::{
    engine::{DirectionProducts, NewtonForm},
    Newton, Outcome,
};

/// How much rounding the difference uu − un is blown up by.
fn condition(products: &DirectionProducts) -> f64 {
    (products.uu + (products.uu * products.nn).sqrt()) / products.curvature().abs()
}

// α = ⟨s,s⟩/⟨s,y⟩ with s the last displacement and y the gradients' difference (Barzilai and
// Borwein, 1988, BB1). 64 cases. Fails with the current rate in place of the previous one.
#[test]
fn aligned_is_barzilai_borwein() {
    let compared = Cell::new(0);
    run(64, any::<u64>(), |seed| {
        let random = &mut Random(seed);
        // b = 0: the minimum is at 0, so differences of weights keep their digits on the way.
        let quadratic =
            Quadratic { linear: vec![0.0; 6], ..quadratic(6, Spectrum::Definite, random) };
        let mut model: Vector<6> = vector(&random.vector(6));
        let rate = 1e-2;
        let optimizer = Sgd::new(&model, sgd(rate));
        let mut newton =
            Newton::new(&model, optimizer, config(NewtonForm::Aligned, 1.0, 1)).unwrap();
        let mut path = vec![weights(&model)];
        for _ in 0..40 {
            descend(&mut newton, &mut model, &quadratic).unwrap();
            path.push(weights(&model));
            let decision = newton.history().last().unwrap();
            let Some(products) = decision.products else { continue };
            // The two points before the last: the rule is one step behind the weights.
            let [before, now] = [&path[path.len() - 3], &path[path.len() - 2]];
            let difference =
                |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>();
            let s = difference(now, before);
            let y = difference(&quadratic.gradient(now), &quadratic.gradient(before));
            let barzilai_borwein = dot(&s, &s) / dot(&s, &y);
            // What rounding of w leaves of the displacements, times the conditioning of uu − un.
            let (then, latest) = (norm(&s), norm(&difference(&path[path.len() - 1], now)));
            let digits = norm(before) / then.min(latest);
            let slack = 32.0 * f64::EPSILON * (1.0 + digits) * condition(&products);
            if slack > 1e-6 || decision.outcome != Outcome::Scaled {
                continue;
            }
            count(&compared);
            let error = (decision.to / barzilai_borwein - 1.0).abs();
            prop_assert!(
                error <= slack,
                "{} for {barzilai_borwein}: {error} > {slack}",
                decision.to
            );
        }
        Ok(())
    });
    assert!(compared.get() > 64 * 30, "only {} steps were well conditioned", compared.get());
}

// Both forms, any γ, K from 1 to 7, plain and with momentum, against `support::oracle`. 128 cases
// of up to 10 windows. Fails with a wrong moment, a window off by one, or the forms exchanged.
#[test]
fn windows_follow_equation_8() {
    let forms = prop::sample::select(vec![NewtonForm::Paper, NewtonForm::Aligned]);
    let momenta = prop::sample::select(vec![
        None,
        Some(Momentum::Classic(0.8)),
        Some(Momentum::Nesterov(0.8)),
    ]);
    let compared = Cell::new(0);
    let cases = (any::<u64>(), spectra(), forms, 0.05..=1.0, 1..=7_usize, momenta, -4.0..-1.0);
    run(128, cases, |(seed, spectrum, form, damping, steps, momentum, log_rate)| {
        let random = &mut Random(seed);
        let quadratic = quadratic(17, spectrum, random);
        let mut model: Vector<17> = vector(&random.vector(17));
        let lr = 10.0_f64.powf(log_rate);
        let whole = 0..17;
        let mut oracle = Windows::new(
            (form, damping, 100.0),
            steps,
            std::slice::from_ref(&whole),
            lr,
            &weights(&model),
        );
        let optimizer = Sgd::new(&model, SgdConfig { lr, momentum, weight_decay: None });
        let mut newton = Newton::new(&model, optimizer, config(form, damping, steps)).unwrap();
        for step in 1..=10 * steps {
            descend(&mut newton, &mut model, &quadratic).unwrap();
            oracle.after_step(&weights(&model));
            prop_assert_eq!(newton.history().len(), step / steps);
            let (ours, theirs) = (newton.rates()[0].1, oracle.rates()[0]);
            let products = newton.history().last().and_then(|last| last.products);
            // Sums of 17 terms in another order, blown up by the conditioning of the last window.
            let slack = 1e-14 * products.map_or(1.0, |products| condition(&products));
            if slack > 1e-8 || norm(&weights(&model)) > 1e100 {
                return Ok(()); // too badly conditioned, or diverged on purpose
            }
            prop_assert!((ours / theirs - 1.0).abs() <= slack, "{ours} for {theirs}");
            oracle.set_rates([ours]);
            count(&compared);
        }
        Ok(())
    });
    assert!(compared.get() > 128 * 20, "only {} steps were compared", compared.get());
}

// γ = 1, K = 1: relative error 1e-10 within 300 steps, where the paper's form never gets there. 64
// cases. Fails with the current rate in place of the previous one.
#[test]
fn aligned_converges_where_the_papers_form_does_not() {
    run(64, any::<u64>(), |seed| {
        for (form, converges) in [(NewtonForm::Aligned, true), (NewtonForm::Paper, false)] {
            let random = &mut Random(seed);
            // The minimum is at w* = (1, …, 1).
            let convex = quadratic(6, Spectrum::Definite, random);
            let quadratic = Quadratic { linear: convex.times(&[1.0; 6]), ..convex };
            let mut model: Vector<6> = vector(&random.vector(6));
            let optimizer = Sgd::new(&model, sgd(1e-2));
            let mut newton = Newton::new(&model, optimizer, config(form, 1.0, 1)).unwrap();
            for _ in 0..300 {
                if descend(&mut newton, &mut model, &quadratic).is_err() {
                    break; // beyond f64
                }
            }
            let off: Vec<f64> = weights(&model).iter().map(|w| w - 1.0).collect();
            let error = norm(&off) / 6.0_f64.sqrt();
            prop_assert_eq!(error < 1e-10, converges, "{:?}: {}", form, error);
        }
        Ok(())
    });
}
