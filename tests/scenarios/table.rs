//! The table: every row is run in every way that was chosen, and beside the best constant rate.

use super::{
    base::{Base, Rule},
    expected::EXPECTED,
    job::{Job, Start},
    report, rows,
    ways::{self, Way, CONSTANTS},
};
use dfdx::prelude::*;
use std::{
    env,
    panic::{catch_unwind, AssertUnwindSafe},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Mutex,
    },
    thread,
};
use support::values::values;
use tlr::{
    optim::Elementwise, Adaptation, Newton, NewtonConfig, Outcome, PerLayer, TrainableLr,
    TunableOptimizer,
};

/// Runs a row's job by a plan, with a seed.
type RunOf = dyn Fn(&Settings, Plan, u64) -> Run + Send + Sync;

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    settings: Settings,
    run: Box<RunOf>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    steps: usize,
    batch: usize,
    /// What `batches_per_epoch` is told.
    epoch: usize,
    decay: f64,
    /// How large the loss is. Constants around optimizers that depend on it are divided by it.
    scale: f64,
}

/// How one run chooses its rate.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Constant(Base, f64),
    Learned(Way),
}

/// What came of one run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The mean over the last five evaluations, as a share of the unit.
    pub(crate) error: f64,
    pub(crate) finite: bool,
    pub(crate) failed_steps: usize,
    pub(crate) first_failure: Option<String>,
    pub(crate) rates: Vec<f64>,
    /// The rates that the start came to, and the step.
    pub(crate) started: Vec<f64>,
    pub(crate) started_at: u64,
}

/// The error that is added to both sides of a comparison.
const AS_GOOD_AS_SOLVED: f64 = 0.01;
/// How much worse than the best constant a cell may be.
const TOLERANCE: f64 = 1.5;
/// How much worse than the best constant another good one may be.
const AS_GOOD: f64 = 1.1;
/// The fault of a cell that is worse.
const TOO_HIGH: &str = "error";

impl Row {
    /// A row by its name, its number of steps, and what makes its job. By default a batch has
    /// sixteen examples, and an epoch a hundred batches.
    pub(crate) fn new<M>(
        name: &'static str,
        steps: usize,
        make: impl Fn(&mut Start) -> Job<M> + Send + Sync + 'static,
    ) -> Self
    where
        M: TrainableLr<f32, Cpu> + TensorCollection<f32, Cpu> + Clone + 'static,
    {
        let settings = Settings { steps, batch: 16, epoch: 100, decay: 0.0, scale: 1.0 };
        let run = move |settings: &Settings, plan, seed| {
            let mut start = Start::new(seed, settings.batch);
            let job = make(&mut start);
            let done = catch_unwind(AssertUnwindSafe(|| run(settings, plan, job)));
            // dfdx does not free what a device has kept for reuse.
            start.dev.empty_cache();
            done.unwrap_or_else(|panic| Run {
                error: f64::INFINITY,
                finite: false,
                failed_steps: 1,
                first_failure: Some(format!("panicked: {:?}", panic.downcast_ref::<String>())),
                rates: Vec::new(),
                started: Vec::new(),
                started_at: 0,
            })
        };
        Self { name, settings, run: Box::new(run) }
    }

    pub(crate) fn batch(mut self, examples: usize) -> Self {
        self.settings.batch = examples;
        self
    }

    pub(crate) fn epoch(mut self, batches: usize) -> Self {
        self.settings.epoch = batches;
        self
    }

    pub(crate) fn decay(mut self, decay: f64) -> Self {
        self.settings.decay = decay;
        self
    }

    pub(crate) fn scale(mut self, scale: f64) -> Self {
        self.settings.scale = scale;
        self
    }

    fn run(&self, plan: Plan, seed: u64) -> Run {
        (self.run)(&self.settings, plan, seed)
    }

    /// The errors of constant rates.
    ///
    /// The errors over the rates are a valley. The search goes from the largest rate down, and ends
    /// where the error has risen twice in a row, to more than twice the best one.
    fn constants(&self, base: Base, seed: u64) -> Constants {
        let scale = if base.forgets_scale() { 1.0 } else { self.settings.scale };
        let (mut all, mut last, mut risen) = (Constants::default(), f64::INFINITY, 0);
        for rate in CONSTANTS.map(|rate| rate / scale) {
            let error = self.run(Plan::Constant(base, rate), seed).error;
            all.0.push((error, rate));
            let far = error + AS_GOOD_AS_SOLVED > 2.0 * (all.best().0 + AS_GOOD_AS_SOLVED);
            risen = if far && error > last { risen + 1 } else { 0 };
            last = error;
            if risen == 2 {
                break;
            }
        }
        all
    }
}

/// Constant rates with their errors: pairs of an error and a rate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Constants(pub(crate) Vec<(f64, f64)>);

