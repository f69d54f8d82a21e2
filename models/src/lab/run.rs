//! One contender on one problem.

use super::{
    clock::Clock, measures::spread, memory, Batch, Contender, Problem, TaskDevice, Tested,
};
use crate::{
    baselines::{recalibrated, AnyPeer, PeerError, RangePoint, RangeTest, Sgd},
    data::DataError,
    sweep::{how_it_ended, Ended, NO_FINITE_LOSS},
    train::{train_step, Learner, Opened, TrainDevice, TrainError},
};
use dfdx::prelude::Gradients;
use tlr::Schedule;

/// How many points a curve has, without the one before the first step.
pub const POINTS: usize = 20;

/// How many times the rate is read during a run.
const READINGS: usize = 200;

/// Called after every step of a run with the steps made so far and the batch's loss.
pub type WatchSteps<'a> = dyn Fn(usize, f64) + Sync + 'a;

/// The result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The test as training went on: before the first step, and 20 times after that.
    pub points: Vec<Point>,
    /// Why the run ended early, if it did.
    pub diverged: Option<String>,
    /// How many steps were spent on looking for a rate before training began.
    pub searched: usize,
    /// How many steps were made, without those.
    pub steps: usize,
    /// Seconds that a processor has spent, tests left out.
    pub seconds: f64,
    /// The rates at the end, by name.
    pub rates: Vec<(String, f64)>,
    /// The rate during the run, schedule included, as (step, rate); of several rates, the geometric
    /// mean. Empty for an optimizer without a rate.
    pub rate_curve: Vec<(usize, f64)>,
    /// The bytes that the optimizer keeps beside the weights, counted at the end. None where the
    /// run ended in the middle of a step.
    pub memory: Option<usize>,
}

impl Trained {
    /// The last test; none if the run diverged.
    pub fn last(&self) -> Option<Tested> {
        let point = self.points.last().filter(|_| self.diverged.is_none())?;
        Some(Tested { loss: point.loss?, accuracy: point.accuracy })
    }
}

/// A test in the middle of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Steps so far, those of a search for the rate included.
    pub step: usize,
    /// Seconds that a processor has spent so far, tests left out.
    pub seconds: f64,
    /// The loss; none if it is not finite.
    pub loss: Option<f64>,
    /// The accuracy, from 0 to 1.
    pub accuracy: Option<f64>,
    /// The mean loss of the batches since the test before; none if it is not finite, and before the
    /// first step.
    pub train: Option<f64>,
}

/// `count` steps among `steps`, as far apart as possible.
fn marks(steps: usize, count: usize) -> Vec<usize> {
    let (whole, rest) = (steps / count, steps % count);
    let marks = (1..=count).map(|n| whole * n + rest * n / count);
    let mut marks: Vec<_> = marks.filter(|&mark| mark > 0).collect();
    marks.dedup();
    marks
}

/// Trains a new model of `problem` as `contender` does, and tells `watch` how far it is.
///
/// The result, but for the seconds, depends on the first three arguments only. A run that diverges
/// is a result.
///
/// # Errors
/// Any error but divergence: too little memory, or settings out of range.
///
/// Example: [the laboratory](super), which calls it for each cell.
pub fn train<P: Problem>(
    problem: &P,
    contender: &Contender,
    seed: u64,
    watch: &WatchSteps<'_>,
) -> Result<Trained, TrainError> {
    let device = Opened::<P::Device>::new(seed)?;
    let budget = problem.budget();
    let run = Run { problem, device: &device, seed };
    let mut model = problem.build(&device)?;
    let (mut clock, mut searched) = (Clock::start(P::Device::ON_THE_THREAD), 0);
    let mut learner = contender.learner(&model, budget, |base| {
        let curve = run.range_test(&model, base)?;
        searched = curve.len();
        Ok(curve)
    })?;
    let mut seconds = clock.seconds();
    let mut trained = Trained {
        points: Vec::new(),
        diverged: None,
        searched,
        steps: 0,
        seconds: 0.0,
        rates: Vec::new(),
        rate_curve: Vec::new(),
        memory: None,
    };
    trained.points.push(run.point(&*learner, &model, 0, searched, seconds)?);
    clock = Clock::start(P::Device::ON_THE_THREAD);
    let (tests, readings) = (marks(budget.steps(), POINTS), marks(budget.steps(), READINGS));
    let (mut losses, mut gradients) = (Vec::new(), None);
    'run: for epoch in 0..budget.epochs {
        for examples in problem.epoch(epoch, seed)? {
            let batch = Batch { examples: &examples, epoch, seed };
            match run.step(&mut *learner, &mut model, batch, &mut gradients) {
                Ok(loss) => {
                    losses.push(loss);
                    watch(trained.steps + 1, loss);
                }
                Err(error) => {
                    let (Ended::Diverged, words) = how_it_ended(&error) else { return Err(error) };
                    trained.diverged = Some(words);
                    break 'run;
                }
            }
            trained.steps += 1;
            if readings.binary_search(&trained.steps).is_ok() {
                let rate = rate(&*learner).map(|rate| (searched + trained.steps, rate));
                trained.rate_curve.extend(rate);
            }
            if tests.binary_search(&trained.steps).is_ok() {
                seconds += clock.seconds();
                let step = searched + trained.steps;
                let mut point = run.point(&*learner, &model, epoch, step, seconds)?;
                point.train = spread(&losses).map(|(mean, _)| mean).filter(|loss| loss.is_finite());
                trained.points.push(point);
                losses.clear();
                clock = Clock::start(P::Device::ON_THE_THREAD);
            }
        }
    }
    if trained.points.last().is_some_and(|point| point.loss.is_none()) {
        trained.diverged.get_or_insert_with(|| NO_FINITE_LOSS.to_owned());
    }
    trained.seconds = seconds + clock.seconds();
    trained.rates =
        learner.rates().into_iter().map(|(name, rate)| (name.to_owned(), rate)).collect();
    trained.memory = learner
        .checkpoint(&model)
        .ok()
        .and_then(|all| memory::beside(&all, contender.learns_its_rate()));
    Ok(trained)
}

