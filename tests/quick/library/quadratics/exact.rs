//! The exact form (Eq. 1–7): with one step a window, the rule makes the step of Newton's method.

use super::{config, count, quadratic, run, sgd, spectra, Spectrum};
use dfdx::{optim::*, prelude::*};
use proptest::{prelude::*, test_runner::TestCaseResult};
use std::cell::Cell;
use support::{
    quadratic::{dot, Random},
    values::{gradients, vector, weights, Vector},
};
use tlr::{
    engine::{NewtonForm, RATES},
    Adaptation, KeptBecause, Newton, Outcome,
};

#[derive(Clone, Debug)]
struct Line {
    seed: u64,
    spectrum: Spectrum,
    rate: f64,
    damping: f64,
    form: NewtonForm,
}

/// Rates over twelve decades.
fn lines() -> impl Strategy<Value = Line> {
    let dampings = prop_oneof![Just(1.0), 0.01..1.0];
    let forms = prop::sample::select(vec![NewtonForm::Paper, NewtonForm::Aligned]);
    (any::<u64>(), spectra(), -9.0..=3.0, dampings, forms).prop_map(
        |(seed, spectrum, log_rate, damping, form)| Line {
            seed,
            spectrum,
            rate: 10.0_f64.powf(log_rate),
            damping,
            form,
        },
    )
}

/// How often each outcome was certain enough to be checked: a test that checks nothing must fail.
#[derive(Default)]
struct Checked {
    landed: Cell<u32>,
    capped: Cell<u32>,
    kept: Cell<u32>,
}

/// `epsilon` is the spacing of the dtype at 1.
fn exact_form<const N: usize, E: Dtype>(
    line: &Line,
    epsilon: f64,
    checked: &Checked,
) -> TestCaseResult
where
    Cpu: Device<E>,
{
    let random = &mut Random(line.seed);
    let quadratic = quadratic(N, line.spectrum, random);
    let mut model: Vector<N, E> = vector(&random.vector(N));
    let optimizer = Sgd::new(&model, sgd(line.rate));
    let mut newton = Newton::new(&model, optimizer, config(line.form, line.damping, 1)).unwrap();

    let w = weights(&model);
    let g = quadratic.gradient(&w);
    let here = gradients(&model, &g);
    let mut w_ahead = Vec::new();
    newton
        .step_lookahead(&mut model, &here, |ahead| {
            w_ahead = weights(ahead);
            gradients(ahead, &quadratic.gradient(&w_ahead))
        })
        .unwrap();

    let Adaptation { from, to, products, outcome, .. } = newton.history()[0];
    let products = products.unwrap();
    prop_assert_eq!(from, line.rate);
    // The direction the model really moved along, ŵ having been rounded to the dtype.
    let u: Vec<f64> = w.iter().zip(&w_ahead).map(|(w, ahead)| (w - ahead) / from).collect();
    let along = dot(&u, &g);
    let curvature = quadratic.curvature(&u);

    // Each gradient is rounded to the dtype, after sums of N terms in f64; a dot product with u
    // gathers that error over N components.
    let unit = epsilon + N as f64 * f64::EPSILON;
    let scale = quadratic.gradient_scale(&w).max(quadratic.gradient_scale(&w_ahead));
    let noise = 4.0 * unit * scale * u.iter().map(|u| u.abs()).sum::<f64>();
    // Eq. 3, by the analytic expansion at w: ⟨∇L(w − αu), u⟩ = ⟨g,u⟩ − α·uᵀHu.
    let slope = -along + from * curvature;
    prop_assert!((-products.un - slope).abs() <= noise, "Eq. 3: {} for {slope}", -products.un);
    // Eq. 7.
    let second = products.curvature() / from;
    prop_assert!(
        (second - curvature).abs() <= 2.0 * noise / from,
        "Eq. 7: {second} for {curvature}"
    );

    let cap = 100.0 * from;
    let rise = from * curvature; // what `noise` may hide the sign of
    let newton_point = along / curvature;
    let uncertainty = newton_point.abs() * (noise / along.abs() + 2.0 * noise / rise.abs());
    // Eq. 8: the fraction γ of the gap to the line's minimum.
    let expected = from + line.damping * (newton_point - from);
    let slack = line.damping * uncertainty + 1e-14 * (expected.abs() + from);
    prop_assert!(RATES.contains(&to) && to <= cap);
    if rise > 100.0 * noise && expected + slack < cap {
        prop_assert!((to - expected).abs() <= slack, "{to} for {expected} ± {slack}");
        prop_assert_eq!(outcome, Outcome::Scaled);
        count(&checked.landed);
    } else if rise > 100.0 * noise && expected - slack > cap {
        prop_assert_eq!((to, outcome), (cap, Outcome::Capped));
        count(&checked.capped);
    } else if rise < -100.0 * noise || u.iter().all(|u| *u == 0.0) {
        prop_assert_eq!((to, outcome), (from, Outcome::Kept(KeptBecause::NonPositiveCurvature)));
        count(&checked.kept);
    }
    // w ← w − α_new·u, rounded once.
    for ((w, u), after) in w.iter().zip(&u).zip(weights(&model)) {
        let expected = w - to * u;
        let rounding = 2.0 * unit * (w.abs() + (to * u).abs());
        prop_assert!((after - expected).abs() <= rounding, "{after} for {expected}");
    }
    Ok(())
}

