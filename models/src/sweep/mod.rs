//! A grid of training runs, on all cores, that can be stopped and gone on with.

use crate::{
    data::Dataset,
    report::{self, Epoch},
    train::{self, Base, InMemory, Mode, Net, Options, Persistence, Rule, Run, Shape, TrainError},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

/// Which runs: every combination of what the fields list.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Base optimizers.
    pub optimizers: Vec<Base>,
    /// One rate or one a layer.
    pub modes: Vec<Mode>,
    /// How the rate moves.
    pub rules: Vec<Rule>,
    /// Starting rates.
    pub rates: Vec<f64>,
    /// Images in a batch.
    pub batch_sizes: Vec<usize>,
    /// p.
    pub window_fractions: Vec<f64>,
    /// γ, for the Newton rules.
    pub dampings: Vec<f64>,
    /// η, for the first-order rules.
    pub meta_rates: Vec<f64>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Whether windows that go wrong are undone.
    pub safeguard: bool,
    /// Passes over the training images.
    pub epochs: usize,
}

impl Grid {
    /// The runs, each once: what a rule does not use stands at its default.
    ///
    /// ```
    /// use tlr_models::{sweep::Grid, train::{Base, Mode, Rule}};
    ///
    /// let grid = Grid {
    ///     optimizers: vec![Base::Sgd],
    ///     modes: vec![Mode::Global, Mode::PerLayer],
    ///     rules: vec![Rule::Aligned, Rule::Constant],
    ///     rates: vec![1e-1, 1e-6],
    ///     batch_sizes: vec![128],
    ///     window_fractions: vec![0.2],
    ///     dampings: vec![0.2, 0.33],
    ///     meta_rates: vec![1e-2],
    ///     seeds: vec![0],
    ///     safeguard: true,
    ///     epochs: 20,
    /// };
    /// // A constant rate knows neither layers nor damping.
    /// assert_eq!(grid.cells().len(), 2 * 2 * 2 + 2);
    /// ```
    pub fn cells(&self) -> Vec<Options> {
        let mut cells = Vec::new();
        let mut seen = HashSet::new();
        let mut add = |options: Options| {
            let options = canonical(options);
            if seen.insert(id(&options)) {
                cells.push(options);
            }
        };
        // The seed is outermost: a sweep that is stopped early has whole grids.
        for &seed in &self.seeds {
            for &optimizer in &self.optimizers {
                for &mode in &self.modes {
                    for &rule in &self.rules {
                        for &meta_rate in &self.meta_rates {
                            for &window_fraction in &self.window_fractions {
                                for &damping in &self.dampings {
                                    for &batch_size in &self.batch_sizes {
                                        for &rate in &self.rates {
                                            add(Options {
                                                optimizer,
                                                mode,
                                                rule,
                                                rate,
                                                ramp: true,
                                                batch_size,
                                                window_fraction,
                                                damping,
                                                meta_rate,
                                                weight_decay: 0.0,
                                                schedule: Shape::Constant,
                                                safeguard: self.safeguard,
                                                sketch: None,
                                                bf16_directions: false,
                                                epochs: self.epochs,
                                                seed,
                                            });
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        cells
    }
}

fn canonical(options: Options) -> Options {
    let default = Options::default();
    match options.rule {
        Rule::Aligned | Rule::Paper => Options { meta_rate: default.meta_rate, ..options },
        Rule::Additive | Rule::Multiplicative => Options { damping: default.damping, ..options },
        Rule::Constant => Options {
            meta_rate: default.meta_rate,
            damping: default.damping,
            window_fraction: default.window_fraction,
            mode: default.mode,
            safeguard: false,
            ..options
        },
    }
}

/// The images as they are, in the batches that `options` ask for.
fn source<'a>(data: &'a Dataset, options: &Options) -> Result<InMemory<'a>, TrainError> {
    InMemory::new(data, options.batch_size, options.seed, None)
}

/// What tells a run from every other, in a line.
fn id(options: &Options) -> String {
    let Options { optimizer, mode, rule, rate, batch_size, window_fraction, damping, .. } = options;
    format!(
        "{} {} {} {rate:e} b{batch_size} p{window_fraction} g{damping} m{:e} {} e{} s{}",
        train::name(optimizer),
        train::name(mode),
        train::name(rule),
        options.meta_rate,
        if options.safeguard { "guarded" } else { "unguarded" },
        options.epochs,
        options.seed,
    )
}

/// The same of a run on some data.
fn cell(data: &str, options: &Options) -> String {
    format!("{data} {}", id(options))
}

/// A run that is done: a line of `results.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The data set's name and number of training images.
    pub data: String,
    /// See [`Options`], as for the next ten.
    pub optimizer: Base,
    #[allow(missing_docs)]
    pub mode: Mode,
    #[allow(missing_docs)]
    pub rule: Rule,
    #[allow(missing_docs)]
    pub rate: f64,
    #[allow(missing_docs)]
    pub batch_size: usize,
    #[allow(missing_docs)]
    pub window_fraction: f64,
    #[allow(missing_docs)]
    pub damping: f64,
    #[allow(missing_docs)]
    pub meta_rate: f64,
    #[allow(missing_docs)]
    pub safeguard: bool,
    #[allow(missing_docs)]
    pub epochs: usize,
    #[allow(missing_docs)]
    pub seed: u64,
    /// At the end, from 0 to 1. None where the run ended in an error, as for the losses.
    pub test_accuracy: Option<f64>,
    /// At the end.
    pub test_loss: Option<f64>,
    /// Mean over the last epoch.
    pub train_loss: Option<f64>,
    /// Windows undone.
    pub rollbacks: usize,
    /// Those after the first epoch.
    pub late_rollbacks: usize,
    /// Each layer's name and rate at the end.
    pub final_rates: String,
    /// Of the run, on one core.
    pub seconds: f64,
    /// What ended it early.
    pub error: String,
}

impl Record {
    fn new(data: &str, options: &Options, run: Result<&Run, String>) -> Self {
        let (run, error) = match run {
            Ok(run) => (Some(run), String::new()),
            Err(error) => (None, error),
        };
        let epochs = run.map_or(&[][..], |run| &run.epochs);
        let last = epochs.last();
        let rollbacks = |epochs: &[Epoch]| epochs.iter().map(|epoch| epoch.rollbacks).sum();
        let finite = |value: f64| value.is_finite().then_some(value);
        Self {
            data: data.to_owned(),
            optimizer: options.optimizer,
            mode: options.mode,
            rule: options.rule,
            rate: options.rate,
            batch_size: options.batch_size,
            window_fraction: options.window_fraction,
            damping: options.damping,
            meta_rate: options.meta_rate,
            safeguard: options.safeguard,
            epochs: options.epochs,
            seed: options.seed,
            test_accuracy: last.map(|epoch| epoch.test_accuracy),
            test_loss: last.and_then(|epoch| finite(epoch.test_loss)),
            train_loss: last.and_then(|epoch| finite(epoch.train_loss)),
            rollbacks: rollbacks(epochs),
            late_rollbacks: rollbacks(epochs.get(1..).unwrap_or_default()),
            final_rates: last.map(|epoch| report::rates(&epoch.rates)).unwrap_or_default(),
            seconds: run.map_or(0.0, |run| run.seconds),
            error,
        }
    }

    /// The run's options.
    pub fn options(&self) -> Options {
        Options {
            optimizer: self.optimizer,
            mode: self.mode,
            rule: self.rule,
            rate: self.rate,
            ramp: true,
            batch_size: self.batch_size,
            window_fraction: self.window_fraction,
            damping: self.damping,
            meta_rate: self.meta_rate,
            weight_decay: 0.0,
            schedule: Shape::Constant,
            safeguard: self.safeguard,
            sketch: None,
            bf16_directions: false,
            epochs: self.epochs,
            seed: self.seed,
        }
    }
}

/// An epoch of a run: a line of `epochs.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The run's data and options, in one line.
    pub cell: String,
    /// Counted from 1.
    pub epoch: usize,
    /// Mean over the training set.
    pub train_loss: f64,
    /// Mean over the test set.
    pub test_loss: f64,
    /// From 0 to 1.
    pub test_accuracy: f64,
    /// Geometric mean of the layers' rates at the end of the epoch.
    pub rate: f64,
}

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// A file or folder of results could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file of results is not one of this program's.
    #[error("{}: {source}; move the file away to start anew", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: csv::Error,
    },
    /// A run cannot begin: data or options that make no sense.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// No thread to run on.
    #[error("cannot start a thread: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// The results so far, on disk: `results.csv` and `epochs.csv` in one folder.
///
/// A run's epochs are written before its line in `results.csv`, which makes it count. Killed at any
/// moment, a sweep loses only the runs that were going on.
#[derive(Debug)]
pub struct Results {
    data: String,
    records: Table<Record>,
    epochs: Table<EpochRecord>,
}

impl Results {
    /// Reads what `folder` has, or makes it. `data` names what is trained on: runs on other data do not
    /// count as done.
    ///
    /// # Errors
    /// [`SweepError::Io`], [`SweepError::Csv`].
    pub fn open(folder: &Path, data: &str) -> Result<Self, SweepError> {
        fs::create_dir_all(folder)
            .map_err(|source| SweepError::Io { path: folder.to_owned(), source })?;
        let records = Table::<Record>::open(folder.join("results.csv"))?;
        let mut epochs = Table::<EpochRecord>::open(folder.join("epochs.csv"))?;
        let done: HashSet<_> =
            records.rows.iter().map(|record| cell(&record.data, &record.options())).collect();
        if epochs.rows.iter().any(|epoch| !done.contains(&epoch.cell)) {
            epochs.rows.retain(|epoch| done.contains(&epoch.cell));
            epochs.rewrite()?;
        }
        Ok(Self { data: data.to_owned(), records, epochs })
    }

    /// The record of a run, if it is done.
    pub fn of(&self, options: &Options) -> Option<&Record> {
        let wanted = id(&canonical(*options));
        self.records
            .rows
            .iter()
            .find(|record| record.data == self.data && id(&record.options()) == wanted)
    }

    /// The epochs of a run that is done.
    pub fn epochs_of(&self, options: &Options) -> Vec<&EpochRecord> {
        let wanted = cell(&self.data, &canonical(*options));
        self.epochs.rows.iter().filter(|epoch| epoch.cell == wanted).collect()
    }

    fn add(&mut self, options: &Options, run: Result<Run, String>) -> Result<(), SweepError> {
        let cell = cell(&self.data, options);
        if let Ok(run) = &run {
            let epochs = run.epochs.iter().map(|epoch| EpochRecord {
                cell: cell.clone(),
                epoch: epoch.epoch,
                train_loss: epoch.train_loss,
                test_loss: epoch.test_loss,
                test_accuracy: epoch.test_accuracy,
                rate: geometric_mean(&epoch.rates),
            });
            self.epochs.append(epochs.collect())?;
        }
        let record = Record::new(&self.data, options, run.as_ref().map_err(Clone::clone));
        self.records.append(vec![record])
    }
}

fn geometric_mean(rates: &[(String, f64)]) -> f64 {
    let logs: f64 = rates.iter().map(|(_, rate)| rate.ln()).sum();
    (logs / rates.len().max(1) as f64).exp()
}

/// A CSV file and its rows.
#[derive(Debug)]
struct Table<T> {
    path: PathBuf,
    file: File,
    rows: Vec<T>,
}

impl<T: Serialize + for<'a> Deserialize<'a>> Table<T> {
    fn open(path: PathBuf) -> Result<Self, SweepError> {
        let failed = |source| SweepError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        // A line that was being written when the program was killed.
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        text.truncate(whole);
        file.set_len(whole as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let rows = csv::Reader::from_reader(&*text).into_deserialize().collect::<Result<_, _>>();
        let rows = rows.map_err(|source| SweepError::Csv { path: path.clone(), source })?;
        Ok(Self { path, file, rows })
    }

    /// Writes the rows below those that are there, in one piece.
    fn append(&mut self, rows: Vec<T>) -> Result<(), SweepError> {
        let text = self.text(&rows, self.rows.is_empty())?;
        let failed = |source| SweepError::Io { path: self.path.clone(), source };
        self.file.write_all(&text).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.rows.extend(rows);
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), SweepError> {
        let text = self.text(&self.rows, true)?;
        let failed = |source| SweepError::Io { path: self.path.clone(), source };
        self.file.set_len(0).map_err(failed)?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.write_all(&text).map_err(failed)
    }

    fn text(&self, rows: &[T], with_headings: bool) -> Result<Vec<u8>, SweepError> {
        let failed = |source| SweepError::Csv { path: self.path.clone(), source };
        let mut writer =
            csv::WriterBuilder::new().has_headers(with_headings).from_writer(Vec::new());
        for row in rows {
            writer.serialize(row).map_err(failed)?;
        }
        writer
            .into_inner()
            .map_err(|error| SweepError::Io { path: self.path.clone(), source: error.into_error() })
    }
}

/// Trains every one of `cells` that is not done yet, `jobs` at a time, each on a thread of its own.
///
/// `observer` is told of each as it ends. A run that diverges is a result like another.
///
/// # Errors
/// [`SweepError::Train`], when a run cannot begin: then none does. The others, when results cannot be
/// written: the runs going on are finished, and lost.
pub fn run(
    data: &Dataset,
    cells: &[Options],
    jobs: usize,
    results: &mut Results,
    observer: &mut dyn FnMut(&Record),
) -> Result<(), SweepError> {
    let cells: Vec<_> = cells
        .iter()
        .map(|options| canonical(*options))
        .filter(|options| results.of(options).is_none())
        .collect();
    // A slip in the last cell should not show after hours.
    for options in &cells {
        train::check::<Net>(&source(data, options)?, options)?;
    }
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    // Built before any run starts, so that failing to costs nothing.
    let pools = (0..jobs.clamp(1, cells.len().max(1)))
        .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        for pool in &pools {
            let (sender, next, cells) = (sender.clone(), &next, &cells);
            scope.spawn(move || {
                while let Some(options) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = pool.install(|| {
                        train::train::<Net>(
                            &source(data, options)?,
                            options,
                            &Persistence::default(),
                            &mut |_| (),
                        )
                    });
                    if sender.send((*options, run)).is_err() {
                        return; // the sweep has ended
                    }
                }
            });
        }
        drop(sender);
        for (options, run) in receiver {
            let run = match run {
                Ok(run) => Ok(run),
                Err(TrainError::Rate(error)) if has_diverged(&error) => Err(error.to_string()),
                Err(error) => return Err(error.into()),
            };
            results.add(&options, run)?;
            if let Some(record) = results.of(&options) {
                observer(record);
            }
        }
        Ok(())
    })
}

fn has_diverged(error: &tlr::Error) -> bool {
    use tlr::Error::{NonFiniteLoss, NonFiniteWeights, TooManyRollbacks};
    matches!(error, NonFiniteLoss { .. } | NonFiniteWeights { .. } | TooManyRollbacks { .. })
}

/// A run in a line, for the terminal.
pub fn line(record: &Record) -> String {
    let options = record.options();
    let mut line = format!(
        "{} {} {} from {:e}, batch {}, p {:.2}, ",
        train::name(&options.optimizer),
        train::name(&options.mode),
        train::name(&options.rule),
        options.rate,
        options.batch_size,
        options.window_fraction,
    );
    line += &match options.rule {
        Rule::Aligned | Rule::Paper => format!("γ {}, ", options.damping),
        Rule::Additive | Rule::Multiplicative => format!("η {:e}, ", options.meta_rate),
        Rule::Constant => String::new(),
    };
    line += &format!("seed {}: ", options.seed);
    line += &match (record.test_accuracy, record.test_loss) {
        _ if !record.error.is_empty() => record.error.clone(),
        (Some(accuracy), Some(loss)) => format!(
            "{:.2} %, loss {loss:.4}, {} rollbacks ({} late)",
            100.0 * accuracy,
            record.rollbacks,
            record.late_rollbacks
        ),
        _ => "diverged".to_owned(),
    };
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::digits;

    fn grid() -> Grid {
        Grid {
            optimizers: vec![Base::Sgd],
            modes: vec![Mode::PerLayer],
            rules: vec![Rule::Aligned],
            rates: vec![1e-2, 1e-4],
            batch_sizes: vec![20],
            window_fractions: vec![0.2],
            dampings: vec![0.33],
            meta_rates: vec![1e-2],
            seeds: vec![0, 1],
            safeguard: true,
            epochs: 2,
        }
    }

    /// Runs what is to be run, and counts.
    fn sweep(folder: &Path, cells: &[Options]) -> usize {
        let data = digits::draw(0, 60, 20).unwrap();
        let mut results = Results::open(folder, "few digits").unwrap();
        let mut count = 0;
        run(&data, cells, 2, &mut results, &mut |_| count += 1).unwrap();
        count
    }

    // Fails if a run is done twice, or if its line differs from the one that was written.
    #[test]
    fn what_is_done_is_not_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let cells = grid().cells();
        assert_eq!(sweep(folder.path(), &cells[..2]), 2);
        assert_eq!(sweep(folder.path(), &cells), 2);
        assert_eq!(sweep(folder.path(), &cells), 0);

        let results = Results::open(folder.path(), "few digits").unwrap();
        for options in &cells {
            let record = results.of(options).unwrap();
            assert_eq!(record.options(), *options);
            let epochs = results.epochs_of(options);
            assert_eq!(epochs.len(), 2);
            assert_eq!(Some(epochs[1].test_loss), record.test_loss);
            // A run alone comes to the same.
            let data = digits::draw(0, 60, 20).unwrap();
            let from = source(&data, options).unwrap();
            let alone =
                train::train::<Net>(&from, options, &Persistence::default(), &mut |_| ()).unwrap();
            assert_eq!(Some(alone.epochs[1].test_loss), record.test_loss);
        }
        // On other data nothing is done.
        let others = Results::open(folder.path(), "other digits").unwrap();
        assert!(others.of(&cells[0]).is_none());
    }

    // Killed at any byte of either file, whole runs remain and the others are done again.
    #[test]
    fn a_line_cut_short_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let cells = &grid().cells()[..2];
        sweep(folder.path(), cells);
        let path = |name| folder.path().join(name);
        let whole = ["results.csv", "epochs.csv"].map(|name| fs::read(path(name)).unwrap());
        for keep in (0..whole[0].len()).step_by(37) {
            fs::write(path("results.csv"), &whole[0][..keep]).unwrap();
            fs::write(path("epochs.csv"), &whole[1]).unwrap();
            let results = Results::open(folder.path(), "few digits").unwrap();
            let done = cells.iter().filter(|cell| results.of(cell).is_some()).count();
            let lines = whole[0][..keep].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(done, lines.saturating_sub(1), "{keep}");
            // Epochs without their run are gone too.
            assert_eq!(results.epochs.rows.len(), 2 * done, "{keep}");
        }
        fs::write(path("results.csv"), &whole[0][..whole[0].len() - 5]).unwrap();
        assert_eq!(sweep(folder.path(), cells), 1);
        let results = Results::open(folder.path(), "few digits").unwrap();
        assert_eq!((results.records.rows.len(), results.epochs.rows.len()), (2, 4));
    }