/// The rate of the next step; of several rates, the geometric mean. None for an optimizer without a
/// rate.
fn rate<M, D: TrainDevice>(learner: &dyn Learner<M, D>) -> Option<f64> {
    let rates = learner.rates();
    let sum: f64 = rates.iter().map(|(_, rate)| rate.ln()).sum();
    (!rates.is_empty()).then(|| learner.factor() * (sum / rates.len() as f64).exp())
}

/// What stays the same during a run.
struct Run<'a, P: Problem> {
    problem: &'a P,
    device: &'a P::Device,
    seed: u64,
}

impl<P: Problem> Run<'_, P> {
    fn step(
        &self,
        learner: &mut dyn Learner<P::Model, P::Device>,
        model: &mut P::Model,
        batch: Batch<'_>,
        gradients: &mut Option<Gradients<f32, P::Device>>,
    ) -> Result<f64, TrainError> {
        let loss = &mut |model: &mut P::Model, gradients| {
            self.problem.loss(self.device, model, batch, gradients)
        };
        train_step(learner, model, gradients, loss).map(|(loss, _)| loss)
    }

    /// Tests the model that is to be used. For some optimizers it is an average of the models that
    /// were trained.
    fn point(
        &self,
        learner: &dyn Learner<P::Model, P::Device>,
        model: &P::Model,
        epoch: usize,
        step: usize,
        seconds: f64,
    ) -> Result<Point, TrainError> {
        let averaged = learner.averaged(model).map(|averaged| {
            recalibrated(averaged, self.problem.budget().batches, |averaged, skip| {
                for examples in self.problem.epoch(epoch, self.seed)?.iter().skip(skip) {
                    let batch = Batch { examples, epoch, seed: self.seed };
                    self.problem.loss(self.device, averaged, batch, Gradients::leaky())?;
                }
                Ok::<_, TrainError>(())
            })
        });
        let averaged = averaged.transpose()?;
        let tested = self.problem.test(self.device, averaged.as_ref().unwrap_or(model))?;
        let finite = tested.loss.is_finite();
        Ok(Point {
            step,
            seconds,
            loss: finite.then_some(tested.loss),
            accuracy: tested.accuracy.filter(|_| finite),
            train: None,
        })
    }

    /// The range test, on a copy of the model.
    fn range_test(&self, model: &P::Model, base: &Sgd) -> Result<Vec<RangePoint>, TrainError> {
        let mut model = model.clone();
        let (test, ramp) = (RangeTest::default(), RangeTest::default());
        let rates = Schedule::from_fn(move |step| ramp.rate(step as usize));
        let rule = AnyPeer::from(Sgd { lr: 1.0, ..base.clone() });
        let mut optimizer = P::Device::peer(&model, rule, Some(rates))?;
        let mut batches = Vec::new();
        let (mut epoch, mut gradients) = (0, None);
        test.run(|_| {
            if batches.is_empty() {
                batches = self.problem.epoch(epoch, self.seed)?;
                batches.reverse();
                epoch += 1;
            }
            let Some(examples) = batches.pop() else {
                return Err(DataError::Zero { what: "the number of batches in an epoch" }.into());
            };
            let batch = Batch { examples: &examples, epoch: epoch - 1, seed: self.seed };
            match self.step(&mut *optimizer, &mut model, batch, &mut gradients) {
                // The rate has become too large, and the range test ends.
                Err(TrainError::Peer(
                    PeerError::NonFiniteLoss { .. } | PeerError::NonFinite { .. },
                )) => Ok(f64::INFINITY),
                stepped => stepped,
            }
        })
    }
}
