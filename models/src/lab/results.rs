//! The results of the runs so far, on disk.

use super::{Contender, Point, Ready, Scale, Task, Trained};
use crate::{
    report::{self, OutFolder},
    sweep::{
        jobs::{self, RunError},
        table::Table,
        Ended, SweepError,
    },
};
use serde::{de::Error as _, Deserialize, Deserializer, Serialize};
use std::{collections::HashSet, path::Path};

/// A run to be made: a task, the contender that learns it, and a seed.
#[derive(Clone, Copy)]
pub struct Cell<'a> {
    /// The task.
    pub task: &'a Task,
    /// The task with its data.
    pub ready: &'a dyn Ready,
    /// The contender that learns it.
    pub contender: &'a Contender,
    /// The seed of the first weights and of the order of the examples.
    pub seed: u64,
}

impl std::fmt::Debug for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.task.name, self.contender.name, self.seed)
    }
}

/// A run that has ended: a line of `runs.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The task's name.
    pub task: String,
    /// The contender's name.
    pub contender: String,
    /// The seed.
    pub seed: u64,
    /// How much was trained.
    pub scale: Scale,
    /// The task's data and budget, in words.
    pub data: String,
    /// How the run ended.
    pub ended: Ended,
    /// How many steps were made, without those of a search for the rate.
    pub steps: usize,
    /// How many steps a search for the rate took.
    pub searched: usize,
    /// The loss in the last test. None if the run diverged.
    pub loss: Option<f64>,
    /// The accuracy in the last test, from 0 to 1, if the task has right and wrong answers.
    pub accuracy: Option<f64>,
    /// The seconds that a processor spent, tests left out.
    pub seconds: f64,
    /// The rates at the end, by name.
    pub rates: String,
    /// What ended it early.
    pub error: String,
    /// The bytes that the optimizer keeps beside the weights.
    #[serde(default)]
    pub memory: Option<usize>,
}

/// How a run went: a line of `curves.csv`. Each list has numbers with spaces between them. A file
/// with another word in a list is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The task's name.
    pub task: String,
    /// The contender's name.
    pub contender: String,
    /// The seed of the first weights and of the order of the examples.
    pub seed: u64,
    /// How much was trained.
    pub scale: Scale,
    /// The task's data and budget, in words.
    pub data: String,
    /// Steps before each test, those of a search for the rate included.
    #[serde(deserialize_with = "only_numbers")]
    pub steps: String,
    /// Time before each test, in seconds.
    #[serde(deserialize_with = "only_numbers")]
    pub seconds: String,
    /// Losses; `inf` where one is not finite.
    #[serde(deserialize_with = "only_numbers")]
    pub losses: String,
    /// Accuracies, with `inf` where one is missing; empty if the task has no right and wrong
    /// answers.
    #[serde(default, deserialize_with = "only_numbers")]
    pub accuracies: String,
    /// Mean losses of the batches before each test but the first; `inf` where one is not finite.
    #[serde(default, deserialize_with = "only_numbers")]
    pub train: String,
    /// Steps at which the rate was read.
    #[serde(default, deserialize_with = "only_numbers")]
    pub rate_steps: String,
    /// The rates that were read. Files call the column `way`, as the first
    /// ones did: results of earlier versions can still be read.
    #[serde(default, rename = "way", deserialize_with = "only_numbers")]
    pub rate_curve: String,
}

/// The words of a list.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').filter(|word| !word.is_empty())
}

/// The numbers of a list that [`only_numbers`] has read or [`Curve::of`] has made.
fn numbers(list: &str) -> Vec<f64> {
    words(list).filter_map(|word| word.parse().ok()).collect()
}

/// Reads a list.
fn only_numbers<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let list = String::deserialize(from)?;
    let odd = words(&list).find(|word| word.parse::<f64>().is_err()).map(str::to_owned);
    match odd {
        Some(word) => Err(D::Error::custom(format!("`{word}` is not a number"))),
        None => Ok(list),
    }
}

/// The numbers, with `inf` for each that is missing.
fn list(numbers: impl Iterator<Item = Option<f64>>) -> String {
    let word = |number: Option<f64>| match number {
        Some(number) => format!("{number:.6e}"),
        None => "inf".to_owned(),
    };
    numbers.map(word).collect::<Vec<_>>().join(" ")
}

