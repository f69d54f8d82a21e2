//! Steps checked by Armijo's and the strong Wolfe conditions.
//!
//! Property tests run a fixed seed: the same cases every time.

use dfdx::optim::*;
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestCaseError, TestCaseResult, TestRunner},
};
use support::{
    quadratic::{dot, Quadratic, Random},
    values::{bits, gradients, vector, weights, Vector},
};
use tlr::{Error, LineSearch, Newton, NewtonConfig, Outcome, PerLayer};

const N: usize = 6;

/// A smooth convex function: a bowl, or a bowl plus Σ√(1 + (w − c)²).
#[derive(Clone, Debug)]
struct Smooth {
    bowl: Quadratic,
    centre: Option<Vec<f64>>,
}

impl Smooth {
    fn random(condition: f64, bent: bool, random: &mut Random) -> Self {
        let spectrum: Vec<f64> =
            (0..N).map(|i| condition.powf(i as f64 / (N - 1) as f64)).collect();
        let bowl = Quadratic::random(&spectrum, random);
        Self { bowl, centre: bent.then(|| random.vector(N)) }
    }

    fn at(&self, w: &[f64]) -> (f64, Vec<f64>) {
        let (mut loss, mut gradient) = (self.bowl.loss(w), self.bowl.gradient(w));
        for (index, centre) in self.centre.iter().flatten().enumerate() {
            let off = w[index] - centre;
            loss += off.hypot(1.0);
            gradient[index] += off / off.hypot(1.0);
        }
        (loss, gradient)
    }
}

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    log_condition: f64,
    bent: bool,
    log_rate: f64,
    damping: f64,
    /// c₁ and c₂.
    conditions: (f64, Option<f64>),
}

fn cases() -> impl Strategy<Value = Case> {
    let conditions = vec![(1e-4, None), (1e-4, Some(0.9)), (0.1, Some(0.2))];
    let conditions = prop::sample::select(conditions);
    (any::<u64>(), 0.0..4.0, any::<bool>(), -9.0..3.0, 0.05..=1.0, conditions).prop_map(
        |(seed, log_condition, bent, log_rate, damping, conditions)| Case {
            seed,
            log_condition,
            bent,
            log_rate,
            damping,
            conditions,
        },
    )
}

/// Thirty steps, each checked against both conditions in the plain.
fn descends(case: &Case) -> TestCaseResult {
    let random = &mut Random(case.seed);
    let smooth = Smooth::random(10.0_f64.powf(case.log_condition), case.bent, random);
    let mut model: Vector<N> = vector(&random.vector(N));
    let config = SgdConfig { lr: 10.0_f64.powf(case.log_rate), ..Default::default() };
    let newton_config = NewtonConfig::default().damping(case.damping);
    let mut newton = Newton::new(&model, Sgd::new(&model, config), newton_config).unwrap();
    let (c1, c2) = case.conditions;
    let search = LineSearch::default().c1(c1).c2(c2);
    for step in 0..30 {
        let w = weights(&model);
        let (loss, gradient) = smooth.at(&w);
        let here = gradients(&model, &gradient);
        let evaluate = |model: &mut Vector<N>| {
            let (loss, gradient) = smooth.at(&weights(model));
            (loss, gradients(model, &gradient))
        };
        match newton.step_line_search(&mut model, &here, loss, search, evaluate) {
            Ok(_) => (),
            // Only where what is left to gain is rounding: |g|² is all that one step can.
            Err(Error::NoDescent { .. }) => {
                let rounding = 1e-13 * smooth.bowl.gradient_scale(&w).powi(2).max(1.0);
                prop_assert!(dot(&gradient, &gradient) < rounding, "step {step}: {gradient:?}");
                prop_assert_eq!(weights(&model), w);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
        let there = weights(&model);
        let (loss_there, gradient_there) = smooth.at(&there);
        let moved: Vec<f64> = there.iter().zip(&w).map(|(there, w)| there - w).collect();
        let (slope, slope_there) = (dot(&moved, &gradient), dot(&moved, &gradient_there));
        prop_assert!(loss_there < loss, "step {step}: {loss_there} from {loss}");
        prop_assert!(loss_there <= loss + c1 * slope + 1e-13 * loss.abs());
        if let Some(c2) = c2 {
            prop_assert!(slope_there.abs() <= c2 * slope.abs() * (1.0 + 1e-9));
        }
    }
    Ok(())
}

// On smooth convex functions, from rates over twelve decades: every step that is made lowers the
// loss, and meets the conditions. 300 cases of thirty steps. Fails without either test, or with the
// signs of the slopes mixed up.
#[test]
fn every_step_descends() {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x7a11),
        ..ProptestConfig::default()
    });
    runner.run(&cases(), |case| descends(&case)).unwrap();
}

