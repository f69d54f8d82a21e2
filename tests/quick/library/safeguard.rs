//! The safeguard's tests one by one, on made-up losses, and what a rollback undoes.

use dfdx::{nn::modules::BatchNorm1D, optim::*, prelude::*};
use support::{
    quadratic::Random,
    values::{bits, gradients, vector, Vector},
};
use tlr::{
    Cause::{self, LossExploded, LossIncreased, NonFiniteLoss, NonFiniteWeights},
    Newton, NewtonConfig, Outcome, PerLayer, Safeguard, TunableOptimizer, Window,
};

type Model = Vector<2>;

/// One training run fed with losses of our making; every step moves the weights by −rate · (1, −2).
struct Run<Opt: TunableOptimizer> {
    model: Model,
    newton: Newton<Opt>,
}

const RATE: f64 = 1e-3;

fn guarded(steps: usize, safeguard: Safeguard) -> Run<Sgd<Model, f64, Cpu>> {
    Run::new(steps, safeguard, None)
}

/// Windows of `steps`, the default safeguard.
fn default(steps: usize) -> Run<Sgd<Model, f64, Cpu>> {
    guarded(steps, Safeguard::default().blame(None))
}

impl Run<Sgd<Model, f64, Cpu>> {
    fn new(steps: usize, safeguard: Safeguard, momentum: Option<Momentum>) -> Self {
        let model = vector(&[1.0, 2.0]);
        let sgd = Sgd::new(&model, SgdConfig { lr: RATE, momentum, weight_decay: None });
        let config = NewtonConfig::default()
            .ramp(false)
            .settle(false)
            .climb(None)
            .window(Window::steps(steps).unwrap())
            .safeguard(safeguard);
        let newton = Newton::new(&model, sgd, config).unwrap();
        Self { model, newton }
    }
}

impl<Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>> Run<Opt> {
    /// One step; the outcome of the window, if it ended here.
    fn feed(&mut self, loss: f64) -> Option<Outcome> {
        let before = self.newton.history().len();
        let here = gradients(&self.model, &[1.0, -2.0]);
        self.newton.step(&mut self.model, &here, loss).unwrap();
        self.newton.history().get(before).map(|adaptation| adaptation.outcome)
    }

    /// Two such losses in a row: one alone is skipped.
    fn explode(&mut self, loss: f64) -> Option<Outcome> {
        let before = (bits(&self.model), self.rate());
        assert_eq!(self.feed(loss), None);
        assert_eq!((bits(&self.model), self.rate()), before);
        self.feed(loss)
    }

    /// A window that is accepted.
    fn accept(&mut self, losses: &[f64]) {
        for loss in losses {
            let outcome = self.feed(*loss);
            assert!(!matches!(outcome, Some(Outcome::RolledBack(_))), "{outcome:?} at {loss}");
        }
    }

    fn rate(&self) -> f64 {
        self.newton.rates()[0].1
    }
}

fn rolled_back(cause: Cause) -> Option<Outcome> {
    Some(Outcome::RolledBack(cause))
}

// ---- Explosion ----

// 1.5 times the first loss passes, a hair more does not. Fails with another factor or another
// reference, or with `cut` in place of `first_cut`.
#[test]
fn explosion_before_any_window_is_accepted() {
    let mut run = default(4);
    let start = bits(&run.model);
    run.accept(&[2.0, 3.0]);
    assert_ne!(bits(&run.model), start);
    assert_eq!(run.explode(3.0 + 1e-9), rolled_back(LossExploded));
    assert_eq!(bits(&run.model), start);
    assert_eq!(run.rate(), RATE * 0.1);
}

// The reference is the largest of the first loss and those of the last accepted window. Fails with
// the mean in place of the largest, or without the first loss.
#[test]
fn explosion_after_an_accepted_window() {
    for (window, below, above) in [([1.0, 1.2], 1.79, 1.81), ([1.0, 0.4], 1.49, 1.51)] {
        let mut run = default(4);
        run.accept(&[window, window].concat());
        run.accept(&[0.1, below]);
        assert_eq!(run.explode(above), rolled_back(LossExploded));
        assert_eq!(run.rate(), RATE * 0.5);
    }
}

