//! `Clip`: gradients no longer than a limit, by their norm or element by element.

use super::{config, layers, momentum, sgd, update, Layers, FIRST, LEN};
use dfdx::{
    optim::{Optimizer, OptimizerUpdateError, SgdConfig},
    prelude::*,
};
use proptest::prelude::*;
use support::{
    quadratic::{norm, Quadratic, Random},
    values::{bits, gradients, vector, weights, Vector},
};
use tlr::{
    optim::{Accumulate, Clip},
    Cause, Error, Newton, NewtonConfig, Outcome, PerLayer, TunableOptimizer, Window,
};

/// The gradients that reach a plain optimizer behind `wrap`: minus the weights after one step of
/// rate 1 from 0.
macro_rules! seen {
    ($model:expr, $values:expr, $wrap:expr) => {{
        let mut model = $model;
        let mut opt = $wrap(sgd(&model, 1.0)).unwrap();
        update(&mut opt, &mut model, $values);
        weights(&model).into_iter().map(|w| -w).collect::<Vec<f64>>()
    }};
}

fn random_gradients() -> impl Strategy<Value = Vec<f64>> {
    // A common scale, and elements of their own sizes.
    let element = (-1.0_f64..1.0, -3_i32..3).prop_map(|(v, e)| v * 10.0_f64.powi(e));
    (prop::collection::vec(element, LEN), prop::sample::select(vec![1e-170, 1e-3, 1.0, 1e5, 1e170]))
        .prop_map(|(values, scale)| values.into_iter().map(|v| v * scale).collect())
}

/// |v| where the squares may overflow.
fn safe_norm(v: &[f64]) -> f64 {
    let largest = v.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
    largest * norm(&v.iter().map(|v| v / largest).collect::<Vec<_>>())
}

proptest! {
    /// Against the formula, at limits around the norm. Fails with the largest element in place of
    /// the norm, the norm of one tensor, squares that overflow, or a factor above 1.
    #[test]
    fn clipping_by_norm_is_the_formula(given in random_gradients(), relative in 0.01_f64..2.0) {
        let length = safe_norm(&given);
        prop_assume!(length > 0.0);
        let max = relative * length;
        let clipped = seen!(layers(), &given, |opt| Clip::by_norm(opt, max));
        let factor = (max / length).min(1.0);
        for (clipped, given) in clipped.iter().zip(&given) {
            prop_assert!((clipped - given * factor).abs() <= 1e-14 * given.abs());
            prop_assert!(clipped.abs() <= given.abs());
        }
        prop_assert!(safe_norm(&clipped) <= max.min(length) * (1.0 + 1e-14));
    }

    /// f32, whose elements are rounded: never longer than before, and the limit to their precision.
    #[test]
    fn clipping_by_norm_in_single_precision(seed in any::<u64>(), max in 0.01_f64..4.0) {
        let given: Vec<f64> =
            Random(seed).vector(LEN).into_iter().map(|v| f64::from(v as f32)).collect();
        let clipped = seen!(vector::<LEN, f32>(&[0.0; LEN]), &given, |opt| Clip::by_norm(opt, max));
        for (clipped, given) in clipped.iter().zip(&given) {
            prop_assert!(clipped.abs() <= given.abs());
        }
        prop_assert!(norm(&clipped) <= max.min(norm(&given)) * (1.0 + 1e-7));
        prop_assert!((norm(&clipped) - max.min(norm(&given))).abs() <= 1e-7 * max);
    }

    /// Fails if a negative element is cut to +limit, or if another is touched.
    #[test]
    fn clipping_by_value_is_the_formula(given in random_gradients(), limit in 1e-4_f64..1e4) {
        let clipped = seen!(layers(), &given, |opt| Clip::by_value(opt, limit));
        let expected: Vec<f64> = given.iter().map(|v| v.clamp(-limit, limit)).collect();
        prop_assert_eq!(clipped, expected);
    }

    /// As if it were not there: the same bits as the optimizer alone, zeros and their signs
    /// included.
    #[test]
    fn below_the_limit_nothing_changes(seed in any::<u64>()) {
        let (mut a, mut b, mut c) = (layers(), layers(), layers());
        let mut plain = momentum(&a, 0.1);
        // √9 is the longest that nine elements below 1 can be.
        let mut by_norm = Clip::by_norm(momentum(&b, 0.1), 3.0).unwrap();
        let mut by_value = Clip::by_value(momentum(&c, 0.1), 1.0).unwrap();
        let mut random = Random(seed);
        for step in 0..5 {
            let mut g = random.vector(LEN);
            g[3] = [0.0, -0.0][step % 2];
            update(&mut plain, &mut a, &g);
            update(&mut by_norm, &mut b, &g);
            update(&mut by_value, &mut c, &g);
        }
        prop_assert_eq!(bits(&a), bits(&b));
        prop_assert_eq!(bits(&a), bits(&c));
    }
}

