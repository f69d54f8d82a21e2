//! What is done to gradients before an optimizer sees them: `Clip` and `Accumulate`, alone and under learned rates.

use dfdx::{
    optim::{AdamConfig, Momentum, Optimizer, OptimizerUpdateError, SgdConfig},
    prelude::*,
};
use proptest::prelude::*;
use support::{
    quadratic::{dot, norm, Quadratic, Random},
    values::{bits, gradients, set_weights, values, vector, weights, Vector},
};
use tlr::{
    optim::{Accumulate, Adam, Clip, Sgd},
    Adaptation, Backend, Cause, Error, Newton, NewtonConfig, Outcome, PerLayer, Safeguard,
    TunableOptimizer, Window,
};

type Layers = <(Linear<2, 2>, Tanh, Linear<2, 1>) as BuildOnDevice<Cpu, f64>>::Built;

/// All weights are 0.
fn layers() -> Layers {
    let mut model = Cpu::default().build_module::<(Linear<2, 2>, Tanh, Linear<2, 1>), f64>();
    set_weights(&mut model, &[0.0; LEN]);
    model
}

/// Weights of [`Layers`], the first six of them in the first layer.
const LEN: usize = 9;
const FIRST: usize = 6;

fn sgd<M, E: Dtype>(model: &M, lr: f64) -> Sgd<M, E, Cpu>
where
    Cpu: Backend<E>,
{
    Sgd::new(model, SgdConfig { lr, ..Default::default() })
}

fn momentum<M>(model: &M, lr: f64) -> Sgd<M, f64, Cpu> {
    let momentum = Some(Momentum::Classic(0.9));
    Sgd::new(model, SgdConfig { lr, momentum, weight_decay: None })
}

fn update<Opt>(opt: &mut Opt, model: &mut Opt::Model, g: &[f64])
where
    Opt: TunableOptimizer,
{
    let here = gradients(&*model, g);
    if let Err(error) = opt.update(model, &here) {
        panic!("{error:?}");
    }
}

/// The gradients that reach a plain optimizer behind `wrap`: minus the weights after one step of rate 1 from 0.
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

// ---- Clip ----