// The losses of a window do not tell of its end. Where the very next loss explodes, that end was bad:
// back to the snapshot before. Fails without the step back.
#[test]
fn first_loss_after_a_window_goes_back_two() {
    let mut run = default(2);
    let start = bits(&run.model);
    run.accept(&[1.0, 0.9]);
    assert_ne!(bits(&run.model), start);
    assert_eq!(run.explode(10.0), rolled_back(LossExploded));
    assert_eq!(bits(&run.model), start);
    assert_eq!(run.rate(), RATE * 0.5);
}

// Once a loss has been seen at a window's end, that end is where a rollback goes. Fails if the step
// back is taken always.
#[test]
fn a_seen_snapshot_is_kept() {
    let mut run = default(3);
    run.accept(&[1.0, 0.9, 0.8]);
    let snapshot = bits(&run.model);
    run.accept(&[0.7]);
    assert_eq!(run.explode(10.0), rolled_back(LossExploded));
    assert_eq!(bits(&run.model), snapshot);
}

// A single one is skipped, as if it had not been; the second in a row undoes the window, even if they
// are the very first losses. Fails if the first is trained on or undoes, or if any two do.
#[test]
fn losses_that_are_not_finite() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut run = default(3);
        let start = bits(&run.model);
        assert_eq!(run.feed(bad), None);
        assert_eq!(run.feed(bad), rolled_back(NonFiniteLoss));
        assert_eq!((bits(&run.model), run.rate()), (start.clone(), RATE));
        run.accept(&[1.0]);
        let moved = bits(&run.model);
        assert_eq!((run.feed(bad), bits(&run.model)), (None, moved));
        run.accept(&[1.0]);
        assert_eq!(run.feed(bad), None);
        assert_eq!(run.feed(bad), rolled_back(NonFiniteLoss));
        assert_eq!((bits(&run.model), run.rate()), (start, RATE * 0.1));
        assert_eq!(run.newton.steps(), 7);
        run.accept(&[1.0, 0.9]);
    }
}

// One loss that alone makes a window hopeless, far above the recent ones though not above those of the start: the batch is
// skipped; the second in a row undoes the window. Fails if the first does, or if it is compared with the start.
#[test]
fn one_loss_that_sinks_a_window_is_skipped() {
    let mut run = default(4);
    run.accept(&[10.0, 1.0, 1.0, 1.0]);
    run.accept(&[1.0; 4]);
    run.accept(&[1.0]);
    for _ in 0..3 {
        let before = bits(&run.model);
        assert_eq!((run.feed(9.0), bits(&run.model)), (None, before));
        run.accept(&[1.0, 1.0, 1.0, 1.0]);
    }
    assert_eq!(run.explode(9.0), rolled_back(LossIncreased));
    assert_eq!(run.rate(), RATE * 0.5);
}

// A gradient that is not finite behind losses that are: the window is undone, and the rate stays, once. The second in a row
// is no accident. Fails if the first is cut, or if none is.
#[test]
fn a_broken_gradient_is_not_the_rates_fault() {
    let mut run = default(4);
    let broken = |run: &mut Run<Sgd<Model, f64, Cpu>>| {
        let here = gradients(&run.model, &[f64::NAN, 1.0]);
        run.newton.step(&mut run.model, &here, 1.0).unwrap();
    };
    run.accept(&[1.0; 5]);
    let rate = run.rate();
    broken(&mut run);
    // Noticed by the losses after it, or else at the end of the window.
    assert_eq!(run.explode(9.0), rolled_back(NonFiniteWeights));
    assert_eq!(run.rate(), rate);
    broken(&mut run);
    run.accept(&[1.0, 1.0]);
    assert_eq!(run.feed(1.0), rolled_back(NonFiniteWeights));
    assert_eq!(run.rate(), rate * 0.5);
    run.accept(&[1.0; 4]);
    broken(&mut run);
    run.accept(&[1.0, 1.0]);
    assert_eq!(run.feed(1.0), rolled_back(NonFiniteWeights));
    assert_eq!(run.rate(), rate * 0.5);
}

// ---- A doomed window ----