/// By norm they are left as they are, finite ones too; by value infinities have a limit, NaN has
/// none.
#[test]
fn gradients_that_are_not_finite() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut given = vec![3.0; LEN];
        given[4] = bad;
        let as_given = |v: &[f64]| v.iter().map(|v| v.to_bits() << 1).collect::<Vec<_>>();
        let by_norm = seen!(layers(), &given, |opt| Clip::by_norm(opt, 1.0));
        assert_eq!(as_given(&by_norm), as_given(&given));

        let by_value = seen!(layers(), &given, |opt| Clip::by_value(opt, 1.0));
        let expected = if bad.is_nan() { bad } else { bad.signum() };
        assert_eq!(by_value[4].to_bits() << 1, expected.to_bits() << 1);
        assert!(by_value.iter().enumerate().all(|(i, v)| i == 4 || *v == 1.0), "{by_value:?}");
    }
    // Nothing but NaN is no zero either.
    let by_norm = seen!(layers(), &[f64::NAN; LEN], |opt| Clip::by_norm(opt, 1.0));
    assert!(by_norm.iter().all(|v| v.is_nan()));
}

/// The safeguard sees them, and without it the error does.
#[test]
fn newton_sees_gradients_that_are_not_finite() {
    for guarded in [true, false] {
        let mut model: Vector<2> = vector(&[1.0, 2.0]);
        let clip = Clip::by_norm(sgd(&model, 0.1), 1.0).unwrap();
        let config =
            NewtonConfig::default().ramp(false).settle(false).window(Window::steps(1).unwrap());
        let config = if guarded { config } else { config.safeguard(None) };
        let mut opt = Newton::new(&model, clip, config).unwrap();
        let given = gradients(&model, &[f64::NAN, 1.0]);
        let result = opt.step(&mut model, &given, 1.0);
        assert_eq!(weights(&model), [1.0, 2.0]);
        if guarded {
            result.unwrap();
            let cause = Cause::NonFiniteWeights;
            assert_eq!(opt.history()[0].outcome, Outcome::RolledBack(cause));
        } else {
            assert!(matches!(result, Err(Error::NonFiniteWeights { step: 1, .. })), "{result:?}");
        }
    }
}

