//! A sweep whose runs are shared out to several ranks.

use super::{
    jobs, left, results::RunResult, source, train_cell, Ended, SweepError, SweepRecord,
    SweepResults,
};
use crate::{
    data::Dataset,
    train::{self, AnyRanks, Network, Options, Share, TrainError},
};
use serde::{de::DeserializeOwned, Serialize};

/// As [`run`](super::run) on several ranks, each of which makes `jobs` runs at a time by itself.
///
/// Only the first rank has `results`, and its `cells` and `jobs` are used by all. The runs are made
/// in rounds: in each, every rank makes `jobs` runs and sends them to the first rank. A sweep that
/// is killed loses at most the round that was going on. On the other ranks the answer is 0. All
/// ranks need the same data.
///
/// # Errors
/// As [`run`](super::run), and [`tlr::Error::Parallel`].
///
/// # Example
/// ```
/// use tlr_models::{
///     data::digits,
///     sweep::{run_together, SweepResults},
///     train::{alone, Net, Options},
/// };
///
/// let (dir, data) = (tempfile::tempdir()?, digits::draw(0, 64, 16)?);
/// let mut results = SweepResults::open(dir.path(), "drawn", &data)?;
/// let cells = [Options { epochs: 1, batch_size: 16, ..Options::default() }];
/// // One rank; `tlr::parallel::Mpi` and `Threads` make several.
/// let failed =
///     run_together::<Net>(&data, &cells, 1, Some(&mut results), &alone(), &mut |_| ())?;
/// assert_eq!(failed, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run_together<M: Network>(
    data: &Dataset,
    cells: &[Options],
    jobs: usize,
    mut results: Option<&mut SweepResults>,
    ranks: &AnyRanks,
    observer: &mut dyn FnMut(&SweepRecord),
) -> Result<usize, SweepError> {
    let own = [("the training set", &data.train), ("the test set", &data.test)];
    let own = own.map(|(name, set)| (name.to_owned(), set.identity()));
    ranks.agree(&own).map_err(TrainError::from)?;
    let mut plan = match &results {
        Some(results) => encoded(&(jobs, results.data(), left(cells, results)))?,
        None => Vec::new(),
    };
    ranks.broadcast(&mut plan).map_err(TrainError::from)?;
    let (jobs, name, cells): (usize, String, Vec<Options>) = decoded(&plan)?;
    // All ranks come to the same result here.
    for options in &cells {
        train::check::<M>(&source(data, options)?, options)?;
    }
    let work = |options: &Options| train_cell::<M>(data, options);
    let mut failed = 0;
    for round in cells.chunks(jobs.max(1).saturating_mul(ranks.size())) {
        let mut done = Vec::new();
        jobs::each(Share::of_rank(ranks).of(round), jobs, &work, &mut |options, run| {
            done.push(RunResult::new(&name, options, &run));
            Ok(())
        })?;
        let said = ranks.gather(&encoded(&done)?).map_err(TrainError::from)?;
        let mut write = || -> Result<(), SweepError> {
            let Some(results) = &mut results else { return Ok(()) };
            for said in &said {
                for outcome in decoded::<Vec<RunResult>>(said)? {
                    let record = results.append(outcome)?;
                    failed += usize::from(record.ended == Ended::Failed);
                    observer(&record);
                }
            }
            Ok(())
        };
        let written = write();
        let told = ranks.confirm(written.as_ref().err().map(ToString::to_string).as_deref());
        written?;
        told.map_err(TrainError::from)?;
    }
    Ok(failed)
}

fn encoded(value: &impl Serialize) -> Result<Vec<u8>, TrainError> {
    Ok(postcard::to_stdvec(value)?)
}

fn decoded<T: DeserializeOwned>(said: &[u8]) -> Result<T, TrainError> {
    Ok(postcard::from_bytes(said)?)
}
