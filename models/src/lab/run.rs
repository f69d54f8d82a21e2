//! One contender on one problem.

use super::{clock::Clock, Contender, Problem, Tested};
use crate::{
    baselines::{
        has_buffers, AnyPeer, PeerError, PeerOptimizer, RangePoint, RangeTest, Sgd, RECALIBRATION,
    },
    sweep::{how_it_ended, Ended},
    train::{train_step, Learner, TrainError},
};
use dfdx::prelude::{Cache, Cpu, Gradients};
use tlr::{Error, Schedule};

/// How many points a curve has, without the one before the first step.
pub const POINTS: usize = 20;

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
}

/// The steps after which a test is made.
fn marks(steps: usize) -> Vec<usize> {
    let mut marks: Vec<_> = (1..=POINTS).map(|n| steps * n / POINTS).filter(|&m| m > 0).collect();
    marks.dedup();
    marks
}

/// Trains a new model of `problem` as `contender` does.
///
/// The result, but for the seconds, depends on the three arguments only. A run that diverges is a
/// result.
///
/// # Errors
/// All but divergence: no memory, settings out of range.
pub fn train<P: Problem>(
    problem: &P,
    contender: &Contender,
    seed: u64,
) -> Result<Trained, TrainError> {
    let device = Cpu::seed_from_u64(seed);
    device.try_enable_cache()?;
    let budget = problem.budget();
    let run = Run { problem, device: &device, seed };
    let mut model = problem.build(&device)?;
    let mut clock = Clock::start();
    let (contender, searched) = match contender.search() {
        Some(search) => {
            let curve = run.range_test(&model, search)?;
            (contender.at(&curve), curve.len())
        }
        None => (contender.clone(), 0),
    };
    let mut learner = contender.learner(&model, budget)?;
    let mut seconds = clock.seconds();
    let mut trained = Trained {
        points: Vec::new(),
        diverged: None,
        searched,
        steps: 0,
        seconds: 0.0,
        rates: Vec::new(),
    };
    trained.points.push(run.point(&*learner, &model, 0, searched, seconds)?);
    clock = Clock::start();
    let marks = marks(budget.steps());
    let mut gradients = None;
    'run: for epoch in 0..budget.epochs {
        for batch in problem.epoch(epoch, seed)? {
            let stepped = run.step(&mut *learner, &mut model, &batch, &mut gradients);
            if let Err(error) = stepped {
                let (ended, words) = match error {
                    TrainError::Rate(_) => how_it_ended(error),
                    error => return Err(error),
                };
                if ended == Ended::Failed {
                    return Err(TrainError::Rate(Error::Device(words)));
                }
                trained.diverged = Some(words);
                break 'run;
            }
            trained.steps += 1;
            if marks.binary_search(&trained.steps).is_ok() {
                seconds += clock.seconds();
                let step = searched + trained.steps;
                trained.points.push(run.point(&*learner, &model, epoch, step, seconds)?);
                clock = Clock::start();
            }
        }
    }
    if trained.points.last().is_some_and(|point| point.loss.is_none()) {
        trained.diverged.get_or_insert_with(|| "the loss of the test is not finite".to_owned());
    }
    trained.seconds = seconds + clock.seconds();
    trained.rates =
        learner.rates().into_iter().map(|(name, rate)| (name.to_owned(), rate)).collect();
    Ok(trained)
}

/// What stays the same during a run.
struct Run<'a, P> {
    problem: &'a P,
    device: &'a Cpu,
    seed: u64,
}

impl<P: Problem> Run<'_, P> {
    fn step(
        &self,
        learner: &mut dyn Learner<P::Model>,
        model: &mut P::Model,
        batch: &[usize],
        gradients: &mut Option<Gradients<f32, Cpu>>,
    ) -> Result<f64, TrainError> {
        let loss = &mut |model: &mut P::Model, gradients| {
            self.problem.loss(self.device, model, batch, gradients)
        };
        train_step(learner, model, gradients, loss)
    }

    /// Tests the model that is to be used, which for some is an average of those that are trained.
    fn point(
        &self,
        learner: &dyn Learner<P::Model>,
        model: &P::Model,
        epoch: usize,
        step: usize,
        seconds: f64,
    ) -> Result<Point, TrainError> {
        let mut averaged = learner.averaged(model);
        if let Some(averaged) = averaged.as_mut().filter(|_| has_buffers(model)) {
            for batch in self.problem.epoch(epoch, self.seed)?.iter().take(RECALIBRATION) {
                self.problem.loss(self.device, averaged, batch, Gradients::leaky())?;
            }
        }
        let tested = self.problem.test(self.device, averaged.as_ref().unwrap_or(model))?;
        let finite = tested.loss.is_finite();
        Ok(Point {
            step,
            seconds,
            loss: finite.then_some(tested.loss),
            accuracy: tested.accuracy.filter(|_| finite),
        })
    }

    /// The range test, on a copy of the model.
    fn range_test(&self, model: &P::Model, base: &Sgd) -> Result<Vec<RangePoint>, TrainError> {
        let mut model = model.clone();
        let (test, ramp) = (RangeTest::default(), RangeTest::default());
        let rates = Schedule::from_fn(move |step| ramp.rate(step as usize));
        let rule = AnyPeer::from(Sgd { lr: 1.0, ..base.clone() });
        let mut optimizer = PeerOptimizer::new(&model, rule)?.schedule(rates)?;
        let mut batches = Vec::new();
        let (mut epoch, mut gradients) = (0, None);
        test.run(|_| {
            if batches.is_empty() {
                batches = self.problem.epoch(epoch, self.seed)?;
                batches.reverse();
                epoch += 1;
            }
            let Some(batch) = batches.pop() else { return Err(TrainError::NoEpochs) };
            match self.step(&mut optimizer, &mut model, &batch, &mut gradients) {
                // The rate has become too large, and the range test ends.
                Err(TrainError::Rate(
                    Error::NonFiniteLoss { .. } | Error::NonFiniteStep { .. },
                )) => Ok(f64::INFINITY),
                stepped => stepped,
            }
        })
    }
}

impl From<PeerError> for TrainError {
    fn from(error: PeerError) -> Self {
        Self::Rate(error.into())
    }
}