    // Fails if one is taken for the other: what cannot begin must not count as done.
    #[test]
    fn a_run_that_diverges_is_a_result_and_a_bad_option_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let data = digits::draw(0, 60, 20).unwrap();
        let mut results = Results::open(folder.path(), "few digits").unwrap();
        let bad = Options { damping: 2.0, ..Options::default() };
        let error = run(&data, &[bad], 1, &mut results, &mut |_| ()).unwrap_err();
        assert!(matches!(error, SweepError::Train(_)) && error.to_string().contains("damping"));
        assert!(results.of(&bad).is_none());

        let diverges = Options {
            rule: Rule::Constant,
            rate: 1e30,
            batch_size: 10,
            epochs: 1,
            ..Options::default()
        };
        assert_eq!(sweep(folder.path(), &[diverges]), 1);
        assert_eq!(sweep(folder.path(), &[diverges]), 0);
        let results = Results::open(folder.path(), "few digits").unwrap();
        let record = results.of(&diverges).unwrap();
        assert!(!record.error.is_empty() && record.test_loss.is_none());
        assert!(line(record).ends_with(&record.error));
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        fs::write(&path, "name,size\na,1\n").unwrap();
        let error = Results::open(folder.path(), "few digits").unwrap_err();
        assert!(matches!(error, SweepError::Csv { .. }));
        assert!(error.to_string().contains("move the file away"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "name,size\na,1\n");
    }
}