impl Curve {
    /// The tests, one after the other.
    ///
    /// Example: [the laboratory](super).
    pub fn points(&self) -> Vec<Point> {
        let (steps, seconds) = (numbers(&self.steps), numbers(&self.seconds));
        let (losses, accuracies) = (numbers(&self.losses), numbers(&self.accuracies));
        let train = numbers(&self.train);
        let nth = |values: &[f64], n: Option<usize>| {
            n.and_then(|n| values.get(n)).copied().filter(|value| value.is_finite())
        };
        let point = |(n, (step, seconds)): (usize, (f64, f64))| Point {
            step: step as usize,
            seconds,
            loss: nth(&losses, Some(n)),
            accuracy: nth(&accuracies, Some(n)),
            train: nth(&train, n.checked_sub(1)),
        };
        steps.into_iter().zip(seconds).enumerate().map(point).collect()
    }

    /// The rate over the steps, as (step, rate).
    ///
    /// Example: [the laboratory](super).
    pub fn rates(&self) -> Vec<(f64, f64)> {
        numbers(&self.rate_steps).into_iter().zip(numbers(&self.rate_curve)).collect()
    }

    fn of(cell: &Cell<'_>, scale: Scale, trained: &Trained) -> Self {
        let points = &trained.points;
        let words = |words: Vec<String>| words.join(" ");
        let right = points.iter().any(|point| point.accuracy.is_some());
        let accuracies = points.iter().filter(|_| right).map(|point| point.accuracy);
        Self {
            task: cell.task.name.to_owned(),
            contender: cell.contender.name.clone(),
            seed: cell.seed,
            scale,
            data: cell.ready.data(),
            steps: words(points.iter().map(|point| point.step.to_string()).collect()),
            seconds: words(points.iter().map(|point| format!("{:.4}", point.seconds)).collect()),
            losses: list(points.iter().map(|point| point.loss)),
            accuracies: list(accuracies),
            train: list(points.iter().skip(1).map(|point| point.train)),
            rate_steps: words(
                trained.rate_curve.iter().map(|(step, _)| step.to_string()).collect(),
            ),
            rate_curve: list(trained.rate_curve.iter().map(|(_, rate)| Some(*rate))),
        }
    }
}

/// What identifies a run: task, contender, seed, scale and data.
type Key<'a> = (&'a str, &'a str, u64, Scale, &'a str);

impl Record {
    fn key(&self) -> Key<'_> {
        (&self.task, &self.contender, self.seed, self.scale, &self.data)
    }
}

impl Curve {
    fn key(&self) -> Key<'_> {
        (&self.task, &self.contender, self.seed, self.scale, &self.data)
    }
}

/// The results so far, on disk: `runs.csv` and `curves.csv` in one folder.
///
/// A run's curve is written before its line in `runs.csv`, which makes it count. Killed at any
/// moment, only the runs that were going on are lost. Only one program at a time has a folder.
#[derive(Debug)]
pub struct Results {
    folder: OutFolder,
    scale: Scale,
    records: Table<Record>,
    curves: Table<Curve>,
}

impl Results {
    /// Reads what `folder` has, or makes it, and holds it until it is dropped. Runs of other scales
    /// stay in it and are not looked at.
    ///
    /// # Errors
    /// [`SweepError::Report`] if the folder cannot be written to or another program holds it,
    /// [`SweepError::Io`], [`SweepError::Csv`].
    ///
    /// Example: [the laboratory](super).
    pub fn open(folder: &Path, scale: Scale) -> Result<Self, SweepError> {
        let folder = OutFolder::claim(folder)?;
        let mut records = Table::<Record>::open(folder.file("runs.csv"), "task")?;
        let mut curves = Table::<Curve>::open(folder.file("curves.csv"), "task")?;
        records.keep(|record| record.ended != Ended::Failed || record.scale != scale)?;
        let done: HashSet<_> = records.rows.iter().map(Record::key).collect();
        curves.keep(|curve| done.contains(&curve.key()))?;
        Ok(Self { folder, scale, records, curves })
    }

    /// The folder.
    ///
    /// Example: [the laboratory](super).
    pub fn folder(&self) -> &OutFolder {
        &self.folder
    }

