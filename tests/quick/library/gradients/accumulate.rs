//! `Accumulate`: several batches make one step, which is that of one large batch.

use super::{config, gathering, layers, momentum, sgd, update, Batches, Layers, BATCHES, LEN};
use dfdx::{
    optim::{AdamConfig, SgdConfig},
    prelude::*,
};
use support::{
    quadratic::Random,
    values::{bits, gradients, vector, weights, Vector},
};
use tlr::{
    optim::{Accumulate, Adam, Clip, GatherBatches, Resumable, Sgd},
    parallel::{Alone, Ranks},
    DataParallel, Error, Newton, PerLayer, TunableOptimizer,
};

/// Three batches a step against one step on their mean: the same weights to the bit, and none in
/// between. Fails with the sum in place of the mean, a batch left out or used twice, or the
/// optimizer stepped in between.
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

/// The rows of a batch at once, or in four parts: to the bit on whole numbers, where halves and
/// quarters of their sums are exact, also in f32; within 1e-12 over 30 steps otherwise. And the
/// first step is the closed form's.
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

/// The mean is rounded once, from sums in f64: 1 + 2⁻²⁴ + 2⁻²⁴ in f32 loses both halves if it is
/// summed there.
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

/// Eight rows in batches of four, two, one and one, each weighed by its rows, are the eight at
/// once: to the bit on whole numbers. Fails if a weight is left out, of the sum or of the total, or
/// is used for another batch.
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
            // The weight of a batch that is told none.
            (1.0, least_squares!(f64, 1, small, &x[18..21], &y[6..7])),
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
    for bad in [0.0, -1.0, 1.1e100, f64::MAX, f64::NAN, f64::INFINITY] {
        assert!(matches!(accumulate.weigh_next(bad), Err(Error::OutOfRange { .. })));
    }
}

/// Fails if the weights that are allowed add up to infinity: the saved state would be refused.
#[test]
fn the_heaviest_batches_can_be_saved() {
    let mut model: Vector<1> = vector(&[0.0]);
    let sgd = Sgd::new(&model, SgdConfig { lr: 1.0, ..Default::default() });
    let mut accumulate = Accumulate::new(sgd, 4).unwrap();
    for _ in 0..3 {
        if accumulate.weigh_next(f64::MAX).is_err() {
            accumulate.weigh_next(1e100).unwrap();
        }
        let here = gradients(&model, &[2.0]);
        accumulate.update(&mut model, &here).unwrap();
    }
    let saved = accumulate.state(&model).unwrap();
    accumulate.restore(&mut model, &saved).unwrap();
    accumulate.weigh_next(1e100).unwrap();
    let here = gradients(&model, &[6.0]);
    accumulate.update(&mut model, &here).unwrap();
    assert_eq!(weights(&model), [-3.0]);
}

/// An epoch of seven batches in steps of three: the last step has one, and the next epoch's first
/// has three again. Fails if the last batch waits for others, if its mean is over three, if the
/// word is kept for a later batch, or if an optimizer around does not hand it on.
#[test]
fn an_epoch_ends_with_the_batches_that_are_left() {
    fn check<Opt>(model: &Vector<1>, optimizer: Opt)
    where
        Opt: TunableOptimizer<Model = Vector<1>, Dtype = f64, Device = Cpu> + GatherBatches,
    {
        let mut model = model.clone();
        let mut opt = Newton::new(&model, optimizer, config(100)).unwrap();
        let mut seen = Vec::new();
        for epoch in 0..2 {
            for batch in 0..7 {
                if batch == 6 {
                    opt.complete_with_next();
                }
                let before = weights(&model)[0];
                let g = gradients(&model, &[[1.0, 2.0, 6.0, 4.0, 4.0, 7.0, 10.0][batch]]);
                let made = opt.step(&mut model, &g, 1.0).unwrap() == tlr::Step::Made;
                assert_eq!(made, batch % 3 == 2 || batch == 6, "{epoch} {batch}");
                seen.push(before - weights(&model)[0]);
            }
        }
        let epoch = [0.0, 0.0, 3.0, 0.0, 0.0, 5.0, 10.0];
        assert_eq!(seen, [epoch, epoch].concat());
        assert_eq!(opt.steps(), 6);
        assert!(opt.optimizer().only_gathers());
    }
    let model: Vector<1> = vector(&[0.0]);
    let accumulate = || Accumulate::new(sgd(&model, 1.0), 3).unwrap();
    let parallel = || DataParallel::new(accumulate(), Ranks::new(Alone));
    check(&model, accumulate());
    check(&model, Clip::by_norm(accumulate(), 100.0).unwrap());
    check(&model, parallel());
    check(&model, Clip::by_value(parallel(), 100.0).unwrap());
}

/// What is told of a batch holds for the one that takes its place if its loss is not a number, and
/// goes with its step if that is undone. Fails if either is the other.
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
    // (4 + 3·8)/4
    assert_eq!(feed(&mut model, false, 8.0, 1.0), (1.0 - 0.25 * 7.0, 1, 0));
    // Two in a row: the window is undone, and the next step is of two batches that weigh 1.
    assert_eq!(feed(&mut model, true, 100.0, nan).1, 2);
    assert_eq!(feed(&mut model, false, 100.0, nan), (1.0, 3, 0));
    let rate = 0.25 * 0.1;
    assert_eq!(feed(&mut model, false, 10.0, 1.0), (1.0, 3, 1));
    assert_eq!(feed(&mut model, false, 20.0, 1.0), (1.0 - rate * 15.0, 4, 0));
}