impl Constants {
    /// The best one: its error and its rate. NaN and an infinite error where none is finite.
    pub(crate) fn best(&self) -> (f64, f64) {
        let better = |a: (f64, f64), b: &(f64, f64)| if b.0 < a.0 { *b } else { a };
        self.0.iter().fold((f64::INFINITY, f64::NAN), better)
    }

    /// The lowest and the highest rate whose error is at most a tenth above that of the best one.
    pub(crate) fn good(&self) -> (f64, f64) {
        let most = AS_GOOD * (self.best().0 + AS_GOOD_AS_SOLVED);
        let good = self.0.iter().filter(|(error, _)| error + AS_GOOD_AS_SOLVED <= most);
        good.fold((f64::INFINITY, 0.0), |(from, to), (_, rate)| (from.min(*rate), to.max(*rate)))
    }
}

/// A cell of the table, run with one seed.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) row: &'static str,
    pub(crate) batch: usize,
    pub(crate) seed: u64,
    pub(crate) way: Way,
    pub(crate) run: Run,
    /// The constants that it is compared with.
    pub(crate) constants: Constants,
}

impl Cell {
    /// The error over that of the best constant.
    pub(crate) fn ratio(&self) -> f64 {
        (self.run.error + AS_GOOD_AS_SOLVED) / (self.constants.best().0 + AS_GOOD_AS_SOLVED)
    }

    /// Whether a step failed, or something is not finite.
    pub(crate) fn is_broken(&self) -> bool {
        let faults = self.faults();
        faults.iter().any(|fault| *fault != TOO_HIGH)
    }

    /// By which factor the starting rates are outside of the good constants, the one that is
    /// furthest. At least 1. None without a start, or where no constant learns.
    pub(crate) fn level_off(&self) -> Option<f64> {
        let (from, to) = self.constants.good();
        let off = |rate: &f64| (from / rate).max(rate / to).max(1.0);
        let learns = self.constants.best().0 <= 0.9;
        self.run.started.iter().map(off).reduce(f64::max).filter(|_| learns)
    }

    /// What is wrong with it, or nothing.
    pub(crate) fn faults(&self) -> Vec<&'static str> {
        // With this seed no constant learns: the error says nothing.
        let best = self.constants.best().0;
        let says_nothing = best.is_nan() || best > 0.9;
        // A ratio that is NaN is too high as well.
        let too_high = self.ratio().is_nan() || self.ratio() > TOLERANCE;
        let faults = [
            (self.run.failed_steps > 0, "failed steps"),
            (!self.run.finite, "weights not finite"),
            (self.run.rates.iter().any(|rate| !rate.is_finite()), "rates not finite"),
            (too_high && !says_nothing, TOO_HIGH),
        ];
        faults.into_iter().filter_map(|(is, fault)| is.then_some(fault)).collect()
    }
}

/// Runs the table; the report of all that failed is the error.
pub(crate) fn judge() -> Result<(), String> {
    let names = env::var("TLR_SCENARIO").unwrap_or_default();
    let chosen = |name: &str| names.split(',').any(|part| name.contains(part));
    let rows: Vec<Row> = rows::all().into_iter().filter(|row| chosen(row.name)).collect();
    assert!(!rows.is_empty(), "no row is named {names}");
    let seeds = seeds(3);
    let all = env::var("TLR_SCENARIOS_ALL").is_ok_and(|all| all == "1");

    let units: Vec<(&Row, u64, Base)> = rows
        .iter()
        .flat_map(|row| (0..seeds).flat_map(move |n| Base::ALL.map(|base| (row, n, base))))
        .collect();
    let mut cells = of_all(&units, |(row, nth, base)| {
        let ways = if all { ways::all(*base) } else { ways::covering(*base, *nth) };
        cells(row, nth + 1, ways, *base)
    });
    let place = |cell: &Cell| rows.iter().position(|row| row.name == cell.row);
    cells.sort_by_key(|cell: &Cell| (place(cell), cell.way.base as usize, cell.seed));
    report::write_if_asked(&cells);
    report::judge(&cells, EXPECTED, seeds)
}

/// The error of a row at a constant rate, after its number of steps and after four times as many.
pub(crate) fn early_and_late(name: &str, base: Base, rate: f64, seed: u64) -> [f64; 2] {
    let row = rows::all().into_iter().find(|row| row.name == name).unwrap();
    [1, 4].map(|times| {
        let settings = Settings { steps: times * row.settings.steps, ..row.settings };
        (row.run)(&settings, Plan::Constant(base, rate), seed).error
    })
}

/// How many seeds are asked for.
pub(crate) fn seeds(by_default: u64) -> u64 {
    env::var("TLR_SCENARIO_SEEDS").map_or(by_default, |seeds| seeds.parse().unwrap())
}

