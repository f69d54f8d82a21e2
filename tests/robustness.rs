//! From any rate, on known problems and on bad streams of batches: what the safeguard is for.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use dfdx::{optim::*, prelude::*};
use std::ops::RangeInclusive;
use support::{
    quadratic::{dot, Quadratic, Random},
    values::{gradients, vector, weights, Vector},
};
use tlr::{Cause, Error, Newton, NewtonConfig, Outcome, TunableOptimizer, Window};

/// The loss at a vector of weights and its gradient.
type Problem<'a> = &'a dyn Fn(&[f64]) -> (f64, Vec<f64>);

/// Starting rates, as powers of ten.
const DECADES: RangeInclusive<i32> = -9..=3;

fn sgd<M>(model: &M, lr: f64, momentum: Option<Momentum>) -> Sgd<M, f64, Cpu> {
    Sgd::new(model, SgdConfig { lr, momentum, weight_decay: None })
}

/// Full batches, windows of `window` steps: the first loss after `steps` that is not above the mean
/// of the last accepted window. (What a step did is seen by the loss after it, and a window has
/// time to make up for a spike, so a run does not end on just any step.)
fn train<const N: usize, Opt>(
    problem: Problem<'_>,
    start: &Vector<N>,
    optimizer: Opt,
    window: usize,
    steps: u64,
) -> f64
where
    Opt: TunableOptimizer<Model = Vector<N>, Dtype = f64, Device = Cpu>
        + Optimizer<Vector<N>, Cpu, f64>,
{
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(window).unwrap());
    let mut model = start.clone();
    let mut newton = Newton::new(&model, optimizer, config).unwrap();
    let (mut losses, mut accepted) = (Vec::new(), f64::INFINITY);
    loop {
        let (loss, gradient) = problem(&weights(&model));
        if newton.steps() >= steps && loss <= accepted {
            return loss;
        }
        assert!(newton.steps() < 2 * steps, "from {:e}: {loss}", newton.history()[0].from);
        let here = gradients(&model, &gradient);
        newton.step(&mut model, &here, loss).unwrap();
        assert!(weights(&model).iter().all(|w| w.is_finite()));
        losses.push(loss);
        let last = newton.history().last().filter(|last| last.step == newton.steps());
        match last.map(|last| last.outcome) {
            Some(Outcome::RolledBack(_)) => losses.clear(),
            Some(_) => {
                accepted = losses.drain(..).sum::<f64>() / window as f64;
            }
            None => (),
        }
    }
}

/// Every starting rate, plain, with momentum, and around Adam: the worst loss of each, none of them
/// above the first.
fn worst<const N: usize>(
    problem: Problem<'_>,
    start: &Vector<N>,
    window: usize,
    steps: u64,
) -> [f64; 3] {
    let first = problem(&weights(start)).0;
    let mut worst = [f64::NEG_INFINITY; 3];
    for decade in DECADES {
        let lr = 10.0_f64.powi(decade);
        let momentum = Some(Momentum::Classic(0.9));
        let adam = Adam::new(start, AdamConfig { lr, ..Default::default() });
        let last = [
            train(problem, start, sgd(start, lr, None), window, steps),
            train(problem, start, sgd(start, lr, momentum), window, steps),
            train(problem, start, adam, window, steps),
        ];
        for (worst, last) in worst.iter_mut().zip(last) {
            assert!(last <= first, "from {lr:e}: {last} above {first}");
            *worst = last.max(*worst);
        }
    }
    worst
}

/// ½wᵀHw with eigenvalues from 1 to `condition`, log-uniform.
fn bowl(n: usize, condition: f64, random: &mut Random) -> Quadratic {
    let spectrum: Vec<f64> = (0..n).map(|i| condition.powf(i as f64 / (n - 1) as f64)).collect();
    let mut bowl = Quadratic::random(&spectrum, random);
    bowl.linear.fill(0.0);
    bowl
}

