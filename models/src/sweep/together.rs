//! A sweep whose runs are shared out to several ranks.

use super::{
    jobs, left, results::RunResult, source, train_cell, Ended, SweepError, SweepRecord,
    SweepResults, Train,
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
/// is killed loses at most the round that was going on. The other ranks return 0. All ranks need
/// the same data.
///
/// # Errors
/// As [`run`](super::run), and [`tlr::Error::Parallel`]. If one rank fails by itself, the others
/// get that error, with its words.
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
    results: Option<&mut SweepResults>,
    ranks: &AnyRanks,
    observer: &mut dyn FnMut(&SweepRecord),
) -> Result<usize, SweepError> {
    let check = |options: &Options| train::check::<M>(&source(data, options)?, options);
    let train = |options: &Options| train_cell::<M>(data, options);
    let sweep = Sweep { data, cells, jobs, check: &check, train: &train };
    tell(ranks, rounds(&sweep, results, ranks, observer))
}

/// Tells the other ranks of an error of this one.
fn tell<T>(ranks: &AnyRanks, made: Result<T, SweepError>) -> Result<T, SweepError> {
    let all_know = |error: &SweepError| matches!(error, SweepError::Train(own) if own.all_know());
    train::or_leave(Some(ranks), made, all_know)
}

/// What one rank has of a sweep.
struct Sweep<'a> {
    data: &'a Dataset,
    cells: &'a [Options],
    jobs: usize,
    /// Checks whether a run can begin. All ranks find the same, unless one of them lacks memory or
    /// a device.
    check: &'a dyn Fn(&Options) -> Result<(), TrainError>,
    train: &'a Train<'a>,
}

/// Makes the rounds of the sweep on this rank.
fn rounds(
    sweep: &Sweep<'_>,
    mut results: Option<&mut SweepResults>,
    ranks: &AnyRanks,
    observer: &mut dyn FnMut(&SweepRecord),
) -> Result<usize, SweepError> {
    let Sweep { data, cells, jobs, check, train } = *sweep;
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
        check(options)?;
    }
    let mut failed = 0;
    for round in cells.chunks(jobs.max(1).saturating_mul(ranks.size())) {
        let mut done = Vec::new();
        jobs::each(Share::of_rank(ranks).of(round), jobs, train, &mut |options, run| {
            done.push(RunResult::new(&name, options, &run));
            Ok(())
        })?;
        let said = ranks.all_gather(&encoded(&done)?).map_err(TrainError::from)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::data::digits;
    use std::{
        thread,
        time::{Duration, Instant},
    };
    use tlr::{
        parallel::{Communicator, Ranks, Threads},
        ParallelError,
    };

    // Fails if the other rank waits until the time is out for one that cannot begin.
    #[test]
    fn a_rank_that_cannot_begin_tells_the_others() {
        let data = digits::draw(0, 20, 10).unwrap();
        let cells = [Options { epochs: 1, batch_size: 10, ..Options::default() }; 2];
        let (folder, begun) = (tempfile::tempdir().unwrap(), Instant::now());
        let work = |own: Threads| {
            let boxed: Box<dyn Communicator> = Box::new(own);
            let ranks = Ranks::new(boxed).time_out(Duration::from_secs(20));
            let is_first = ranks.is_first();
            let check = |_: &Options| match is_first {
                true => Ok(()),
                false => Err(TrainError::NoEpochs),
            };
            let train = |_: &Options| Err(TrainError::OnlyRelease);
            let sweep = Sweep { data: &data, cells: &cells, jobs: 1, check: &check, train: &train };
            let mut results =
                is_first.then(|| SweepResults::open(folder.path(), "drawn", &data).unwrap());
            tell(&ranks, rounds(&sweep, results.as_mut(), &ranks, &mut |_| ())).unwrap_err()
        };
        let [first, second] = thread::scope(|scope| {
            let work = &work;
            let own = Threads::new(2).into_iter().map(|own| scope.spawn(move || work(own)));
            let own: Vec<_> = own.collect();
            let errors: Vec<_> = own.into_iter().map(|own| own.join().unwrap()).collect();
            errors.try_into().unwrap()
        });
        assert!(matches!(second, SweepError::Train(TrainError::NoEpochs)), "{second}");
        let SweepError::Train(TrainError::Rate(tlr::Error::Parallel { rank, problem, .. })) = first
        else {
            panic!("{first}")
        };
        let failed = matches!(problem, ParallelError::Failed { .. });
        assert!(rank == 1 && failed, "rank {rank}: {problem:?}");
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
}