/// The cells of all units, each made by one of as many workers as there are processors.
pub(crate) fn of_all<T: Sync>(units: &[T], cells: impl Fn(&T) -> Vec<Cell> + Sync) -> Vec<Cell> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            let cells = cells(unit);
            done.lock().unwrap().extend(cells);
        }
    };
    // Each worker is a pool of its own for the layers of `tlr-models`, which would share work out.
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work)
            });
        }
    });
    done.into_inner().unwrap()
}

/// One base optimizer's cells of a row with one seed.
pub(crate) fn cells(row: &Row, seed: u64, ways: Vec<Way>, base: Base) -> Vec<Cell> {
    let constants = row.constants(base, seed);
    let cell = |way| {
        let run = row.run(Plan::Learned(way), seed);
        Cell {
            row: row.name,
            batch: row.settings.batch,
            seed,
            way,
            run,
            constants: constants.clone(),
        }
    };
    ways.into_iter().map(cell).collect()
}

fn run<M>(settings: &Settings, plan: Plan, job: Job<M>) -> Run
where
    M: TrainableLr<f32, Cpu> + TensorCollection<f32, Cpu> + Clone,
{
    let (base, lr) = match plan {
        Plan::Constant(base, rate) => (base, rate),
        Plan::Learned(Way { base, start, .. }) => (base, start),
    };
    let rule = Rule { base, lr, decay: settings.decay };
    let mut plain = Elementwise::new(&job.model, rule);
    match plan {
        Plan::Constant(..) => train(settings.steps, job, &mut |model: &mut M, gradients, loss| {
            if !loss.is_finite() {
                return Err(Stop::ForGood);
            }
            plain.update(model, gradients).map_err(|error| Stop::Step(format!("{error:?}")))
        }),
        Plan::Learned(way) if way.per_layer => {
            let optimizer = PerLayer::new(&job.model, plain);
            learn(settings, way, optimizer, job)
        }
        Plan::Learned(way) => learn(settings, way, plain, job),
    }
}

fn learn<Opt>(settings: &Settings, way: Way, optimizer: Opt, job: Job<Opt::Model>) -> Run
where
    Opt: TunableOptimizer<Dtype = f32, Device = Cpu>,
    Opt::Model: ZeroGrads<f32, Cpu> + TensorCollection<f32, Cpu>,
{
    let config = NewtonConfig::default().batches_per_epoch(settings.epoch);
    let config = config.horizon(way.horizon.then_some(settings.steps as u64));
    let mut newton = Newton::new(&job.model, optimizer, config).unwrap();
    let mut run = train(settings.steps, job, &mut |model: &mut Opt::Model, gradients, loss| {
        let step = match way.told {
            true => newton.step(model, gradients, loss),
            false => newton.update(model, gradients),
        };
        step.map(drop).map_err(|error| Stop::Step(error.to_string()))
    });
    run.rates = newton.rates().into_iter().map(|(_, rate)| rate).collect();
    let ramped = newton.history().iter().rfind(|decision| decision.outcome == Outcome::Ramped);
    run.started_at = ramped.map_or(0, |decision| decision.step);
    let at_the_end = |decision: &&Adaptation| {
        decision.outcome == Outcome::Ramped && decision.step == run.started_at
    };
    run.started = newton.history().iter().filter(at_the_end).map(|decision| decision.to).collect();
    run
}

/// Why a step was not made.
enum Stop {
    /// It failed; the next may not.
    Step(String),
    /// Nothing can be expected any more.
    ForGood,
}

/// Makes each step by gradients and loss.
type StepOf<'a, M> = dyn FnMut(&mut M, &Gradients<f32, Cpu>, f32) -> Result<(), Stop> + 'a;

fn train<M>(steps: usize, job: Job<M>, step: &mut StepOf<'_, M>) -> Run
where
    M: ZeroGrads<f32, Cpu> + TensorCollection<f32, Cpu>,
{
    let Job { mut model, mut loss, error, unit } = job;
    let (mut errors, mut failed_steps, mut first_failure) = (Vec::new(), 0, None);
    for n in 0..steps {
        let gradients = model.alloc_grads();
        let loss = loss(&mut model, gradients, n);
        let value = loss.array();
        match step(&mut model, &loss.backward(), value) {
            Ok(()) => (),
            Err(Stop::ForGood) => {
                errors.push(f64::INFINITY);
                break;
            }
            Err(Stop::Step(failure)) => {
                failed_steps += 1;
                first_failure.get_or_insert(format!("step {n}: {failure}"));
            }
        }
        let (left, apart) = (steps - n - 1, steps / 50);
        if left.is_multiple_of(apart) && left < 5 * apart {
            errors.push(error(&model) / unit);
        }
    }
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    Run {
        error: if mean.is_nan() { f64::INFINITY } else { mean },
        finite: values(&model).iter().all(|value| value.is_finite()),
        failed_steps,
        first_failure,
        rates: Vec::new(),
        started: Vec::new(),
        started_at: 0,
    }
}