fn bowls<const N: usize>(windows: [usize; 2]) {
    let random = &mut Random(5);
    for condition in [1.0, 10.0, 100.0, 1e3, 1e4] {
        let bowl = bowl(N, condition, random);
        let start: Vector<N> = vector(&random.vector(N));
        let problem = |w: &[f64]| (bowl.loss(w), bowl.gradient(w));
        let first = bowl.loss(&weights(&start));
        for window in windows {
            let [plain, momentum, _] = worst(&problem, &start, window, 2000);
            let [plain, momentum] = [plain / first, momentum / first];
            assert!(momentum <= 1e-3, "n = {N}, condition {condition}, K = {window}: {momentum}");
            // Windows of two steps are too short to be judged and too long for Barzilai and
            // Borwein's own steps: they may be undone for ever.
            let far = if window == 2 { 1.0 } else { 1e-3 };
            assert!(plain <= far, "n = {N}, condition {condition}, K = {window}: {plain}");
        }
    }
}

// Thirteen decades of rates, four windows, three base optimizers: never a weight that is not
// finite, never worse than at the start, and plain or with momentum within 1e-3 of the minimum
// (relative to the start) after 2,000 steps, where gradient descent at its best fixed rate needs
// some `condition` steps. Fails without the safeguard from 1 upwards, and for K = 2 if a doubtful
// snapshot is gone back to: the loss then grows beyond 1e80.
#[test]
fn convex_quadratics() {
    convex([5, 10]);
}

// Apart, so that they run beside the others.
#[test]
fn convex_quadratics_in_short_windows() {
    convex([1, 2]);
}

fn convex(windows: [usize; 2]) {
    bowls::<2>(windows);
    bowls::<10>(windows);
    bowls::<100>(windows);
}

/// Mean of ln(1 + exp(−y·⟨x,w⟩)) over 32 random x, labelled by their first coordinate, plus
/// 0.05·|w|².
fn logistic(w: &[f64]) -> (f64, Vec<f64>) {
    let random = &mut Random(3);
    let mut loss = 0.05 * dot(w, w);
    let mut gradient: Vec<f64> = w.iter().map(|w| 0.1 * w).collect();
    for _ in 0..32 {
        let x = random.vector(w.len());
        let margin = x[0].signum() * dot(&x, w);
        // ln(1 + e⁻ᵐ) without overflow.
        loss += ((-margin).max(0.0) + (-margin.abs()).exp().ln_1p()) / 32.0;
        let weight = -x[0].signum() / (1.0 + margin.exp());
        gradient.iter_mut().zip(x).for_each(|(g, x)| *g += weight * x / 32.0);
    }
    (loss, gradient)
}

// As above; the minimum is where a thousand steps at a rate of 1 get to.
#[test]
fn logistic_regression() {
    let start: Vector<5> = vector(&Random(5).vector(5));
    let mut w = weights(&start);
    for _ in 0..1000 {
        let gradient = logistic(&w).1;
        w.iter_mut().zip(gradient).for_each(|(w, g)| *w -= g);
    }
    let (first, least) = (logistic(&weights(&start)).0, logistic(&w).0);
    for window in [1, 5] {
        let [plain, momentum, _] = worst(&logistic, &start, window, 500);
        let [plain, momentum] = [plain, momentum].map(|last| (last - least) / (first - least));
        // (0.05 without blame.)
        assert!(plain <= 1e-3 && momentum <= 0.07, "K = {window}: {plain} {momentum}");
    }
}

fn rosenbrock(w: &[f64]) -> (f64, Vec<f64>) {
    let (x, y) = (w[0], w[1]);
    let off = y - x * x;
    let gradient = vec![-2.0 * (1.0 - x) - 400.0 * x * off, 200.0 * off];
    ((1.0 - x).powi(2) + 100.0 * off * off, gradient)
}

// Not convex: from 24.2 at (−1.2, 1) to below 0.05 within 2,000 steps, or 0.06 in windows of one
// (0.002 if a rate may grow a hundredfold, and one that was undone may be tried again at once);
// with momentum in windows of five at least down to the valley.
#[test]
fn rosenbrock_valley() {
    let start: Vector<2> = vector(&[-1.2, 1.0]);
    for window in [1, 5] {
        let [plain, momentum, _] = worst(&rosenbrock, &start, window, 2000);
        let [most, valley] = if window == 1 { [0.06, 0.05] } else { [0.05, 5.0] };
        assert!(plain < most && momentum < valley, "K = {window}: {plain} {momentum}");
    }
}