    /// The scale of the runs.
    ///
    /// Example: [the laboratory](super).
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// The runs of this scale that have a result: those that failed are left out.
    ///
    /// Example: [the laboratory](super).
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let rows = self.records.rows.iter();
        rows.filter(|record| record.scale == self.scale && record.ended != Ended::Failed)
    }

    /// The curves of these runs.
    ///
    /// Example: [the laboratory](super).
    pub fn curves(&self) -> impl Iterator<Item = &Curve> {
        self.curves.rows.iter().filter(|curve| curve.scale == self.scale)
    }

    /// The record of a run, if it is done.
    ///
    /// Example: [the laboratory](super).
    pub fn of(&self, cell: &Cell<'_>) -> Option<&Record> {
        let data = cell.ready.data();
        let key = (cell.task.name, &*cell.contender.name, cell.seed, self.scale, &*data);
        self.records.rows.iter().find(|record| record.key() == key && record.ended != Ended::Failed)
    }

    fn add(
        &mut self,
        cell: &Cell<'_>,
        trained: Result<Trained, RunError>,
    ) -> Result<Record, SweepError> {
        let (trained, error) = match trained {
            Ok(trained) => (Some(trained), String::new()),
            Err(error) => (None, error.to_string()),
        };
        let ended = match &trained {
            None => Ended::Failed,
            Some(Trained { diverged: Some(_), .. }) => Ended::Diverged,
            Some(_) => Ended::Finished,
        };
        if let Some(trained) = &trained {
            self.curves.append(vec![Curve::of(cell, self.scale, trained)])?;
        }
        let last = trained.as_ref().and_then(Trained::last);
        let trained = trained.as_ref();
        let record = Record {
            task: cell.task.name.to_owned(),
            contender: cell.contender.name.clone(),
            seed: cell.seed,
            scale: self.scale,
            data: cell.ready.data(),
            ended,
            steps: trained.map_or(0, |trained| trained.steps),
            searched: trained.map_or(0, |trained| trained.searched),
            loss: last.map(|tested| tested.loss),
            accuracy: last.and_then(|tested| tested.accuracy),
            seconds: trained.map_or(0.0, |trained| trained.seconds),
            rates: trained.map(|trained| report::rates(&trained.rates)).unwrap_or_default(),
            error: trained.and_then(|trained| trained.diverged.clone()).unwrap_or(error),
            memory: trained.and_then(|trained| trained.memory),
        };
        self.records.append(vec![record.clone()])?;
        Ok(record)
    }
}

/// The cells that are still to be run, each once.
fn left<'a>(cells: &[Cell<'a>], results: &Results) -> Vec<Cell<'a>> {
    let mut seen = HashSet::new();
    let mut is_new = |cell: &Cell<'a>| {
        seen.insert((cell.task.name, &*cell.contender.name, cell.seed, cell.ready.data()))
    };
    cells.iter().filter(|cell| results.of(cell).is_none() && is_new(cell)).copied().collect()
}

/// Called after every step of a run with its cell, the steps made so far, and the batch's loss.
pub type WatchCells<'a> = dyn Fn(&Cell<'_>, usize, f64) + Sync + 'a;

/// Trains each of `cells` that is not done yet, `jobs` at a time, each on a thread of its own.
/// Returns how many of them have failed.
///
/// `watch` is called during each run, on its thread, and `observer` when it ends. A run that
/// diverges is a result like any other. A run that fails for another reason does not stop the
/// others, and is made again the next time.
///
/// # Errors
/// Results that cannot be written: runs that are under way are finished, but not kept.
///
/// Example: [the laboratory](super).
pub fn run_cells(
    cells: &[Cell<'_>],
    jobs: usize,
    results: &mut Results,
    watch: &WatchCells<'_>,
    observer: &mut dyn FnMut(&Record),
) -> Result<usize, SweepError> {
    let left = left(cells, results);
    let work = |cell: &Cell<'_>| {
        cell.ready.train(cell.contender, cell.seed, &|step, loss| watch(cell, step, loss))
    };
    let mut failed = 0;
    jobs::each(&left, jobs, &work, &mut |cell, trained| {
        let record = results.add(cell, trained)?;
        failed += usize::from(record.ended == Ended::Failed);
        observer(&record);
        Ok(())
    })?;
    Ok(failed)
}

#[cfg(test)]
mod tests;
