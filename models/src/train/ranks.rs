//! The ranks of a training, and the share of a batch that each of them has.

use std::{
    fmt::{self, Display},
    ops::Range,
};
use tlr::parallel::{Alone, Communicator, Ranks};

/// Ranks over any communicator.
pub type AnyRanks = Ranks<Box<dyn Communicator>>;

/// Tells the other ranks, which may wait for this one, if it has failed by itself: by an error that
/// they do not know of.
pub(crate) fn or_leave<T, E: Display>(
    ranks: Option<&AnyRanks>,
    made: Result<T, E>,
    all_know: impl Fn(&E) -> bool,
) -> Result<T, E> {
    if let (Err(error), Some(ranks)) = (&made, ranks)
        && !all_know(error)
    {
        ranks.leave(&error.to_string());
    }
    made
}

/// One process that trains by itself.
///
/// # Example
/// ```
/// assert_eq!(tlr_models::train::alone().size(), 1);
/// ```
pub fn alone() -> AnyRanks {
    Ranks::new(Box::new(Alone))
}

/// The share of each batch that one of several ranks has: a part of its examples, in their order.
/// The shares of all ranks are the batch, and differ by at most one example.
///
/// ```
/// use tlr_models::train::{alone, Share};
///
/// let batch = [7, 1, 4, 0, 9];
/// let parts: Vec<_> = (0..3).filter_map(|rank| Share::new(rank, 3)).collect();
/// assert_eq!([0, 1, 2].map(|rank| parts[rank].of(&batch)), [&[7][..], &[1, 4], &[0, 9]]);
/// assert_eq!(Share::new(3, 3), None);
/// assert_eq!(Share::of_rank(&alone()).of(&batch), batch);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    rank: usize,
    size: usize,
}

/// The rank, as `rank 0 of 2`.
impl Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.size)
    }
}

/// The whole batch, for a single process.
impl Default for Share {
    fn default() -> Self {
        Self { rank: 0, size: 1 }
    }
}

impl Share {
    /// The share of rank `rank`, counted from 0, of `size` ranks. None if there is no such rank.
    ///
    /// Example: [`Share`].
    pub fn new(rank: usize, size: usize) -> Option<Self> {
        (rank < size).then_some(Self { rank, size })
    }

    /// The share of this rank.
    ///
    /// Example: [`Share`].
    pub fn of_rank(ranks: &AnyRanks) -> Self {
        Self { rank: ranks.rank(), size: ranks.size() }
    }

    /// The examples of `batch` that are this share; may be empty.
    ///
    /// Example: [`Share`].
    pub fn of<'a, T>(&self, batch: &'a [T]) -> &'a [T] {
        let at = |rank: usize| batch.len() * rank / self.size;
        let range: Range<usize> = at(self.rank)..at(self.rank + 1);
        batch.get(range).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if an example is left out, or is in two shares, or if a rank that is not there has a
    /// share.
    #[test]
    fn the_parts_of_all_ranks_are_the_batch() {
        for len in 0..20 {
            let batch: Vec<usize> = (0..len).collect();
            for size in 1..7 {
                let parts: Vec<_> = (0..size).filter_map(|rank| Share::new(rank, size)).collect();
                assert_eq!((parts.len(), Share::new(size, size)), (size, None));
                let all: Vec<usize> =
                    parts.iter().flat_map(|share| share.of(&batch)).copied().collect();
                assert_eq!(all, batch);
                let lens = parts.iter().map(|share| share.of(&batch).len());
                assert!(lens.clone().max() <= lens.min().map(|least| least + 1));
            }
        }
        assert_eq!(Share::default().of(&[1, 2]), [1, 2]);
    }
}