// ---- Bad streams ----

/// A batch of four of the examples of [`logistic`] regression in ten dimensions; class by the sign
/// of a coordinate.
fn batch(w: &[f64], coordinate: usize, random: &mut Random) -> (f64, Vec<f64>) {
    let (mut loss, mut gradient) = (0.0, vec![0.0; w.len()]);
    for _ in 0..4 {
        let x = random.vector(w.len());
        let margin = x[coordinate].signum() * dot(&x, w);
        loss += ((-margin).max(0.0) + (-margin.abs()).exp().ln_1p()) / 4.0;
        let weight = -x[coordinate].signum() / (1.0 + margin.exp());
        gradient.iter_mut().zip(x).for_each(|(g, x)| *g += weight * x / 4.0);
    }
    (loss, gradient)
}

/// The loss over many batches.
fn mean_loss(w: &[f64], coordinate: usize) -> f64 {
    let random = &mut Random(77);
    (0..200).map(|_| batch(w, coordinate, random).0).sum::<f64>() / 200.0
}

type Stream = Newton<Sgd<Vector<10>, f64, Cpu>>;

/// 2,000 batches, each through `spoil`, in windows of 20 from a rate of 1e-3: the weights, and how
/// it ended.
fn stream(
    mut spoil: impl FnMut(u64, &[f64], &mut Random) -> (f64, Vec<f64>),
) -> (Vec<f64>, Stream, Result<(), Error>) {
    let random = &mut Random(11);
    let mut model: Vector<10> = vector(&[0.0; 10]);
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(20).unwrap());
    let mut newton = Newton::new(&model, sgd(&model, 1e-3, None), config).unwrap();
    for step in 0..2000 {
        let (loss, gradient) = spoil(step, &weights(&model), random);
        let here = gradients(&model, &gradient);
        let result = newton.step(&mut model, &here, loss);
        assert!(weights(&model).iter().all(|w| w.is_finite()));
        if result.is_err() {
            return (weights(&model), newton, result.map(drop));
        }
    }
    (weights(&model), newton, Ok(()))
}

/// What an undisturbed stream comes to, from 0.69.
fn undisturbed() -> f64 {
    let (w, _, result) = stream(|_, w, random| batch(w, 0, random));
    result.unwrap();
    let loss = mean_loss(&w, 0);
    assert!(loss < 0.2, "{loss}");
    loss
}

// One batch in a hundred is NaN: as good as without, within a tenth. Fails if such a batch is
// trained on, or if a single one undoes its window: the loss is then twice as high.
#[test]
fn batches_that_are_not_numbers() {
    let (w, newton, result) = stream(|step, w, random| match step % 97 {
        13 => (f64::NAN, vec![f64::NAN; w.len()]),
        _ => batch(w, 0, random),
    });
    result.unwrap();
    let loss = mean_loss(&w, 0);
    assert!(loss < 1.1 * undisturbed(), "{loss}");
    let cause = Outcome::RolledBack(Cause::NonFiniteLoss);
    assert!(newton.history().iter().all(|last| last.outcome != cause));
}

// Too many of them: a typed error, and the weights of the last good snapshot.
#[test]
fn nothing_but_bad_batches() {
    let mut at_failure = Vec::new();
    let (w, _, result) = stream(|step, w, random| {
        if step < 1000 {
            return batch(w, 0, random);
        }
        at_failure = w.to_vec();
        (f64::NAN, vec![1.0; w.len()])
    });
    assert!(matches!(result, Err(Error::TooManyRollbacks { count: 20, .. })), "{result:?}");
    assert_eq!(w, at_failure);
    assert!(mean_loss(&w, 0) < 0.3);
}

// Ten batches in a row with a thousand times the loss and the gradient.
#[test]
fn a_loss_that_jumps() {
    let (w, _, result) = stream(|step, w, random| {
        let (loss, mut gradient) = batch(w, 0, random);
        let factor = if (1005..1015).contains(&step) { 1e3 } else { 1.0 };
        gradient.iter_mut().for_each(|g| *g *= factor);
        (factor * loss, gradient)
    });
    result.unwrap();
    let loss = mean_loss(&w, 0);
    assert!(loss < 1.1 * undisturbed(), "{loss}");
}

