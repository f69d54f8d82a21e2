//! A grid of training runs on all cores, which can be stopped and continued.

mod error;
mod grid;
pub(crate) mod jobs;
mod record;
mod results;
pub(crate) mod table;
mod together;

pub use error::SweepError;
pub use grid::Grid;
pub use record::{line, Ended, EpochRecord, SweepRecord};
pub use results::SweepResults;
pub use together::run_together;

#[cfg(any(test, feature = "lab"))]
pub(crate) use record::{how_it_ended, NO_FINITE_LOSS};

use crate::{
    data::Dataset,
    train::{self, InMemory, Network, Options, Persistence, Run, TrainError},
};
use grid::{canonical, key};
use std::collections::HashSet;

/// Trains an `M` for each of `cells` that is not done yet, `jobs` at a time, each on a thread of
/// its own. Returns how many of them have failed.
///
/// `observer` gets each run as it ends. A run that diverges is a result like any other. A run that
/// fails for another reason does not stop the others, and is made again the next time.
///
/// # Errors
/// [`SweepError::Train`], when a run cannot begin: then none does. The others, when results cannot
/// be written: runs that are under way are finished, but their results are not kept.
///
/// # Example
/// ```no_run
/// use tlr_models::{
///     data::digits,
///     sweep::{self, SweepResults},
///     train::{Net, Options},
/// };
///
/// let data = digits::draw(0, 20_000, 10_000)?;
/// let mut results = SweepResults::open("out/sweep".as_ref(), "drawn digits", &data)?;
/// let cells = [1e-3, 1e-6].map(|rate| Options { rate, ..Options::default() });
/// let failed = sweep::run::<Net>(&data, &cells, 2, &mut results, &mut |record| {
///     println!("{}", sweep::line(record));
/// })?;
/// assert_eq!(failed, 0);
/// let (record, epochs) = (results.of(&cells[0]), results.epochs_of(&cells[0]));
/// println!("{:?}, {} epochs", record.map(|record| record.options()), epochs.len());
/// println!("{}", results.folder().path().display());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run<M: Network>(
    data: &Dataset,
    cells: &[Options],
    jobs: usize,
    results: &mut SweepResults,
    observer: &mut dyn FnMut(&SweepRecord),
) -> Result<usize, SweepError> {
    let cells = left(cells, results);
    // An error in the last cell should show now, and not after hours.
    for options in &cells {
        train::check::<M>(&source(data, options)?, options)?;
    }
    run_each(&cells, jobs, results, observer, &|options| train_cell::<M>(data, options))
}

fn train_cell<M: Network>(data: &Dataset, options: &Options) -> Result<Run, TrainError> {
    let source = source(data, options)?;
    train::train::<M>(&source, options, &Persistence::default(), &mut |_| ())
}

/// The cells that are still to be run, each once.
fn left(cells: &[Options], results: &SweepResults) -> Vec<Options> {
    let mut seen = HashSet::new();
    let cells = cells.iter().map(|options| canonical(*options));
    cells.filter(|cell| results.of(cell).is_none() && seen.insert(key(cell))).collect()
}

/// The images as they are, in the batches that `options` ask for.
fn source<'a>(data: &'a Dataset, options: &Options) -> Result<InMemory<'a>, TrainError> {
    InMemory::new(data, options.batch_size, options.seed, None)
}

/// The function that makes a run.
type Train<'a> = dyn Fn(&Options) -> Result<Run, TrainError> + Sync + 'a;