// ½·4·w² from 1 with a rate of 1: the rule's own step, γ = 1, lands on 0 and passes. With a loss
// that tells otherwise it does not, and the search sets the rate.
#[test]
fn the_rules_own_step_comes_first() {
    let bowl = |model: &mut Vector<1>, bonus: f64| {
        let w = weights(model)[0];
        (2.0 * w * w + bonus * w.abs(), gradients(model, &[4.0 * w]))
    };
    for (bonus, outcome) in [(0.0, Outcome::Scaled), (-3.0, Outcome::Searched)] {
        let mut model: Vector<1> = vector(&[1.0]);
        let sgd = Sgd::new(&model, SgdConfig { lr: 1.0, ..Default::default() });
        let config = NewtonConfig::default().damping(1.0);
        let mut newton = Newton::new(&model, sgd, config).unwrap();
        let (loss, here) = bowl(&mut model, bonus);
        let armijo = LineSearch::armijo();
        newton
            .step_line_search(&mut model, &here, loss, armijo, |model| bowl(model, bonus))
            .unwrap();
        assert_eq!(newton.history()[0].outcome, outcome);
        let moved = 1.0 - weights(&model)[0];
        assert!((moved - 4.0 * newton.rates()[0].1).abs() < 1e-15);
    }
}

// All layers are scaled by as much.
#[test]
fn a_rate_a_layer() {
    type Layers = (Vector<1>, Vector<1>);

    let mut model: Layers = (vector(&[1.0]), vector(&[1.0]));
    let sgd = Sgd::new(&model, SgdConfig { lr: 1e3, ..Default::default() });
    let per_layer = PerLayer::new(&model, sgd);
    let mut newton = Newton::new(&model, per_layer, NewtonConfig::default()).unwrap();
    let evaluate = |model: &mut Layers| {
        let w = weights(model);
        let loss = 2.0 * w[0] * w[0] + 50.0 * w[1] * w[1];
        (loss, gradients(model, &[4.0 * w[0], 100.0 * w[1]]))
    };
    let mut loss = f64::INFINITY;
    for _ in 0..20 {
        let (before, here) = evaluate(&mut model);
        assert!(before < loss);
        loss = before;
        let search = LineSearch::default();
        newton.step_line_search(&mut model, &here, before, search, evaluate).unwrap();
    }
    assert!(loss < 1e-3, "{loss}");
    let rates = newton.rates();
    assert!(rates[0].1 > 5.0 * rates[1].1, "the best are 1/4 and 1/100: {rates:?}");
}

// What cannot be gone down leaves everything where it is, and says so.
#[test]
fn no_descent() {
    let mut model: Vector<2> = vector(&[1.0, 2.0]);
    let before = bits(&model);
    let sgd = Sgd::new(&model, SgdConfig { lr: 0.1, ..Default::default() });
    let mut newton = Newton::new(&model, sgd, NewtonConfig::default()).unwrap();
    let uphill = gradients(&model, &[-1.0, -1.0]); // of −(x + y), where the loss is x + y
    let error = newton
        .step_line_search(&mut model, &uphill, 3.0, LineSearch::default(), |model| {
            let w = weights(model);
            (w[0] + w[1], gradients(model, &[1.0, 1.0]))
        })
        .unwrap_err();
    assert_eq!(error, Error::NoDescent { step: 1, trials: 60 });
    assert!(error.to_string().contains("minimum"));
    assert_eq!((bits(&model), newton.rates()), (before.clone(), vec![("model", 0.1)]));

    let still = gradients(&model, &[0.0, 0.0]);
    let flat = |model: &mut Vector<2>| (1.0, gradients(model, &[0.0, 0.0]));
    let search = LineSearch::default().max_trials(3);
    let error = newton.step_line_search(&mut model, &still, 1.0, search, flat).unwrap_err();
    assert_eq!(error, Error::NoDescent { step: 1, trials: 3 });
    assert_eq!((bits(&model), newton.steps()), (before, 0));
}

#[test]
fn figures_out_of_range() {
    let mut model: Vector<1> = vector(&[1.0]);
    let sgd = Sgd::new(&model, SgdConfig { lr: 0.1, ..Default::default() });
    let mut newton = Newton::new(&model, sgd, NewtonConfig::default()).unwrap();
    let default = LineSearch::default;
    for (bad, name) in [
        (default().c1(0.0), "c1"),
        (default().c1(f64::NAN), "c1"),
        (default().c1(0.5).c2(0.4), "c2"),
        (default().c2(1.0), "c2"),
        (default().max_trials(0), "max_trials"),
    ] {
        let here = gradients(&model, &[1.0]);
        let evaluate = |model: &mut Vector<1>| (0.0, gradients(model, &[1.0]));
        let error = newton.step_line_search(&mut model, &here, 1.0, bad, evaluate).unwrap_err();
        let Error::OutOfRange { what, .. } = error else { panic!("{error}") };
        assert_eq!(what, format!("line search: {name}"));
    }
    let here = gradients(&model, &[1.0]);
    let evaluate = |model: &mut Vector<1>| (0.0, gradients(model, &[1.0]));
    let error =
        newton.step_line_search(&mut model, &here, f64::NAN, default(), evaluate).unwrap_err();
    assert!(matches!(error, Error::NonFiniteLoss { step: 1, .. }));
}