proptest! {
    /// Against the formula, at limits around the norm. Fails with the largest element in place of the norm, the norm of
    /// one tensor, squares that overflow, or a factor above 1.
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

    /// As if it were not there: the same bits as the optimizer alone, zeros and their signs included.
    #[test]
    fn below_the_limit_nothing_changes(seed in any::<u64>()) {
        let (mut a, mut b, mut c) = (layers(), layers(), layers());
        let mut plain = momentum(&a, 0.1);
        let mut by_norm = Clip::by_norm(momentum(&b, 0.1), 3.0).unwrap(); // = √9, the longest there can be
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

/// By norm they are left as they are, finite ones too; by value infinities have a limit, NaN has none.
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

/// Around `PerLayer` the norm is the model's, within it each layer's own. Fails if either is the other.
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

/// Nothing moves and nothing accumulates, whatever optimizer is behind: dfdx's own would move what it can. Gradients
/// that are there and 0 are not missing.
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

// ---- Accumulate ----

const BATCHES: usize = 3;

/// Gradients and losses of three batches of a quadratic, whose means are those of all: with noise of its own each.
struct Batches {
    quadratic: Quadratic,
    random: Random,
    noise: f64,
}

/// A gradient and a loss.
type Batch = (Vec<f64>, f64);

impl Batches {
    fn new(noise: f64) -> Self {
        let mut random = Random(5);
        let spectrum = [0.1, 0.2, 0.5, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        Self { quadratic: Quadratic::random(&spectrum, &mut random), random, noise }
    }

    /// At w: of each batch, and their means, summed in order.
    fn at(&mut self, w: &[f64]) -> (Vec<Batch>, Batch) {
        let (gradient, loss) = (self.quadratic.gradient(w), self.quadratic.loss(w));
        let batches: Vec<_> = (0..BATCHES)
            .map(|_| {
                let tilt: Vec<f64> =
                    self.random.vector(w.len()).iter().map(|v| self.noise * v).collect();
                let tilted: Vec<f64> = gradient.iter().zip(&tilt).map(|(g, t)| g + t).collect();
                (tilted, loss + dot(&tilt, w))
            })
            .collect();
        let sum = batches[1..].iter().fold(batches[0].clone(), |(sum, total), (g, loss)| {
            (sum.iter().zip(g).map(|(s, g)| s + g).collect(), total + loss)
        });
        let n = BATCHES as f64;
        (batches, (sum.0.iter().map(|s| s / n).collect(), sum.1 / n))
    }
}

/// Three batches a step against one step on their mean: the same weights to the bit, and none in between. Fails with
/// the sum in place of the mean, a batch left out or used twice, or the optimizer stepped in between.
#[test]
fn a_step_is_the_mean_of_its_batches() {
    fn check<Opt>(new: impl Fn(&Layers) -> Opt)
    where
        Opt: TunableOptimizer<Model = Layers, Dtype = f64, Device = Cpu>,
    {
        let (mut large, mut small) = (layers(), layers());
        let mut plain = new(&large);
        let mut accumulate = Accumulate::new(new(&small), BATCHES).unwrap();
        let mut batches = Batches::new(0.3);
        for _ in 0..20 {
            let (parts, (mean, _)) = batches.at(&weights(&large));
            update(&mut plain, &mut large, &mean);
            for (index, (part, _)) in parts.iter().enumerate() {
                assert_ne!(bits(&small), bits(&large));
                assert_eq!(accumulate.gathered(), index);
                assert_eq!(accumulate.only_gathers(), index + 1 < BATCHES);
                update(&mut accumulate, &mut small, part);
            }
            assert_eq!(bits(&small), bits(&large));
        }
    }
    check(|model| sgd(model, 0.1));
    check(|model| momentum(model, 0.03));
    check(|model| dfdx::optim::Sgd::new(model, SgdConfig { lr: 0.1, ..Default::default() }));
    check(|model| Adam::new(model, AdamConfig { lr: 0.05, ..Default::default() }));
    check(|model| PerLayer::new(model, momentum(model, 0.03)));
    check(|model| Clip::by_norm(sgd(model, 0.1), 0.5).unwrap());
}

/// One batch a step is the optimizer itself, to the bit.
#[test]
fn one_batch_a_step_changes_nothing() {
    let (mut a, mut b) = (layers(), layers());
    let mut plain = momentum(&a, 0.1);
    let mut accumulate = Accumulate::new(momentum(&b, 0.1), 1).unwrap();
    let mut random = Random(3);
    for step in 0..10 {
        let mut g = random.vector(LEN);
        g[2] = [0.0, -0.0][step % 2];
        assert!(!accumulate.only_gathers());
        update(&mut plain, &mut a, &g);
        update(&mut accumulate, &mut b, &g);
        assert_eq!(bits(&a), bits(&b));
    }
}

/// The gradients of mean((Xw − y)²) by dfdx, over the rows of X.
macro_rules! least_squares {
    ($E:ty, $rows:literal, $w:expr, $x:expr, $y:expr) => {{
        let dev = Cpu::default();
        let cast = |values: &[f64]| values.iter().map(|v| *v as $E).collect::<Vec<$E>>();
        let x: Tensor<Rank2<$rows, 3>, $E, _> = dev.tensor(cast($x));
        let y: Tensor<Rank1<$rows>, $E, _> = dev.tensor(cast($y));
        let w = $w.leaky_trace().broadcast::<Rank2<$rows, 3>, _>();
        ((w * x).sum::<Rank1<$rows>, Axis<1>>() - y).square().mean().backward()
    }};
}

/// The rows of a batch at once, or in four parts: to the bit on whole numbers, where halves and quarters of their sums
/// are exact, also in f32; within 1e-12 over 30 steps otherwise. And the first step is the closed form's.
#[test]
fn parts_of_a_batch_make_the_batch() {
    macro_rules! check {
        ($E:ty, $steps:expr, $tolerance:expr, $draw:expr, $opt:expr) => {{
            let mut random = Random(11);
            let (mut large, mut small): (Vector<3, $E>, Vector<3, $E>) =
                (vector(&[0.0; 3]), vector(&[0.0; 3]));
            let mut plain = $opt(&large);
            let mut accumulate = Accumulate::new($opt(&small), 4).unwrap();
            for step in 0..$steps {
                let x: Vec<f64> = random.vector(24).into_iter().map($draw).collect();
                let y: Vec<f64> = random.vector(8).into_iter().map($draw).collect();
                let whole = least_squares!($E, 8, large, &x, &y);
                plain.update(&mut large, &whole).unwrap();
                for (x, y) in x.chunks(6).zip(y.chunks(2)) {
                    let part = least_squares!($E, 2, small, x, y);
                    accumulate.update(&mut small, &part).unwrap();
                }
                for (a, b) in weights(&small).iter().zip(weights(&large)) {
                    assert!((a - b).abs() <= $tolerance, "step {step}: {a} {b}");
                }
                if step == 0 {
                    // −½·∇ at 0 is Xᵀy/8.
                    for (column, w) in weights(&small).iter().enumerate() {
                        let xy: f64 = (0..8).map(|row| x[3 * row + column] * y[row]).sum();
                        assert!((w - xy / 8.0).abs() <= $tolerance, "{w} {xy}");
                    }
                }
            }
            assert_ne!(weights(&large), [0.0; 3]);
        }};
    }
    let whole = |v: f64| (3.0 * v).round();
    check!(f64, 3, 0.0, whole, |model| sgd(model, 0.5));
    check!(f32, 1, 0.0, whole, |model| sgd(model, 0.5));
    check!(f64, 30, 1e-12, |v| v, |model| sgd(model, 0.5));
}

/// The mean is rounded once, from sums in f64: 1 + 2⁻²⁴ + 2⁻²⁴ in f32 loses both halves if it is summed there.
#[test]
fn sums_are_exact_in_single_precision() {
    let half_a_unit = 2.0_f64.powi(-24);
    let mut model: Vector<1, f32> = vector(&[0.0]);
    let mut opt = Accumulate::new(sgd(&model, 1.0), 4).unwrap();
    for g in [1.0, half_a_unit, half_a_unit, 0.0] {
        update(&mut opt, &mut model, &[g]);
    }
    assert_eq!(weights(&model), [-(1.0 + 2.0 * half_a_unit) / 4.0]);
}

/// Eight rows in batches of four, two, one and one, each weighed by its rows, are the eight at once: to the bit on whole
/// numbers. Fails if a weight is left out, of the sum or of the total, or is used for another batch.
#[test]
fn unequal_batches_are_weighed() {
    let mut random = Random(11);
    let (mut large, mut small): (Vector<3>, Vector<3>) = (vector(&[0.0; 3]), vector(&[0.0; 3]));
    let mut plain = sgd(&large, 0.5);
    let mut accumulate = Accumulate::new(sgd(&small, 0.5), 4).unwrap();
    for _ in 0..3 {
        let whole = |v: f64| (3.0 * v).round();
        let x: Vec<f64> = random.vector(24).into_iter().map(whole).collect();
        let y: Vec<f64> = random.vector(8).into_iter().map(whole).collect();
        let all = least_squares!(f64, 8, large, &x, &y);
        plain.update(&mut large, &all).unwrap();
        let parts = [
            (4.0, least_squares!(f64, 4, small, &x[..12], &y[..4])),
            (2.0, least_squares!(f64, 2, small, &x[12..18], &y[4..6])),
            (1.0, least_squares!(f64, 1, small, &x[18..21], &y[6..7])), // the weight of who tells none
            (1.0, least_squares!(f64, 1, small, &x[21..], &y[7..])),
        ];
        for (rows, part) in parts {
            if rows > 1.0 {
                accumulate.weigh_next(rows).unwrap();
            }
            accumulate.update(&mut small, &part).unwrap();
        }
        assert_eq!(bits(&small), bits(&large));
    }
    assert_ne!(weights(&large), [0.0; 3]);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(accumulate.weigh_next(bad), Err(Error::OutOfRange { .. })));
    }
}

/// An epoch of seven batches in steps of three: the last step has one, and the next epoch's first has three again.
/// Fails if the last batch waits for others, if its mean is over three, or if the word is kept for a later batch.
#[test]
fn an_epoch_ends_with_the_batches_that_are_left() {
    let mut model: Vector<1> = vector(&[0.0]);
    let accumulate = Accumulate::new(sgd(&model, 1.0), 3).unwrap();
    let mut opt = Newton::new(&model, accumulate, config(100)).unwrap();
    let mut seen = Vec::new();
    for epoch in 0..2 {
        for batch in 0..7 {
            if batch == 6 {
                opt.complete_with_next();
            }
            let before = weights(&model)[0];
            let g = gradients(&model, &[[1.0, 2.0, 6.0, 4.0, 4.0, 7.0, 10.0][batch]]);
            let step = opt.step(&mut model, &g, 1.0).unwrap();
            assert_eq!(step == tlr::Step::Made, batch % 3 == 2 || batch == 6, "{epoch} {batch}");
            seen.push(before - weights(&model)[0]);
        }
    }
    let epoch = [0.0, 0.0, 3.0, 0.0, 0.0, 5.0, 10.0];
    assert_eq!(seen, [epoch, epoch].concat());
    assert_eq!((opt.steps(), opt.optimizer().gathered()), (6, 0));
}

/// What is told of a batch holds for the one that takes its place if its loss is not a number, and goes with its step if
/// that is undone. Fails if either is the other.
#[test]
fn what_is_told_of_a_batch_goes_with_it() {
    let (mut model, mut opt) = gathering(4);
    let mut feed = |model: &mut Vector<2>, told: bool, g: f64, loss: f64| {
        if told {
            opt.weigh_next(3.0).unwrap();
            opt.complete_with_next();
        }
        let here = gradients(model, &[g, 0.0]);
        opt.step(model, &here, loss).unwrap();
        (weights(model)[0], opt.steps(), opt.optimizer().gathered())
    };
    let nan = f64::NAN;
    assert_eq!(feed(&mut model, false, 4.0, 1.0), (1.0, 0, 1));
    assert_eq!(feed(&mut model, true, 100.0, nan), (1.0, 0, 1));
    assert_eq!(feed(&mut model, false, 8.0, 1.0), (1.0 - 0.25 * 7.0, 1, 0)); // (4 + 3·8)/4
                                                                             // Two in a row: the window is undone, and the next step is of two batches that weigh 1.
    assert_eq!(feed(&mut model, true, 100.0, nan).1, 2);
    assert_eq!(feed(&mut model, false, 100.0, nan), (1.0, 3, 0));
    let rate = 0.25 * 0.1;
    assert_eq!(feed(&mut model, false, 10.0, 1.0), (1.0, 3, 1));
    assert_eq!(feed(&mut model, false, 20.0, 1.0), (1.0 - rate * 15.0, 4, 0));
}

fn config(window: usize) -> NewtonConfig {
    NewtonConfig::default().ramp(false).settle(false).window(Window::steps(window).unwrap())
}

/// What is to be the same, steps and losses included.
fn story(history: &[Adaptation]) -> Vec<(u64, String, u64, u64, Outcome)> {
    let bits = |a: &Adaptation| (a.from.to_bits(), a.to.to_bits());
    history.iter().map(|a| (a.step, a.layer.to_string(), bits(a).0, bits(a).1, a.outcome)).collect()
}

/// Newton around it learns what it learns on the large batches: the same weights, rates and decisions to the bit, at
/// the same steps, from rates far too small and far too large (with rollbacks). Fails if a gathered batch counts in
/// windows or steps, is judged by its own loss, or survives a rollback.
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

type Pairs = Accumulate<Sgd<Vector<2>, f64, Cpu>>;

fn gathering(window: usize) -> (Vector<2>, Newton<Pairs>) {
    let model = vector(&[1.0, 2.0]);
    let accumulate = Accumulate::new(sgd(&model, 0.25), 2).unwrap();
    let opt = Newton::new(&model, accumulate, config(window)).unwrap();
    (model, opt)
}

/// A broken batch is left out and another takes its place; the second in a row undoes the window, and the batch that
/// was gathered before them is gone.
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

/// A step is judged by the mean of its losses, so that of an undone step must not be left in the next one's.
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

/// A batch without all gradients is not gathered; those before it stay, and another takes its place.
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

/// The exact form gathers as well, and decides at the last batch of a step; so does the line search.
#[test]
fn exact_steps_gather_first() {
    let quadratic = |w: &mut Vector<2>| (w.leaky_trace().square() * 2.0).sum();
    for search in [false, true] {
        let mut model: Vector<2> = vector(&[3.0, -1.0]);
        let accumulate = Accumulate::new(sgd(&model, 0.01), 2).unwrap();
        let newton = NewtonConfig::default().ramp(false).settle(false).damping(1.0);
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

/// What clipping does to a learned rate, as documented. From gradients of norm 1000 on a quadratic whose curvatures are
/// 0.1 to 5, by windows of 5 steps: rate and norm after 20 steps, and the loss above its minimum after 200.
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

/// A low limit inflates the rate in proportion and leaves the end far from the minimum; one that is never reached
/// changes no bit. Fails if the rate that is learned is made to be of the gradients before they are clipped.
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
