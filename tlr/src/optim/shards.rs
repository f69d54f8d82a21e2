//! [`Shards`]: how ranks talk about snapshots that are shared out over them.

use crate::error::Error;

/// The ranks of a training that share out its snapshots, as one of them sees them.
///
/// [`DataParallel::shard_snapshots`](crate::DataParallel::shard_snapshots) is the one
/// implementation. An optimizer that wraps another one hands it on.
///
/// Example: [`DataParallel::shard_snapshots`](crate::DataParallel::shard_snapshots).
pub trait Shards {
    /// This rank, counted from 0, and how many ranks there are.
    fn place(&self) -> (usize, usize);

    /// Gives each rank the numbers of all ranks, in the order of the ranks. All ranks have to call
    /// it. A rank that has failed passes its error.
    ///
    /// # Errors
    /// [`Error::Parallel`], on all ranks.
    fn exchange_numbers(&self, own: Result<Vec<f64>, Error>) -> Result<Vec<Vec<f64>>, Error>;
}
