//! Updates that fail in the middle: an optimizer that fails at each of its tensors in turn.

use dfdx::{
    optim::{Optimizer, OptimizerUpdateError, SgdConfig},
    prelude::*,
    tensor::CpuError,
};
use std::{
    cell::Cell,
    panic::{catch_unwind, AssertUnwindSafe},
};
use support::values::{bits, gradients};
use tlr::{
    optim::{
        forward, Accumulate, Buffer, Clip, CompleteGradients, Elementwise, FailedUpdate, Settings,
        UpdateRule,
    },
    Backend, Cause, Checkpoint, Error, LineSearch, Newton, NewtonConfig, PerLayer, Step,
    TunableOptimizer, Window,
};

type Net = <(Linear<2, 3>, Tanh, Linear<3, 1>) as BuildOnDevice<Cpu, f64>>::Built;

/// Two layers of two tensors.
const TENSORS: usize = 4;
const WEIGHTS: usize = 13;

thread_local! {
    /// How many tensors are updated before one fails.
    static UNTIL_FAILURE: Cell<Option<usize>> = const { Cell::new(None) };
    /// Whether that failure is a panic.
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Momentum, and at one of the tensors a failure: after that tensor has moved.
#[derive(Clone, Copy, Debug)]
struct Failing {
    lr: f64,
}

impl UpdateRule<1> for Failing {
    const BUFFERS: [&'static str; 1] = ["velocity"];

    fn settings(&self) -> Settings {
        Settings::new("failing")
    }

    fn rate(&self) -> f64 {
        self.lr
    }

    fn set_rate(&mut self, rate: f64) {
        self.lr = rate;
    }

    fn update<S: Shape, E: Dtype, D: Backend<E>>(
        &self,
        _step: i32,
        parameter: &mut Tensor<S, E, D>,
        [velocity]: &mut [Buffer<E, D>; 1],
        gradient: &Buffer<E, D>,
    ) -> Result<(), D::Err> {
        let momentum = Some(dfdx::optim::Momentum::Classic(0.9));
        let sgd = SgdConfig { lr: self.lr, momentum, weight_decay: None };
        sgd.try_update(parameter, velocity, gradient)?;
        let fails = UNTIL_FAILURE.get() == Some(0);
        assert!(!(fails && PANICS.get()), "the rule panics");
        UNTIL_FAILURE.set(UNTIL_FAILURE.get().and_then(|left| left.checked_sub(1)));
        if fails {
            // Of two elements, one is given.
            let device: D = parameter.device().clone();
            device.try_tensor_from_vec(vec![E::default()], (2,))?;
        }
        Ok(())
    }
}

type Rule = Elementwise<Net, f64, Cpu, Failing, 1>;
type Here = Gradients<f64, Cpu>;

fn net() -> Net {
    Cpu::seed_from_u64(1).build_module::<(Linear<2, 3>, Tanh, Linear<3, 1>), f64>()
}

fn rule(model: &Net) -> Rule {
    Elementwise::new(model, Failing { lr: 0.1 })
}

struct Run<Opt: TunableOptimizer<Model = Net, Dtype = f64, Device = Cpu>> {
    model: Net,
    newton: Newton<Opt>,
    /// Batches of a step.
    batches: usize,
    loss: f64,
    owned: bool,
}

impl<Opt: TunableOptimizer<Model = Net, Dtype = f64, Device = Cpu>> Run<Opt> {
    fn new(optimizer: impl Fn(&Net) -> Opt, batches: usize, owned: bool) -> Self {
        let model = net();
        let config =
            NewtonConfig::default().ramp(false).settle(false).window(Window::steps(3).unwrap());
        let newton = Newton::new(&model, optimizer(&model), config).unwrap();
        Self { model, newton, batches, loss: 1.0, owned }
    }

    /// The batches of one step.
    fn step(&mut self) -> Result<Step, Error> {
        let mut last = Ok(Step::Gathered);
        for batch in 0..self.batches {
            let direction: Vec<f64> =
                (0..WEIGHTS).map(|index| 1.0 + (index + batch) as f64 / 10.0).collect();
            let mut here = gradients(&self.model, &direction);
            last = match self.owned {
                true => self.newton.step_owned(&mut self.model, &mut here, self.loss),
                false => self.newton.step(&mut self.model, &here, self.loss),
            };
        }
        last
    }

    /// A step whose optimizer panics in the middle.
    fn panic_in_a_step(&mut self) {
        UNTIL_FAILURE.set(Some(1));
        PANICS.set(true);
        let panicked = catch_unwind(AssertUnwindSafe(|| self.step()));
        UNTIL_FAILURE.set(None);
        PANICS.set(false);
        assert!(panicked.is_err());
    }
}

/// Fails at each tensor, first thing or later; then goes on. `keeps_state`, if what the optimizer
/// has accumulated survives.
fn check<Opt>(optimizer: impl Fn(&Net) -> Opt, batches: usize, keeps_state: bool)
where
    Opt: TunableOptimizer<Model = Net, Dtype = f64, Device = Cpu>,
{
    for owned in [false, true] {
        for tensor in 0..TENSORS {
            for steps in [0, 2, 3] {
                let mut run = Run::new(&optimizer, batches, owned);
                let mut twin = Run::new(&optimizer, batches, owned);
                for run in [&mut run, &mut twin] {
                    (0..steps).for_each(|_| drop(run.step().unwrap()));
                }
                let before = bits(&run.model);
                UNTIL_FAILURE.set(Some(tensor));
                let error = run.step().unwrap_err();
                let Error::Device(error) = error else { panic!("{error}") };
                assert!(!error.is_out_of_memory(), "{error}");
                assert_eq!(UNTIL_FAILURE.get(), None);
                assert_eq!(bits(&run.model), before, "tensor {tensor} after {steps} steps");
                assert_eq!(run.newton.steps(), steps);
                // The update is made once more, and so are those after it.
                for _ in 0..4 {
                    assert_eq!(run.step().unwrap(), twin.step().unwrap());
                    if keeps_state || steps == 0 {
                        assert_eq!(bits(&run.model), bits(&twin.model), "tensor {tensor}");
                    } else {
                        assert_ne!(bits(&run.model), before);
                    }
                    if !keeps_state {
                        break;
                    }
                }
            }
        }
    }
}

// Fails without a copy of the weights, without one of the velocities, or with a count that goes on.
#[test]
fn by_itself() {
    check(rule, 1, true);
}

#[test]
fn within_a_clip() {
    check(|model| Clip::by_norm(rule(model), 0.5).unwrap(), 1, true);
}

#[test]
fn within_an_accumulation() {
    check(|model| Accumulate::new(rule(model), 2).unwrap(), 2, true);
}

/// A layer that has undone its own update does not undo that of the layer before.
#[test]
fn a_rate_a_layer() {
    check(|model| PerLayer::new(model, rule(model)), 1, false);
    check(|model| PerLayer::new(model, Clip::by_norm(rule(model), 0.5).unwrap()), 1, false);
    check(|model| Clip::by_norm(PerLayer::new(model, rule(model)), 0.5).unwrap(), 1, false);
    check(|model| Accumulate::new(PerLayer::new(model, rule(model)), 2).unwrap(), 2, false);
}

/// Without a trainer around it as well.
#[test]
fn the_optimizer_alone() {
    for tensor in 0..TENSORS {
        let mut model = net();
        let mut optimizer = rule(&model);
        let here = gradients(&model, &[1.0; WEIGHTS]);
        optimizer.update(&mut model, &here).unwrap();
        let before = bits(&model);
        UNTIL_FAILURE.set(Some(tensor));
        optimizer.update(&mut model, &here).unwrap_err();
        assert_eq!((bits(&model), optimizer.steps()), (before, 1));
    }
}

// Fails where a trainer is of no use after that, and where half of a step can be saved.
#[test]
fn a_panic_in_the_middle_is_given_up_and_not_saved() {
    let mut run = Run::new(rule, 1, false);
    run.step().unwrap();
    let saved = run.newton.checkpoint(&run.model).unwrap();
    run.panic_in_a_step();
    let refused = run.newton.checkpoint(&run.model).unwrap_err();
    assert_eq!(refused, Error::UpdateInterrupted);
    // The remedy that the error names first.
    let mut other = Run::new(rule, 1, false);
    other.newton.resume(&mut other.model, &saved).unwrap();
    run.newton.resume(&mut run.model, &saved).unwrap();
    assert_eq!(bits(&run.model), bits(&other.model));
    assert_eq!(run.step().unwrap(), Step::Made);
    assert_eq!(run.newton.steps(), 2);
    run.newton.checkpoint(&run.model).unwrap();
}

// An exact step is another step, too. Fails if what the panic has left stays in the way.
#[test]
fn an_exact_step_after_a_panic_can_be_saved() {
    let mut run = Run::new(rule, 1, false);
    run.step().unwrap();
    run.panic_in_a_step();
    let here = gradients(&run.model, &[1.0; WEIGHTS]);
    run.newton.step_lookahead(&mut run.model, &here, |_| here.clone()).unwrap();
    run.newton.checkpoint(&run.model).unwrap();
    assert_eq!(run.step().unwrap(), Step::Made);
}

// Fails where a checkpoint holds the momentum of a step that was never made.
#[test]
fn a_panic_in_an_exact_step_leaves_what_an_error_leaves() {
    fn after(
        exact: impl Fn(&mut Run<Rule>, &Here) -> Result<Step, Error>,
    ) -> (Checkpoint, Vec<u64>) {
        let mut run = Run::new(rule, 1, false);
        run.step().unwrap();
        let here = gradients(&run.model, &[1.0; WEIGHTS]);
        let ended = catch_unwind(AssertUnwindSafe(|| exact(&mut run, &here)));
        UNTIL_FAILURE.set(None);
        PANICS.set(false);
        assert!(!matches!(ended, Ok(Ok(_))));
        let saved = run.newton.checkpoint(&run.model).unwrap();
        assert_eq!(run.step().unwrap(), Step::Made);
        (saved, bits(&run.model))
    }
    let lacking =
        after(|run, here| run.newton.step_lookahead(&mut run.model, here, |_| Gradients::leaky()));
    let ahead = after(|run, here| {
        run.newton.step_lookahead(&mut run.model, here, |_| panic!("the closure"))
    });
    let in_the_optimizer = after(|run, here| {
        UNTIL_FAILURE.set(Some(1));
        PANICS.set(true);
        run.newton.step_lookahead(&mut run.model, here, |_| here.clone())
    });
    let searching = after(|run, here| {
        let mut trials = 0;
        run.newton.step_line_search(&mut run.model, here, 1.0, LineSearch::default(), |_| {
            trials += 1;
            assert!(trials < 2, "the closure");
            (1.0, here.clone())
        })
    });
    for (panicked, place) in [(ahead, "ahead"), (in_the_optimizer, "rule"), (searching, "search")] {
        assert!(panicked == lacking, "{place}");
    }
}

// Fails where the loss of a batch whose gradients are lost is left in the mean of the next step: a
// loss that has exploded would then be taken for a low one.
#[test]
fn the_losses_of_lost_batches_are_lost_too() {
    fn check<Opt>(
        make: impl Fn(&Net) -> Accumulate<Opt>,
        fail: impl Fn(&mut Run<Accumulate<Opt>>, &Here) -> Result<Step, Error>,
    ) where
        Opt: TunableOptimizer<Model = Net, Dtype = f64, Device = Cpu>,
    {
        let mut run = Run::new(make, 2, false);
        run.step().unwrap();
        let here = gradients(&run.model, &[1.0; WEIGHTS]);
        assert_eq!(run.newton.step(&mut run.model, &here, -1e6).unwrap(), Step::Gathered);
        fail(&mut run, &here).unwrap_err();
        assert_eq!(run.newton.optimizer().gathered(), 0);
        run.loss = 10.0;
        assert_eq!(run.step().unwrap(), Step::Skipped(Cause::LossExploded));
    }
    let ours = |model: &Net| Accumulate::new(rule(model), 2).unwrap();
    check(ours, |run, here| {
        UNTIL_FAILURE.set(Some(1));
        run.newton.step(&mut run.model, here, -1e6)
    });
    // An exact step that fails gives back what was gathered, unless the optimizer keeps no copy.
    let config = SgdConfig { lr: 0.1, ..Default::default() };
    let dfdxs = |model: &Net| Accumulate::new(dfdx::optim::Sgd::new(model, config), 2).unwrap();
    check(dfdxs, |run, here| {
        run.newton.step_lookahead(&mut run.model, here, |_| Gradients::leaky())
    });
}

/// An optimizer that tells nothing of itself but what it must: an accumulation of two batches,
/// which after its update fails on demand.
#[derive(Debug)]
struct Bare {
    inner: Accumulate<dfdx::optim::Sgd<Net, f64, Cpu>>,
    failed_update: FailedUpdate,
}

impl Bare {
    fn new(model: &Net, batches: usize, failed_update: FailedUpdate) -> Self {
        let config = SgdConfig { lr: 0.1, ..Default::default() };
        let sgd = dfdx::optim::Sgd::new(model, config);
        Self { inner: Accumulate::new(sgd, batches).unwrap(), failed_update }
    }
}

impl Optimizer<Net, Cpu, f64> for Bare {
    fn update(
        &mut self,
        model: &mut Net,
        gradients: &Gradients<f64, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        self.inner.update(model, gradients)?;
        match UNTIL_FAILURE.take() {
            Some(_) => Err(OptimizerUpdateError::DeviceError(CpuError::OutOfMemory)),
            None => Ok(()),
        }
    }
}

impl TunableOptimizer for Bare {
    type Model = Net;
    type Dtype = f64;
    type Device = Cpu;

    fn rate(&self, group: usize) -> f64 {
        self.inner.rate(group)
    }

    fn set_rate(&mut self, group: usize, rate: f64) {
        self.inner.set_rate(group, rate);
    }

    fn reset(&mut self, model: &Net) {
        self.inner.reset(model);
    }

    fn only_gathers(&self) -> bool {
        self.inner.only_gathers()
    }

    fn drop_gathered(&mut self, model: &mut Net) {
        self.inner.drop_gathered(model);
    }

    fn failed_update(&self) -> FailedUpdate {
        self.failed_update
    }
}

// The same where a gradient is missing and the optimizer has to be reset for that.
#[test]
fn the_losses_of_reset_batches_are_lost_too() {
    let mut run = Run::new(|model| Bare::new(model, 2, FailedUpdate::HalfDone), 2, false);
    run.step().unwrap();
    let here = gradients(&run.model, &[1.0; WEIGHTS]);
    assert_eq!(run.newton.step(&mut run.model, &here, -1e6).unwrap(), Step::Gathered);
    let failed = run.newton.step(&mut run.model, &Gradients::leaky(), -1e6);
    assert!(matches!(failed, Err(Error::UnusedParameters { .. })), "{failed:?}");
    run.loss = 10.0;
    assert_eq!(run.step().unwrap(), Step::Skipped(Cause::LossExploded));
}

// The weights of an optimizer whose update can fail only the first time are copied until it has
// made one, and gathering is none. Fails where they are copied at every step as well.
#[test]
fn an_optimizer_is_taken_at_its_word_after_its_first_update() {
    let mut run = Run::new(|model| Bare::new(model, 2, FailedUpdate::Impossible), 2, true);
    let start = bits(&run.model);
    let mut here = gradients(&run.model, &[1.0; WEIGHTS]);
    let gathered = run.newton.step_owned(&mut run.model, &mut here, 1.0);
    assert_eq!(gathered.unwrap(), Step::Gathered);
    UNTIL_FAILURE.set(Some(0));
    run.newton.step_owned(&mut run.model, &mut here, 1.0).unwrap_err();
    assert_eq!(bits(&run.model), start);

    run.step().unwrap();
    let moved = bits(&run.model);
    run.newton.step_owned(&mut run.model, &mut here, 1.0).unwrap();
    UNTIL_FAILURE.set(Some(0));
    run.newton.step_owned(&mut run.model, &mut here, 1.0).unwrap_err();
    assert_ne!(bits(&run.model), moved, "it said that it would not fail");
}

/// Gathers two batches a step, on a device that once has no memory for the copy of the gradients.
struct NoMemory {
    gathers: Accumulate<Rule>,
    fails: Cell<bool>,
}

impl Optimizer<Net, Cpu, f64> for NoMemory {
    fn update(
        &mut self,
        model: &mut Net,
        gradients: &Gradients<f64, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        self.gathers.update(model, gradients)
    }
}

impl TunableOptimizer for NoMemory {
    type Model = Net;
    type Dtype = f64;
    type Device = Cpu;

    forward! { Self { gathers, .. } => gathers; but complete_gradients; }

    fn complete_gradients(
        &self,
        model: &Net,
        gradients: &Gradients<f64, Cpu>,
    ) -> CompleteGradients<Self> {
        match self.fails.take() {
            true => Err(OptimizerUpdateError::DeviceError(CpuError::OutOfMemory)),
            false => self.gathers.complete_gradients(model, gradients),
        }
    }
}

// Fails if gathered gradients are dropped for a failure before the update has begun.
#[test]
fn what_fails_before_an_update_leaves_what_is_gathered() {
    let optimizer = |model: &Net| NoMemory {
        gathers: Accumulate::new(rule(model), 2).unwrap(),
        fails: Cell::new(false),
    };
    let mut run = Run::new(optimizer, 1, false);
    assert_eq!(run.step(), Ok(Step::Gathered));
    run.newton.optimizer().fails.set(true);
    assert!(matches!(run.step(), Err(Error::Device(_))));
    assert_eq!(run.step(), Ok(Step::Made));
}