// Half-way the labels become those of another task. Either it learns that one, or it ends by the
// typed error, with what it had learned of the first.
#[test]
fn labels_that_change_half_way() {
    let (w, _, result) = stream(|step, w, random| batch(w, usize::from(step >= 1000), random));
    match result {
        Ok(()) => assert!(mean_loss(&w, 1) < 0.69),
        Err(Error::TooManyRollbacks { .. }) => assert!(mean_loss(&w, 0) < 0.3),
        Err(error) => panic!("{error}"),
    }
}

// A loss that says nothing keeps nothing from moving; gradients of zero keep everything where it
// is.
#[test]
fn streams_that_say_nothing() {
    let (w, _, result) = stream(|_, w, random| (1.0, batch(w, 0, random).1));
    result.unwrap();
    assert!(mean_loss(&w, 0) < 0.69);
    let (w, newton, result) = stream(|_, w, _| (1.0, vec![0.0; w.len()]));
    result.unwrap();
    assert_eq!((w, newton.rates()), (vec![0.0; 10], vec![("model", 1e-3)]));
}

// ---- Below rounding, and behind a rectifier ----

type Small = (Linear<4, 16>, ReLU, Linear<16, 1>);

/// Steps of a regression in single precision, on batches that `spoil` may multiply; the losses fed.
fn regression<Opt>(
    make: impl FnOnce(&<Small as BuildOnDevice<Cpu, f32>>::Built) -> Opt,
    steps: u64,
    spoil: impl Fn(u64) -> f32,
) -> (Newton<Opt>, Vec<f32>)
where
    Opt: TunableOptimizer<
        Model = <Small as BuildOnDevice<Cpu, f32>>::Built,
        Dtype = f32,
        Device = Cpu,
    >,
{
    let dev = Cpu::seed_from_u64(3);
    let mut model = dev.build_module::<Small, f32>();
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(20).unwrap());
    let mut newton = Newton::new(&model, make(&model), config).unwrap();
    let mut losses = Vec::new();
    for step in 0..steps {
        let x: Tensor<Rank2<64, 4>, f32, _> = dev.sample_normal();
        let y = x.clone().abs().sum::<Rank1<64>, _>().reshape::<Rank2<64, 1>>();
        let x = x * spoil(step);
        let loss = mse_loss(model.forward(x.trace(model.alloc_grads())), y);
        losses.push(loss.array());
        newton.step(&mut model, &loss.backward(), losses[losses.len() - 1]).unwrap();
    }
    (newton, losses)
}

/// The median of the last hundred: a few are of broken batches.
fn last(losses: &[f32]) -> f32 {
    let mut last = losses[losses.len() - 100..].to_vec();
    last.sort_by(f32::total_cmp);
    last[50]
}

// dfdx's rectifier takes NaN for 0: the loss of a broken batch is a number, its gradient is not.
// Where that loss alone makes the window hopeless, it is skipped; where it does not, all weights
// are lost, and the window is undone. No rate pays for either, not even where the window before was
// undone for a loss that rose. Fails if one does: rates ended at 1e-30.
#[test]
fn batches_of_nan_behind_a_rectifier_cost_no_rate() {
    let sgd = |model: &_| Sgd::new(model, SgdConfig { lr: 1e-4, ..Default::default() });
    let (calm, without) = regression(sgd, 4000, |_| 1.0);
    let broken = |step| if step % 53 == 52 { f32::NAN } else { 1.0 };
    let (newton, with) = regression(sgd, 4000, broken);
    assert!(with.iter().all(|loss| loss.is_finite()));
    let undone: Vec<_> = newton
        .history()
        .iter()
        .filter(|decision| decision.outcome == Outcome::RolledBack(Cause::NonFiniteWeights))
        .collect();
    assert!(undone.len() > 3);
    assert!(undone.iter().all(|decision| decision.from == decision.to));
    let (rate, other) = (newton.rates()[0].1, calm.rates()[0].1);
    assert!(rate > other / 10.0, "{rate:e} for {other:e}");
    let (with, without) = (last(&with), last(&without));
    assert!(with < 1e-3 && without < 1e-3, "{with} for {without}");
}