// Of 4 steps and after a mean of 1 without noise: as soon as the losses sum to more than 4.4. Fails
// with another τ, if the remaining losses count as more than 0, or if only whole windows are judged.
#[test]
fn a_window_ends_when_it_cannot_be_saved() {
    let mut run = default(4);
    run.accept(&[2.0; 4]);
    run.accept(&[1.0; 4]);
    let snapshot = bits(&run.model);
    run.accept(&[1.0, 1.4, 1.4]);
    assert_eq!(run.feed(0.7), rolled_back(LossIncreased));
    assert_eq!(bits(&run.model), snapshot);
    assert_eq!(run.rate(), RATE * 0.5);

    run.accept(&[1.4, 1.4, 1.4, 0.1]);
    run.accept(&[0.9; 4]);
    run.accept(&[1.4, 1.4]);
    // 2.8 + 1.3 of 4 · 0.99
    assert_eq!(run.feed(1.3), rolled_back(LossIncreased));
}

// One loss a window has no standard error: only τ. That loss is the snapshot's own, so the way back is
// one further.
#[test]
fn windows_of_one_step() {
    let mut run = default(1);
    run.accept(&[2.0, 1.0]);
    let snapshot = bits(&run.model);
    run.accept(&[1.099]); // within 10 %
    assert_eq!(run.feed(1.099 * 1.1 + 1e-9), rolled_back(LossIncreased));
    assert_eq!(bits(&run.model), snapshot);
    assert_eq!(run.rate(), RATE * 0.5);
}

// (1.0, 1.2, 0.8, 1.0) has mean 1, and by its differences a deviation of √(0.24/6) = 0.2 and sem of 0.1: up
// to 1.1 + 3·√2·0.1 = 1.5243 is noise. Fails with a factor of 0 on sem, with the deviation in its place,
// without √2, or by the deviation from the mean, which is 0.163.
#[test]
fn noise_of_the_window_before() {
    for (loss, bad) in [(1.524, false), (1.525, true)] {
        let mut run = default(4);
        run.accept(&[2.0; 4]);
        run.accept(&[1.0, 1.2, 0.8, 1.0]);
        run.accept(&[loss; 3]);
        assert_eq!(run.feed(loss) == rolled_back(LossIncreased), bad, "{loss}");
    }
}

// A fall is no noise: (8, 6, 4, 2, …) has a small deviation by its differences, √(4/2), and a large one
// from its mean, 4.9. Fails by the latter.
#[test]
fn a_fall_is_no_noise() {
    let mut run = default(8);
    run.accept(&[16.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0]);
    // 9.9 + 3·√2·√2/√8 = 12.02
    run.accept(&[12.1; 7]);
    assert_eq!(run.feed(12.1), rolled_back(LossIncreased));
}

// The window's own noise does not count: a window that diverges is noisy. Fails if it does, by
// 3 · 0.1/√3 at least.
#[test]
fn noise_of_the_window_itself() {
    let mut run = default(4);
    run.accept(&[2.0; 4]);
    run.accept(&[1.0; 4]);
    run.accept(&[1.01, 1.21, 1.01]);
    assert_eq!(run.feed(1.21), rolled_back(LossIncreased));
}

// The first window has no predecessor: the first loss stands in, with the window's own noise. `sems` =
// 0 leaves only τ.
#[test]
fn mean_of_the_first_window() {
    for (loss, bad) in [(1.13, false), (1.14, true)] {
        let mut run = guarded(4, Safeguard::default().blame(None).sems(0.0));
        let start = bits(&run.model);
        run.accept(&[1.0, loss, loss]);
        // (1 + 3·loss)/4 against 1.1.
        assert_eq!(run.feed(loss) == rolled_back(LossIncreased), bad, "{loss}");
        assert_eq!(bits(&run.model) == start, bad);
        assert_eq!(run.rate(), if bad { RATE * 0.1 } else { RATE });
    }
    let mut noisy = default(8);
    noisy.accept(&[1.0, 1.2, 1.4, 1.0, 1.2, 1.4, 1.0, 1.2]);
}

// ---- The snapshot's own losses ----