fn exact_form_of_all_sizes<E: Dtype>(epsilon: f64)
where
    Cpu: Device<E>,
{
    let checked = Checked::default();
    run(96, lines(), |line| {
        exact_form::<1, E>(&line, epsilon, &checked)?;
        exact_form::<2, E>(&line, epsilon, &checked)?;
        exact_form::<6, E>(&line, epsilon, &checked)?;
        exact_form::<17, E>(&line, epsilon, &checked)?;
        exact_form::<64, E>(&line, epsilon, &checked)
    });
    let counts = [checked.landed.get(), checked.capped.get(), checked.kept.get()];
    assert!(counts.iter().all(|count| *count >= 40), "too few were certain: {counts:?} of 480");
}

// Fails with a wrong sign of either derivative, α instead of 1/α in Eq. 7, or without cap or
// curvature test. 96 cases in five sizes; twelve decades of α.
#[test]
fn exact_form_in_f64() {
    exact_form_of_all_sizes::<f64>(f64::EPSILON);
}

// As above. In f32 a step below 1e-6 or so is not seen in the weights, so fewer α are certain.
#[test]
fn exact_form_in_f32() {
    exact_form_of_all_sizes::<f32>(f32::EPSILON.into());
}

// Where the curvature is exactly 0 the rate stays, bit for bit. Fails with `<` for `<=`, where the
// step is +∞ and the cap hides it.
#[test]
fn no_curvature_keeps_the_rate() {
    let mut model: Vector<2> = vector(&[1.0, 2.0]);
    let optimizer = Sgd::new(&model, sgd(0.5));
    let mut newton = Newton::new(&model, optimizer, config(NewtonForm::Aligned, 1.0, 1)).unwrap();
    let slope = [0.25, -1.0];
    let here = gradients(&model, &slope);
    newton.step_lookahead(&mut model, &here, |ahead| gradients(ahead, &slope)).unwrap();
    let kept = Outcome::Kept(KeptBecause::NonPositiveCurvature);
    assert_eq!((newton.history()[0].to, newton.history()[0].outcome), (0.5, kept));
    for _ in 0..3 {
        let here = gradients(&model, &slope);
        newton.update(&mut model, &here).unwrap();
    }
    let outcomes: Vec<_> = newton.history().iter().map(|adaptation| adaptation.outcome).collect();
    assert_eq!(outcomes, [kept, Outcome::WarmingUp, kept, kept]);
    assert_eq!(newton.rates(), [("model", 0.5)]);
}