// From rates at which rounding swallows every step, one rate and one a layer. Fails without the
// raise.
#[test]
fn rates_below_rounding_rise() {
    let sgd = |lr| move |model: &_| Sgd::new(model, SgdConfig { lr, ..Default::default() });
    for lr in [1e-12, 1e-20, 1e-30] {
        let (newton, losses) = regression(sgd(lr), 1000, |_| 1.0);
        assert!(newton.history().iter().any(|decision| decision.outcome == Outcome::Raised));
        assert!(newton.rates()[0].1 > 1e-3, "{:?}", newton.rates());
        assert!(last(&losses) < losses[0] / 3.0, "{} from {}", last(&losses), losses[0]);
        let (newton, _) =
            regression(|model| tlr::PerLayer::new(model, sgd(lr)(model)), 1000, |_| 1.0);
        assert!(newton.rates().iter().all(|(_, rate)| *rate > 1e-3), "{:?}", newton.rates());
    }
}

// From a rate at which most of a step is lost. Fails if two windows that disagree by rounding alone
// end the climb: the rates then are still below 1e-4.
#[test]
fn what_rounding_leaves_does_not_end_the_climb() {
    let sgd = |model: &_| Sgd::new(model, SgdConfig { lr: 3e-9, ..Default::default() });
    let (newton, losses) = regression(sgd, 300, |_| 1.0);
    assert_eq!(newton.history()[0].outcome, Outcome::Raised);
    assert!(newton.rates()[0].1 > 1e-3, "{:?}", newton.rates());
    assert!(last(&losses) < losses[0] / 3.0, "{} from {}", last(&losses), losses[0]);
}

// Full batches in single precision, until the weights no longer move: that is arrival, and not a
// rate below rounding. Fails if their rates rise then, above all that have moved them.
#[test]
fn weights_that_have_arrived_stay() {
    for (momentum, told) in [(None, true), (None, false), (Some(0.9), true), (Some(0.9), false)] {
        let dev = Cpu::seed_from_u64(5);
        let mut model = dev.build_module::<Linear<4, 1>, f32>();
        let x: Tensor<Rank2<64, 4>, f32, _> = dev.sample_normal();
        let y = x.clone().abs().sum::<Rank1<64>, _>().reshape::<Rank2<64, 1>>();
        let momentum = momentum.map(Momentum::Classic);
        let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, momentum, weight_decay: None });
        let per_layer = tlr::PerLayer::new(&model, sgd);
        let config = NewtonConfig::default().window(Window::steps(20).unwrap());
        let mut newton = Newton::new(&model, per_layer, config).unwrap();
        let (mut loss, mut least) = (0.0, f32::INFINITY);
        for _ in 0..5000 {
            let here = mse_loss(model.forward(x.trace(model.alloc_grads())), y.clone());
            loss = here.array();
            least = loss.min(least);
            match told {
                true => newton.step(&mut model, &here.backward(), loss).unwrap(),
                false => newton.update(&mut model, &here.backward()).unwrap(),
            };
        }
        let mut most = 0.0_f64;
        for decision in newton.history() {
            match decision.outcome {
                Outcome::Raised => assert!(decision.to <= most, "{decision:?}"),
                _ => most = most.max(decision.to),
            }
        }
        assert!(loss < 1.00001 * least, "{loss} for {least}");
    }
}

// Where there is no gradient there is nothing to be raised for. Fails if only the weights are
// looked at.
#[test]
fn without_gradients_no_rate_rises() {
    let mut model: Vector<2> = vector(&[1.0, 2.0]);
    let config =
        NewtonConfig::default().ramp(false).settle(false).window(Window::steps(1).unwrap());
    let mut newton = Newton::new(&model, sgd(&model, 1e-20, None), config).unwrap();
    for gradient in [[0.0; 2], [1e-30; 2]] {
        let here = gradients(&model, &gradient);
        for _ in 0..10 {
            newton.step(&mut model, &here, 1.0).unwrap();
        }
    }
    assert_eq!(newton.rates(), [("model", 1e-20)]);
    let here = gradients(&model, &[1.0; 2]);
    newton.step(&mut model, &here, 1.0).unwrap();
    assert_eq!(newton.rates(), [("model", 100.0 * 1e-20)]);
}
