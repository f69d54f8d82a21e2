//! The results of a sweep so far, on disk.

use super::{
    grid::{canonical, key},
    jobs::RunError,
    record::{Ended, EpochRecord, SweepRecord},
    table::Table,
    SweepError,
};
use crate::{
    data::Dataset,
    report::OutFolder,
    train::{Facts, Options, Run},
};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, path::Path};

/// The results so far, on disk: `results.csv` and `epochs.csv` in one folder.
///
/// A run's epochs are written before its line in `results.csv`, which makes it count. Killed at any
/// moment, a sweep loses only the runs that were going on.
///
/// Only one sweep at a time has a folder.
#[derive(Debug)]
pub struct SweepResults {
    folder: OutFolder,
    data: String,
    records: Table<SweepRecord>,
    epochs: Table<EpochRecord>,
}

impl SweepResults {
    /// Reads what `folder` has, or makes it, and holds it until it is dropped. `name` is the name
    /// of `data`, the set that is trained on: runs on other data do not count as done, and neither
    /// do those that have failed.
    ///
    /// # Errors
    /// [`SweepError::Report`] if the folder cannot be written to or another sweep holds it,
    /// [`SweepError::Io`], [`SweepError::Csv`].
    ///
    /// Example: [`run`](super::run).
    pub fn open(folder: &Path, name: &str, data: &Dataset) -> Result<Self, SweepError> {
        let folder = OutFolder::claim(folder)?;
        let mut records = Table::<SweepRecord>::open(folder.file("results.csv"), "data")?;
        let mut epochs = Table::<EpochRecord>::open(folder.file("epochs.csv"), "cell")?;
        records.keep(|record| record.ended != Ended::Failed)?;
        let done: HashSet<_> =
            records.rows.iter().map(|record| cell(&record.data, &record.options())).collect();
        epochs.keep(|epoch| done.contains(&epoch.cell))?;
        let identity = Facts::default()
            .with("train", data.train.identity())
            .with("test", data.test.identity())
            .fingerprint();
        let data = format!("{name}, {} images, {identity}", data.train.len());
        Ok(Self { folder, data, records, epochs })
    }

    /// The folder.
    ///
    /// Example: [`run`](super::run).
    pub fn folder(&self) -> &OutFolder {
        &self.folder
    }

    /// The record of a run, if it is done.
    ///
    /// Example: [`run`](super::run).
    pub fn of(&self, options: &Options) -> Option<&SweepRecord> {
        let wanted = key(&canonical(*options));
        self.records.rows.iter().find(|record| {
            record.ended != Ended::Failed
                && record.data == self.data
                && key(&record.options()) == wanted
        })
    }

    /// The epochs of a run that is done.
    ///
    /// Example: [`run`](super::run).
    pub fn epochs_of(&self, options: &Options) -> Vec<&EpochRecord> {
        let wanted = cell(&self.data, &canonical(*options));
        self.epochs.rows.iter().filter(|epoch| epoch.cell == wanted).collect()
    }

    /// Writes down how a run ended, and returns its record.
    pub(super) fn add(
        &mut self,
        options: &Options,
        run: &Result<Run, RunError>,
    ) -> Result<SweepRecord, SweepError> {
        self.append(RunResult::new(&self.data, options, run))
    }

    /// As [`add`](Self::add), for a run that another rank has made.
    pub(super) fn append(&mut self, outcome: RunResult) -> Result<SweepRecord, SweepError> {
        self.epochs.append(outcome.epochs)?;
        self.records.append(vec![outcome.record.clone()])?;
        Ok(outcome.record)
    }

    /// What identifies the data.
    pub(super) fn data(&self) -> &str {
        &self.data
    }
}

/// How a run ended, and its epochs, as they are written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RunResult {
    record: SweepRecord,
    epochs: Vec<EpochRecord>,
}

impl RunResult {
    /// The outcome of a run on this data.
    pub(super) fn new(data: &str, options: &Options, run: &Result<Run, RunError>) -> Self {
        let cell = cell(data, options);
        let epochs = run.iter().flat_map(|run| &run.epochs).map(|epoch| EpochRecord {
            cell: cell.clone(),
            epoch: epoch.epoch,
            train_loss: epoch.train_loss,
            test_loss: epoch.test_loss,
            test_accuracy: epoch.test_accuracy,
            rate: geometric_mean(&epoch.rates),
        });
        Self { epochs: epochs.collect(), record: SweepRecord::new(data, options, run.as_ref()) }
    }
}

/// What identifies a run.
fn cell(data: &str, options: &Options) -> String {
    format!("{data} {}", key(options))
}

fn geometric_mean(rates: &[(String, f64)]) -> f64 {
    let logs: f64 = rates.iter().map(|(_, rate)| rate.ln()).sum();
    (logs / rates.len().max(1) as f64).exp()
}
