//! The rules themselves, on any numbers at all: rates stay within their bounds.

use super::{run, sgd};
use dfdx::optim::*;
use proptest::prelude::*;
use support::values::{bits, gradients, set_weights, vector, weights, Vector};
use tlr::{
    engine::{DirectionProducts, HypergradientRule, NewtonForm, NewtonRule, RateRule, RATES},
    Config, Trainer, Window,
};

/// Any f64 there is, the special ones often.
fn anything() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::num::f64::ANY,
        prop::num::f64::SUBNORMAL,
        -1e3..1e3,
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE
        ]),
    ]
}

fn rates_in_range() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-30.0..30.0).prop_map(|log| 10.0_f64.powf(log)),
        Just(*RATES.start()),
        Just(*RATES.end())
    ]
}

#[derive(Clone, Copy, Debug)]
enum AnyRule {
    Newton(NewtonRule),
    Hypergradient(HypergradientRule),
}

impl RateRule for AnyRule {
    fn propose(
        &self,
        rate: f64,
        previous: f64,
        products: &DirectionProducts,
    ) -> tlr::engine::Proposal {
        match self {
            Self::Newton(rule) => rule.propose(rate, previous, products),
            Self::Hypergradient(rule) => rule.propose(rate, previous, products),
        }
    }
}

fn newton_rules() -> impl Strategy<Value = (NewtonForm, f64, f64)> {
    let dampings = prop_oneof![Just(1.0), Just(f64::MIN_POSITIVE), 0.0001..1.0];
    let factors = prop_oneof![Just(100.0), Just(1.0 + f64::EPSILON), Just(f64::MAX), 1.1..1e9];
    let forms = prop::sample::select(vec![NewtonForm::Paper, NewtonForm::Aligned]);
    (forms, dampings, factors)
}

fn newton_rule((form, damping, max_factor): (NewtonForm, f64, f64)) -> NewtonRule {
    NewtonRule::default().form(form).damping(damping).max_factor(max_factor)
}

fn rules() -> impl Strategy<Value = AnyRule> {
    let forms = [HypergradientRule::additive, HypergradientRule::multiplicative];
    let forms = prop::sample::select(forms.to_vec() as Vec<fn(f64) -> HypergradientRule>);
    let hypergradients =
        (forms, prop_oneof![Just(f64::MAX), 1e-9..1e9]).prop_map(|(form, meta_lr)| form(meta_lr));
    prop_oneof![
        newton_rules().prop_map(newton_rule).prop_map(AnyRule::Newton),
        hypergradients.prop_map(AnyRule::Hypergradient)
    ]
}

// A window's ⟨u₋,u₋⟩ is not negative, so a proposal lies in [(1 − γ)·α, cap·α], however large or
// small the numbers. 2,000 cases. Fails without the cap or the curvature test.
#[test]
fn proposals_stay_between_damping_and_cap() {
    let finite = || anything().prop_filter("products are finite", |moment| moment.is_finite());
    let cases =
        (newton_rules(), rates_in_range(), rates_in_range(), finite().prop_map(f64::abs), finite());
    run(2_000, cases, |case| {
        let ((form, damping, max_factor), rate, previous, uu, un) = case;
        let rule = newton_rule((form, damping, max_factor));
        let products = DirectionProducts { uu, un, nn: 1.0 };
        let proposal = rule.propose(rate, previous, &products).rate;
        prop_assert!(proposal <= max_factor * rate, "{proposal}");
        // Within rounding of a sum of two positive terms.
        prop_assert!(proposal >= (1.0 - damping) * rate * (1.0 - 1e-15), "{proposal}");
        if products.curvature().is_nan() || products.curvature() <= 0.0 {
            prop_assert_eq!(proposal, rate);
        }
        Ok(())
    });
}

// Weights are put anywhere between steps, so the windows' products can be any numbers; a rate stays
// finite and within RATES, and the weights finite. 500 cases of 6 windows. Fails without the bounds
// or the test for products that are not finite.
#[test]
fn any_windows_leave_a_usable_rate() {
    let places = prop::collection::vec([anything(), anything()], 6);
    run(500, (rules(), rates_in_range(), places), |(rule, rate, places)| {
        let mut model: Vector<2> = vector(&[0.0, 0.0]);
        let window = Window::steps(1).unwrap();
        let optimizer = Sgd::new(&model, sgd(rate));
        let config = Config::new(rule).window(window).safeguard(None);
        let mut tlr = Trainer::new(&model, optimizer, config).unwrap();
        let still = gradients(&model, &[0.0, 0.0]);
        tlr.update(&mut model, &still).unwrap();
        for place in places {
            set_weights(&mut model, &place);
            let finite = place.iter().all(|w| w.is_finite());
            prop_assert_eq!(tlr.update(&mut model, &still).is_ok(), finite);
            prop_assert!(weights(&model).iter().all(|w| w.is_finite()));
            prop_assert!(RATES.contains(&tlr.rates()[0].1), "{}", tlr.rates()[0].1);
        }
        Ok(())
    });
}

// The same for the exact form: with momentum the direction need not even be one of descent. 500
// cases of 4 steps. Fails without the bounds.
#[test]
fn any_gradients_ahead_leave_a_usable_rate() {
    let gradient = || [anything(), anything()];
    let steps = prop::collection::vec((gradient(), gradient()), 4);
    run(500, (rules(), rates_in_range(), steps), |(rule, lr, steps)| {
        let mut model: Vector<2> = vector(&[1.0, -1.0]);
        let momentum = Some(Momentum::Classic(0.9));
        let optimizer = Sgd::new(&model, SgdConfig { lr, momentum, weight_decay: None });
        let mut tlr = Trainer::new(&model, optimizer, Config::new(rule)).unwrap();
        for (here, there) in steps {
            let before = bits(&model);
            let here = gradients(&model, &here);
            let made = tlr.step_lookahead(&mut model, &here, |ahead| gradients(ahead, &there));
            if made.is_err() {
                prop_assert_eq!(bits(&model), before);
            }
            prop_assert!(weights(&model).iter().all(|w| w.is_finite()));
            prop_assert!(RATES.contains(&tlr.rates()[0].1), "{}", tlr.rates()[0].1);
        }
        Ok(())
    });
}