// The snapshot itself may stand above the limit. No rate is small enough to get below at once, so its
// loss becomes the one to beat. Fails without `origin` in the watch: then every window is undone.
#[test]
fn a_snapshot_above_the_limit_is_no_trap() {
    let mut run = default(3);
    run.accept(&[2.0, 2.0, 2.0]);
    run.accept(&[1.0, 1.0, 1.0]);
    run.accept(&[1.3, 1.3]);
    assert_eq!(run.feed(1.3), rolled_back(LossIncreased));
    // 1.3 is the one to beat now, though the last window's mean was 1.
    run.accept(&[1.3, 1.3, 1.3]);
    // One that rises further is undone as before.
    run.accept(&[1.3, 1.49]);
    assert_eq!(run.feed(1.6), rolled_back(LossIncreased));
}

// A window may end worse than its losses tell. While no loss at that end is below the limit, the way
// back is one snapshot further, however the window goes on. Fails if any loss makes a snapshot good:
// then each of them is a little worse than the last, and the loss grows without end.
#[test]
fn a_doubtful_snapshot_is_not_gone_back_to() {
    let mut run = default(3);
    run.accept(&[2.0, 2.0, 2.0]);
    let snapshot = bits(&run.model);
    run.accept(&[1.0, 1.0, 1.0]);
    run.accept(&[1.3, 0.9]);
    assert_eq!(run.feed(1.4), rolled_back(LossIncreased));
    assert_eq!(bits(&run.model), snapshot);
}

// What is above the loss at the starting weights is never accepted, however slowly it gets there.
// Fails without the ceiling.
#[test]
fn no_window_is_accepted_above_the_start() {
    let mut run = default(1);
    run.accept(&[1.0]);
    let mut loss = 0.5;
    while run.feed(loss).is_some_and(|outcome| outcome != Outcome::RolledBack(LossIncreased)) {
        loss *= 1.04;
    }
    assert!(loss > 1.0 && loss < 1.04, "{loss}");
}

// Of noisy losses the first may be a low one: three deviations of the first window's are allowed.
#[test]
fn the_start_is_as_noisy_as_its_window() {
    let mut run = default(4);
    run.accept(&[1.0, 1.2, 0.8, 1.0]);
    run.accept(&[1.5; 4]); // up to 1 + 3·0.2, and to 1.5243
}

// Bad losses at the snapshot, before any step: the batch is to blame. The rate stays, and so does the
// reference, until three of them agree: then it is another task. Fails if every rollback cuts, or if
// one such loss is taken for the snapshot's own.
#[test]
fn bad_batches_do_not_cut() {
    let mut run = default(2);
    run.accept(&[1.0, 1.0, 1.0]);
    assert_eq!(run.explode(900.0), rolled_back(LossExploded));
    assert_eq!(run.feed(900.0), rolled_back(LossExploded));
    assert_eq!(run.rate(), RATE * 0.5);
    run.accept(&[1.0]);
    assert_eq!(run.feed(1.3), rolled_back(LossIncreased)); // 1.15 above 1.1
    let mut run = default(2);
    run.accept(&[1.0, 1.0, 1.0]);
    run.explode(900.0);
    for _ in 0..5 {
        run.feed(900.0);
    }
    assert_eq!(run.rate(), RATE * 0.5);
    let outcomes: Vec<_> = (0..4).filter_map(|_| run.feed(900.0)).collect();
    assert!(outcomes.iter().any(|outcome| !matches!(outcome, Outcome::RolledBack(_))));
}

// Batches of one image: the first loss may be far below its own mean. Fails if the first loss alone is
// the reference for ever: twenty rollbacks in a row are an error.
#[test]
fn a_lucky_first_loss_is_no_trap() {
    let random = &mut Random(2);
    let mut run = default(10);
    run.feed(0.01);
    for _ in 0..500 {
        run.feed(2.3 + random.uniform());
    }
    let last = run.newton.history().iter().rev().take(20);
    assert!(last.into_iter().all(|last| !matches!(last.outcome, Outcome::RolledBack(_))));
}

// Losses below zero: a tenth of the magnitude is allowed, an explosion is a rise of half of it, and
// what remains of a window counts as the lowest loss seen, not as 0. Fails where limits are plain
// products.
#[test]
fn negative_losses() {
    for (loss, bad) in [(-4.96, false), (-4.94, true)] {
        let mut run = default(1);
        run.accept(&[-2.0, -6.0, -5.5]);
        assert_eq!(run.feed(loss) == rolled_back(LossIncreased), bad); // −5.5 + 0.55 = −4.95
    }
    let mut run = default(16);
    run.accept(&[-5.0, -2.6]);
    assert_eq!(run.explode(-2.4), rolled_back(LossExploded)); // −5 + 2.5 = −2.5
    let mut run = default(2);
    run.accept(&[-2.0, -2.0, -5.0, -5.0, -4.6]);
    assert_eq!(run.feed(-4.3), rolled_back(LossIncreased)); // −4.45 above −5 + 0.5
}