#[test]
fn figures_out_of_range_are_errors() {
    let sgd = |model: &Vector<2>, lr| sgd::<_, f64>(model, lr);
    let model: Vector<2> = vector(&[0.0; 2]);
    for value in [0.0, -0.0, -1.0, f64::INFINITY, f64::NAN] {
        for (field, result) in [
            ("clip: max_norm", Clip::by_norm(sgd(&model, 0.1), value)),
            ("clip: limit", Clip::by_value(sgd(&model, 0.1), value)),
        ] {
            match result {
                Err(error @ Error::OutOfRange { what, value: found, .. }) => {
                    assert_eq!((what, found.to_bits()), (field, value.to_bits()));
                    let text = error.to_string();
                    assert!(text.contains(field) && text.contains("finite"), "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(Clip::by_norm(sgd(&model, 0.1), f64::MIN_POSITIVE).is_ok());
    let error = Accumulate::new(sgd(&model, 0.1), 0).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("batches that a step gathers must be at least 1"),
        "{error}"
    );
}

/// Around `PerLayer` the norm is the model's, within it each layer's own. Fails if either is the
/// other.
#[test]
fn the_norm_is_over_what_the_optimizer_has() {
    let mut given = vec![0.0; LEN];
    (given[0], given[FIRST], given[FIRST + 1]) = (3.0, 4.0, 12.0);
    let mut model = layers();
    let per_layer = PerLayer::new(&model, sgd(&model, 1.0));
    let mut opt = Clip::by_norm(per_layer, 1.0).unwrap();
    update(&mut opt, &mut model, &given);
    let w = weights(&model);
    assert!((w[0] + 3.0 / 13.0).abs() < 1e-15 && (w[FIRST + 1] + 12.0 / 13.0).abs() < 1e-15);

    let mut model = layers();
    let mut opt = PerLayer::new(&model, Clip::by_norm(sgd(&model, 1.0), 3.5).unwrap());
    update(&mut opt, &mut model, &given);
    let w = weights(&model);
    assert_eq!(w[0], -3.0);
    let factor = 3.5 / 160.0_f64.sqrt();
    assert!(
        (w[FIRST] + 4.0 * factor).abs() < 1e-15 && (w[FIRST + 1] + 12.0 * factor).abs() < 1e-15
    );
}

/// Nothing moves and nothing accumulates, whatever optimizer is behind: dfdx's own would move what
/// it can. Gradients that are there and 0 are not missing.
#[test]
fn a_missing_gradient_stays_missing() {
    fn check<Opt>(model: &Layers, mut opt: Opt)
    where
        Opt: TunableOptimizer<Model = Layers, Dtype = f64, Device = Cpu>,
    {
        let mut model = model.clone(); // the very tensors, until they are moved
        let dev = Cpu::default();
        let x: Tensor<Rank2<4, 2>, f64, _> = dev.ones();
        let part = (model.2.forward(x.leaky_trace()) - 1.0).square().mean().backward();
        let before = bits(&model);
        match opt.update(&mut model, &part) {
            Err(OptimizerUpdateError::UnusedParams(unused)) => assert_eq!(unused.ids.len(), 2),
            other => panic!("{other:?}"),
        }
        assert_eq!(bits(&model), before);
        let zero = gradients(&model, &[0.0; LEN]);
        for _ in 0..2 {
            opt.update(&mut model, &zero).unwrap();
        }
        assert_eq!(weights(&model), [0.0; LEN]); // nothing of the part was left in it

        let mut opt =
            Newton::new(&model, opt, NewtonConfig::default().ramp(false).settle(false)).unwrap();
        match opt.update(&mut model, &part) {
            Err(Error::UnusedParameters { tensors }) => {
                assert_eq!(tensors, ["0.weight", "0.bias"]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(weights(&model), [0.0; LEN]);
    }

    let model = layers();
    let theirs = || dfdx::optim::Sgd::new(&model, SgdConfig { lr: 0.1, ..Default::default() });
    check(&model, Clip::by_norm(theirs(), 1.0).unwrap());
    check(&model, Clip::by_value(sgd(&model, 0.1), 1.0).unwrap());
    check(&model, Accumulate::new(theirs(), 1).unwrap());
    check(&model, Accumulate::new(momentum(&model, 0.1), 2).unwrap());
    check(
        &model,
        Accumulate::new(Clip::by_norm(PerLayer::new(&model, theirs()), 1.0).unwrap(), 2).unwrap(),
    );
}

/// What clipping does to a learned rate, as documented. From gradients of norm 1000 on a quadratic
/// whose curvatures are 0.1 to 5, by windows of 5 steps: rate and norm after 20 steps, and the loss
/// above its minimum after 200.
fn learned(max_norm: Option<f64>) -> (f64, f64, f64, Vec<u64>) {
    fn train<Opt>(opt: Opt, model: &mut Vector<9>, quadratic: &Quadratic) -> (f64, f64)
    where
        Opt: TunableOptimizer<Model = Vector<9>, Dtype = f64, Device = Cpu>
            + Optimizer<Vector<9>, Cpu, f64>,
    {
        let mut opt = Newton::new(&*model, opt, config(5)).unwrap();
        let mut early = (f64::NAN, f64::NAN);
        for step in 0..200 {
            let w = weights(model);
            let gradient = quadratic.gradient(&w);
            if step == 20 {
                early = (opt.rates()[0].1, norm(&gradient));
            }
            let here = gradients(&*model, &gradient);
            opt.step(model, &here, quadratic.loss(&w)).unwrap();
        }
        early
    }

    let mut random = Random(5);
    let spectrum = [0.1, 0.2, 0.5, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    let quadratic = Quadratic { linear: vec![0.0; 9], ..Quadratic::random(&spectrum, &mut random) };
    let start = random.vector(9);
    let scale = 1e3 / norm(&quadratic.gradient(&start));
    let mut model: Vector<9> = vector(&start.iter().map(|w| scale * w).collect::<Vec<_>>());
    let plain = sgd(&model, 1e-3);
    let (rate, length) = match max_norm {
        Some(max) => train(Clip::by_norm(plain, max).unwrap(), &mut model, &quadratic),
        None => train(plain, &mut model, &quadratic),
    };
    (rate, length, quadratic.loss(&weights(&model)), bits(&model))
}

/// A low limit inflates the rate in proportion and leaves the end far from the minimum; one that is
/// never reached changes no bit. Fails if the rate that is learned is made to be of the gradients
/// before they are clipped.
#[test]
fn a_low_limit_inflates_the_learned_rate() {
    let (rate, _, loss, end) = learned(None);
    assert!((0.09..0.1).contains(&rate) && loss < 1e-4, "{rate} {loss}");
    let above = learned(Some(1000.1));
    assert_eq!((above.0.to_bits(), above.3), (rate.to_bits(), end));

    let (hundred, length, loss, _) = learned(Some(100.0));
    assert!((1.8..1.9).contains(&hundred) && length > 500.0 && loss < 1e-3, "{hundred} {loss}");
    let (one, length, loss, _) = learned(Some(1.0));
    assert!((one / hundred - 100.0).abs() < 1.0 && length > 800.0, "{one} {length}");
    assert!(one / rate > length && loss > 1.0, "{one} {loss}");
}