fn run_each(
    cells: &[Options],
    jobs: usize,
    results: &mut SweepResults,
    observer: &mut dyn FnMut(&SweepRecord),
    train: &Train<'_>,
) -> Result<usize, SweepError> {
    let mut failed = 0;
    jobs::each(cells, jobs, train, &mut |options, run| {
        let record = results.add(options, &run)?;
        failed += usize::from(record.ended == Ended::Failed);
        observer(&record);
        Ok(())
    })?;
    Ok(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        data::{digits, DataError},
        report::ReportError,
        train::{Base, Mode, Rule},
        Mlp,
    };
    use dfdx::prelude::Cpu;
    use std::{fs, path::Path};

    type Small = Mlp<784, 16, 10, f32, Cpu>;

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

    fn few() -> Dataset {
        digits::draw(0, 60, 20).unwrap()
    }

    fn open(folder: &Path) -> SweepResults {
        SweepResults::open(folder, "few digits", &few()).unwrap()
    }

    /// Makes the runs that are to be made, and counts them.
    fn sweep(folder: &Path, cells: &[Options]) -> usize {
        let mut results = open(folder);
        let mut count = 0;
        let failed = run::<Small>(&few(), cells, 2, &mut results, &mut |_| count += 1).unwrap();
        assert_eq!(failed, 0);
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

        let results = open(folder.path());
        for options in &cells {
            let record = results.of(options).unwrap();
            assert_eq!(record.options(), *options);
            let epochs = results.epochs_of(options);
            assert_eq!(epochs.len(), 2);
            assert_eq!(Some(epochs[1].test_loss), record.test_loss);
            // A run by itself has the same result.
            let data = few();
            let from = source(&data, options).unwrap();
            let alone = train::train::<Small>(&from, options, &Persistence::default(), &mut |_| ())
                .unwrap();
            assert_eq!(Some(alone.epochs[1].test_loss), record.test_loss);
        }
        drop(results);
        // On other data of the same name and size nothing counts as done, nor with other options.
        let others = digits::draw(1, 60, 20).unwrap();
        let others = SweepResults::open(folder.path(), "few digits", &others).unwrap();
        assert!(others.of(&cells[0]).is_none());
        drop(others);
        let results = open(folder.path());
        assert!(results.of(&cells[0]).is_some());
        for other in [
            Options { ramp: false, ..cells[0] },
            Options { weight_decay: 1e-3, ..cells[0] },
            Options { sketch: Some(64), ..cells[0] },
            Options { epochs: 3, ..cells[0] },
        ] {
            assert!(results.of(&other).is_none(), "{other:?}");
        }
    }

    // Fails if a run that is asked for twice is made twice, also if it is so in other words: a
    // constant rate has no damping.
    #[test]
    fn a_run_that_is_asked_for_twice_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let constant = Options { rule: Rule::Constant, damping: 0.1, ..grid().cells()[0] };
        let cells = [constant, constant, Options { damping: 0.2, ..constant }];
        assert_eq!(sweep(folder.path(), &cells), 1);
        let text = fs::read_to_string(folder.path().join("results.csv")).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    // Fails if two may write to one folder.
    #[test]
    fn a_folder_is_one_sweeps_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = open(folder.path());
        let second = SweepResults::open(folder.path(), "few digits", &few()).unwrap_err();
        assert!(matches!(second, SweepError::Report(ReportError::InUse { .. })), "{second}");
        drop(held);
        open(folder.path());
    }

    // Fails if a run that failed counts as done, ends the others, or is taken for one that
    // diverged.
    #[test]
    fn a_run_that_fails_is_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let cells = grid().cells();
        let attempt = |train: &Train<'_>| {
            let mut results = open(folder.path());
            let (left, mut ended) = (left(&cells, &results), Vec::new());
            let failed = run_each(&left, 1, &mut results, &mut |r| ended.push(r.ended), train);
            (failed.unwrap(), ended)
        };
        let run = |options: &Options| {
            let data = few();
            let from = source(&data, options)?;
            train::train::<Small>(&from, options, &Persistence::default(), &mut |_| ())
        };
        let (first, second) = (cells[0], cells[1]);
        let (failed, ended) = attempt(&|options| match options {
            options if *options == first => Err(DataError::Zero { what: "memory" }.into()),
            options if *options == second => unreachable!("as a slip in the code would"),
            options => run(options),
        });
        assert_eq!(failed, 2);
        assert_eq!(ended, [[Ended::Failed; 2], [Ended::Finished; 2]].concat());
        let text = fs::read_to_string(folder.path().join("results.csv")).unwrap();
        assert!(text.contains(",failed,") && text.contains("memory is zero"), "{text}");

        let (failed, ended) = attempt(&run);
        assert_eq!((failed, ended), (0, vec![Ended::Finished; 2]));
        let text = fs::read_to_string(folder.path().join("results.csv")).unwrap();
        assert!(!text.contains("failed") && text.lines().count() == 5, "{text}");
        let whole = open(folder.path());
        for options in &cells {
            assert_eq!(whole.of(options).unwrap().options(), *options);
            assert_eq!(whole.epochs_of(options).len(), 2);
        }
    }

    // Killed at any byte of either file, whole runs remain and the others are done again.
    #[test]
    fn a_line_cut_short_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let cells = &grid().cells()[..2];
        sweep(folder.path(), cells);
        let path = |name| folder.path().join(name);
        let rows = |name| fs::read_to_string(path(name)).unwrap().lines().count().saturating_sub(1);
        let whole = ["results.csv", "epochs.csv"].map(|name| fs::read(path(name)).unwrap());
        for keep in (0..whole[0].len()).step_by(37) {
            fs::write(path("results.csv"), &whole[0][..keep]).unwrap();
            fs::write(path("epochs.csv"), &whole[1]).unwrap();
            let results = open(folder.path());
            let done = cells.iter().filter(|cell| results.of(cell).is_some()).count();
            let lines = whole[0][..keep].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(done, lines.saturating_sub(1), "{keep}");
            // Epochs without their run are gone too.
            assert_eq!(rows("epochs.csv"), 2 * done, "{keep}");
        }
        fs::write(path("results.csv"), &whole[0][..whole[0].len() - 5]).unwrap();
        assert_eq!(sweep(folder.path(), cells), 1);
        assert_eq!((rows("results.csv"), rows("epochs.csv")), (2, 4));
    }

    // Fails if a run that cannot begin is taken for one that diverged: it must not count as done.
    #[test]
    fn a_run_that_diverges_is_a_result_and_a_bad_option_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let data = few();
        let mut results = open(folder.path());
        let bad = Options { damping: 2.0, ..Options::default() };
        let error = run::<Small>(&data, &[bad], 1, &mut results, &mut |_| ()).unwrap_err();
        assert!(matches!(error, SweepError::Train(_)) && error.to_string().contains("damping"));
        assert!(results.of(&bad).is_none());
        // Nor is a number that the rule does not use, as where one run is made by itself.
        let constant = Options { rule: Rule::Constant, ..Options::default() };
        for (bad, name) in [
            (Options { damping: 2.0, ..constant }, "damping"),
            (Options { rule: Rule::Additive, damping: f64::NAN, ..constant }, "damping"),
            (Options { meta_rate: -1.0, ..constant }, "meta_lr"),
            (Options { rule: Rule::Paper, meta_rate: 0.0, ..constant }, "meta_lr"),
            (Options { window_fraction: 7.0, ..constant }, "window"),
        ] {
            let grid = Grid {
                rules: vec![bad.rule],
                dampings: vec![bad.damping],
                meta_rates: vec![bad.meta_rate],
                window_fractions: vec![bad.window_fraction],
                ..grid()
            };
            for cells in [vec![bad], grid.cells()] {
                let error = run::<Small>(&data, &cells, 1, &mut results, &mut |_| ()).unwrap_err();
                assert!(error.to_string().contains(name), "{error}");
            }
        }
        drop(results);

        let diverges = Options {
            rule: Rule::Constant,
            rate: 1e30,
            batch_size: 10,
            epochs: 1,
            ..Options::default()
        };
        assert_eq!(sweep(folder.path(), &[diverges]), 1);
        assert_eq!(sweep(folder.path(), &[diverges]), 0);
        let results = open(folder.path());
        let record = results.of(&diverges).unwrap();
        assert!(record.ended == Ended::Diverged && record.test_loss.is_none());
        assert!(line(record).ends_with(&record.error));
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        fs::write(&path, "name,size\na,1\n").unwrap();
        let error = SweepResults::open(folder.path(), "few digits", &few()).unwrap_err();
        assert!(matches!(error, SweepError::Csv { .. }));
        assert!(error.to_string().contains("move the file away"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "name,size\na,1\n");
    }
}