// ---- What a rollback undoes ----

// Directions of a window that was undone are no measure of the next. Fails if they are kept.
#[test]
fn directions_are_dropped() {
    let mut run = default(1);
    run.accept(&[1.0, 1.0, 1.0]);
    assert!(run.newton.history()[2].products.is_some());
    assert_eq!(run.explode(9.0), rolled_back(LossExploded));
    assert_eq!(run.feed(1.0), Some(Outcome::WarmingUp));
    assert_eq!(run.newton.history().last().unwrap().products, None);
    assert!(matches!(run.feed(1.0), Some(Outcome::Kept(_) | Outcome::Scaled | Outcome::Capped)));
}

// After a rollback the base optimizer is as new: its next step is that of a fresh one at the cut
// rate, bit for bit. Fails if momentum survives.
#[test]
fn momentum_is_cleared() {
    let mut run = Run::new(8, Safeguard::default().blame(None), Some(Momentum::Classic(0.9)));
    run.accept(&[1.0, 1.0, 1.0]);
    assert_eq!(run.explode(9.0), rolled_back(LossExploded));
    run.feed(1.0);

    let mut fresh: Model = vector(&[1.0, 2.0]);
    let momentum = Some(Momentum::Classic(0.9));
    let mut sgd = Sgd::new(&fresh, SgdConfig { lr: RATE * 0.1, momentum, weight_decay: None });
    let here = gradients(&fresh, &[1.0, -2.0]);
    sgd.update(&mut fresh, &here).unwrap();
    assert_eq!(bits(&run.model), bits(&fresh));
}

type Norm = BatchNorm1D<3, f32, Cpu>;

/// A layer with buffers, in windows of two steps.
fn batch_norm() -> (Cpu, Norm, Newton<Sgd<Norm, f32, Cpu>>) {
    let dev = Cpu::seed_from_u64(1);
    let model: Norm = dev.build_module::<builders::BatchNorm1D<3>, f32>();
    let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    let config = by_losses_alone().climb(None).window(Window::steps(2).unwrap());
    let newton = Newton::new(&model, sgd, config).unwrap();
    (dev, model, newton)
}

// Running means and variances of the bad window go too. Fails if only weights are restored.
#[test]
fn buffers_are_restored() {
    let (dev, mut model, mut newton) = batch_norm();
    let mut step = |model: &mut Norm, loss: f64| {
        let x: Tensor<Rank2<8, 3>, f32, _> = dev.sample_normal();
        let y = model.forward_mut(x.leaky_traced()).square().mean();
        newton.step(model, &y.backward(), loss).unwrap();
    };
    step(&mut model, 1.0);
    step(&mut model, 1.0);
    let snapshot = (bits(&model), model.running_mean.array(), model.running_var.array());
    step(&mut model, 1.0);
    assert_ne!(model.running_mean.array(), snapshot.1);
    step(&mut model, 9.0);
    step(&mut model, 9.0);
    assert_eq!((bits(&model), model.running_mean.array(), model.running_var.array()), snapshot);
}

// A broken batch has been through the forward pass before its loss tells of it. Fails if it is skipped and no more:
// running means that are NaN stay so. The very first batch too, and weights that are loaded after the optimizer was made
// stay.
#[test]
fn a_skipped_batch_leaves_no_trace_in_buffers() {
    let (dev, mut model, mut newton) = batch_norm();
    model.scale.copy_from(&[1.0, 2.0, 3.0]);
    let mut step = |model: &mut Norm, factor: f32| {
        let x: Tensor<Rank2<8, 3>, f32, _> = dev.sample_normal();
        let y = model.forward_mut((x * factor).leaky_traced()).square().mean();
        let loss = y.array();
        newton.step(model, &y.backward(), loss).unwrap();
    };
    for _ in 0..2 {
        step(&mut model, f32::NAN); // the second undoes a window of no steps
        assert_eq!(model.scale.array(), [1.0, 2.0, 3.0]);
        assert_eq!(model.running_mean.array(), [0.0; 3]);
        assert_eq!(model.running_var.array(), [1.0; 3]);
    }
    step(&mut model, 1.0);
    step(&mut model, 1.0);
    let snapshot = bits(&model);
    step(&mut model, f32::NAN);
    assert_eq!(bits(&model), snapshot);
}

type Layers = (Vector<1>, Vector<1>);

type PerLayerSgd = PerLayer<Sgd<Layers, f64, Cpu>>;

/// A rate each, and windows of one step.
fn two_layers() -> (Layers, Newton<PerLayerSgd>) {
    let model: Layers = (vector(&[1.0]), vector(&[2.0]));
    let sgd = Sgd::new(&model, SgdConfig { lr: RATE, ..Default::default() });
    let per_layer = PerLayer::new(&model, sgd);
    let config = by_losses_alone().climb(None).window(Window::steps(1).unwrap());
    let newton = Newton::new(&model, per_layer, config).unwrap();
    (model, newton)
}

// Every layer's rate is cut, by as much.
#[test]
fn all_rates_are_cut() {
    let (mut model, mut newton) = two_layers();
    // The first layer's gradients shrink, the second's grow: one rate is raised, the other kept.
    for (gradient, loss) in [([1.0, 1.0], 1.0), ([0.5, 1.5], 0.9), ([0.2, 2.0], 0.8)] {
        let here = gradients(&model, &gradient);
        newton.step(&mut model, &here, loss).unwrap();
    }
    let before: Vec<f64> = newton.rates().iter().map(|(_, rate)| *rate).collect();
    assert!(before[0] > before[1]);
    let here = gradients(&model, &[1.0, 1.0]);
    newton.step(&mut model, &here, 1e3).unwrap();
    newton.step(&mut model, &here, 1e3).unwrap();
    assert_eq!(newton.rates(), [("0", before[0] * 0.5), ("1", before[1] * 0.5)]);
}

// ---- Cuts on probation ----

/// Windows of two steps, and so many of them accepted.
fn trusted(windows: usize) -> Run<Sgd<Model, f64, Cpu>> {
    let mut run = default(2);
    (0..windows).for_each(|_| run.accept(&[1.0, 1.0]));
    run
}

/// A window whose mean rises.
fn rise<Opt: TunableOptimizer<Model = Model, Dtype = f64, Device = Cpu>>(run: &mut Run<Opt>) {
    assert_eq!(run.feed(1.2), None);
    assert_eq!(run.feed(1.2), rolled_back(LossIncreased));
}

// A rate that has made five good windows may not be to blame for a bad one: if the next is good, it is what it was. Fails
// if a cut stays, if the rate comes back without a good window, or only in part.
#[test]
fn a_cut_is_on_probation_after_good_windows() {
    let mut run = trusted(5);
    rise(&mut run);
    assert_eq!(run.rate(), RATE * 0.5);
    assert_eq!(run.feed(1.0), None);
    assert_eq!(run.feed(1.0), Some(Outcome::CutReverted));
    assert_eq!(run.rate(), RATE);
}

// Fails with less trust or more, if trust outlives a rollback, if a second cut is on probation too, or if what was to be regained
// outlives one.
#[test]
fn other_cuts_are_final() {
    let mut early = trusted(4);
    rise(&mut early);
    early.accept(&[1.0, 1.0]);
    assert_eq!(early.rate(), RATE * 0.5);

    let mut again = trusted(5);
    rise(&mut again);
    rise(&mut again);
    again.accept(&[1.0, 1.0]);
    assert_eq!(again.rate(), RATE * 0.5 * 0.25);

    let mut soon = trusted(5);
    rise(&mut soon);
    (0..4).for_each(|_| soon.accept(&[1.0, 1.0]));
    assert_eq!(soon.rate(), RATE);
    rise(&mut soon);
    soon.accept(&[1.0, 1.0]);
    assert_eq!(soon.rate(), RATE * 0.5);

    // Not bad luck.
    let mut explosion = trusted(5);
    assert_eq!(explosion.explode(10.0), rolled_back(LossExploded));
    explosion.accept(&[1.0, 1.0]);
    assert_eq!(explosion.rate(), RATE * 0.5);

    let never = Safeguard::default().blame(None).trust(usize::MAX);
    let mut run = guarded(2, never);
    (0..9).for_each(|_| run.accept(&[1.0, 1.0]));
    rise(&mut run);
    run.accept(&[1.0, 1.0]);
    assert_eq!(run.rate(), RATE * 0.5);
}

// A rate that has just risen is to blame, and others are not. Fails without the comparison with the window before, or if it
// is not a layer's own.
#[test]
fn a_rate_that_has_just_risen_does_not_come_back() {
    let (mut model, mut newton) = two_layers();
    let mut step = |gradient: [f64; 2], loss| {
        let here = gradients(&model, &gradient);
        newton.step(&mut model, &here, loss).unwrap();
        let rates: Vec<f64> = newton.rates().iter().map(|(_, rate)| *rate).collect();
        rates
    };
    (0..5).for_each(|_| drop(step([1.0, 1.0], 1.0)));
    // ρ = 0.8, so that the point is 5: the first layer's rate goes to 0.67 + 0.33·5 of itself.
    let before = step([0.8, 1.0], 1.0);
    assert!(before[0] > 1.25 * RATE && before[1] == RATE, "{before:?}");
    assert_eq!(step([1.0, 1.0], 1.2), [before[0] * 0.5, RATE * 0.5]);
    assert_eq!(step([1.0, 1.0], 1.0), [before[0] * 0.5, RATE]);
}

// Fails if a checkpoint forgets what is to be regained, or how many windows have been good.
#[test]
fn probation_outlives_the_process() {
    let make = || {
        let model = vector(&[1.0, 2.0]);
        let config = SgdConfig { lr: RATE, ..Default::default() };
        let sgd = tlr::optim::Sgd::new(&model, config);
        let config = by_losses_alone().climb(None).window(Window::steps(2).unwrap());
        Run { newton: Newton::new(&model, sgd, config).unwrap(), model }
    };
    let resumed = |run: &mut Run<_>| {
        let checkpoint = run.newton.checkpoint(&run.model).unwrap();
        let mut other = make();
        other.newton.resume(&mut other.model, &checkpoint).unwrap();
        other
    };
    let mut run = make();
    (0..4).for_each(|_| run.accept(&[1.0, 1.0]));
    let mut run = resumed(&mut run);
    run.accept(&[1.0, 1.0]);
    rise(&mut run);
    let mut run = resumed(&mut run);
    run.accept(&[1.0, 1.0]);
    assert_eq!(run.rate(), RATE);
}

// Without a loss only weights that are not finite are a reason, at the end of the window.
#[test]
fn without_losses() {
    let mut run = default(2);
    let start = bits(&run.model);
    let (good, bad) = (gradients(&run.model, &[1.0, 1.0]), gradients(&run.model, &[f64::NAN, 1.0]));
    for gradient in [&bad, &good] {
        run.newton.update(&mut run.model, gradient).unwrap();
    }
    assert_eq!(bits(&run.model), start);
    assert_eq!(run.newton.history().last().unwrap().outcome, Outcome::RolledBack(NonFiniteWeights));
    assert_eq!(run.rate(), RATE * 0.1);
}

// Off means off: a loss that explodes or rises is nobody's business.
#[test]
fn no_safeguard() {
    let mut model: Model = vector(&[1.0, 2.0]);
    let sgd = Sgd::new(&model, SgdConfig { lr: RATE, ..Default::default() });
    let config = NewtonConfig::default()
        .ramp(false)
        .settle(false)
        .climb(None)
        .window(Window::steps(1).unwrap())
        .safeguard(None);
    let mut newton = Newton::new(&model, sgd, config).unwrap();
    for loss in [1.0, 1e3, 1e300] {
        let here = gradients(&model, &[1.0, -2.0]);
        newton.step(&mut model, &here, loss).unwrap();
    }
    assert!(!newton.history().iter().any(|last| matches!(last.outcome, Outcome::RolledBack(_))));
}

/// These losses have nothing to do with the gradients beside them.
fn by_losses_alone() -> NewtonConfig {
    NewtonConfig::default().ramp(false).settle(false).safeguard(Safeguard::default().blame(None))
}
