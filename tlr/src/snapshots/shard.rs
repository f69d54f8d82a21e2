//! The part of the snapshots that a rank keeps, and what the ranks tell each other of their parts.
//!
//! The weights of all trainable tensors, one after the other, are cut into as many parts of equal
//! length as there are ranks. A rank keeps A and B of its part, and of all buffers. Sums over the
//! elements are added up in the order of the ranks, so that all ranks get the same.

use super::{tracked::Tracked, Snapshots};
use crate::{error::Error, optim::Shards};
use dfdx::shapes::Dtype;
use std::{borrow::Cow, ops::Range};

/// Cuts a walk over tensors into parts.
pub(super) struct Cut {
    part: Range<usize>,
    /// How many elements the walk has passed.
    passed: usize,
}

impl Cut {
    /// The part of a rank, if `all` elements are shared out over so many ranks.
    pub(super) fn new(all: usize, (rank, ranks): (usize, usize)) -> Self {
        let bound = |rank: usize| (all as u128 * rank as u128 / ranks.max(1) as u128) as usize;
        Self { part: bound(rank)..bound(rank + 1), passed: 0 }
    }

    /// The elements of the next tensor that lie in the part.
    pub(super) fn next(&mut self, len: usize) -> Range<usize> {
        let within = |bound: usize| bound.saturating_sub(self.passed).min(len);
        let part = within(self.part.start)..within(self.part.end);
        self.passed += len;
        part
    }
}

impl<E: Dtype> Snapshots<E> {
    /// The ranks to ask, if this one has only a part of the snapshots.
    fn others<'s>(&self, shards: Option<&'s dyn Shards>) -> Option<&'s dyn Shards> {
        shards.filter(|_| self.is_sharded)
    }

    /// The sums of each group over the parts of all ranks.
    pub(super) fn total<const N: usize>(
        &self,
        shards: Option<&dyn Shards>,
        own: Result<Vec<[f64; N]>, Error>,
    ) -> Result<Vec<[f64; N]>, Error> {
        let Some(shards) = self.others(shards) else { return own };
        let own = own.map(Vec::into_flattened).map_err(|error| error.to_string());
        let mut total = vec![[0.0; N]; self.groups];
        for sums in shards.exchange_numbers(own)? {
            total.as_flattened_mut().iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        Ok(total)
    }

    /// All elements of one tensor's snapshot, of which this rank has a part. f64 holds every
    /// element exactly.
    pub(super) fn whole<'a, T: Copy>(
        &self,
        tensor: &Tracked<E>,
        shards: Option<&dyn Shards>,
        own: Result<Cow<'a, [T]>, Error>,
        to: fn(T) -> f64,
        from: fn(f64) -> T,
    ) -> Result<Cow<'a, [T]>, Error>
    where
        [T]: ToOwned<Owned = Vec<T>>,
    {
        let shards = self.others(shards).filter(|_| tensor.group.is_some());
        let Some(shards) = shards else { return own };
        let own = own.map(|own| own.iter().map(|element| to(*element)).collect());
        let parts = shards.exchange_numbers(own.map_err(|error| error.to_string()))?;
        Ok(Cow::Owned(parts.into_iter().flatten().map(from).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: eleven elements in tensors of 3, 0, 7 and 1, over four ranks. Fails if an element
    /// is kept twice or by nobody, or if a rank has more than its share.
    #[test]
    fn parts_of_tensors() {
        let parts = |place| {
            let mut cut = Cut::new(11, place);
            [3, 0, 7, 1].map(|len| cut.next(len))
        };
        assert_eq!(parts((0, 4)), [0..2, 0..0, 0..0, 0..0]);
        assert_eq!(parts((1, 4)), [2..3, 0..0, 0..2, 0..0]);
        assert_eq!(parts((2, 4)), [3..3, 0..0, 2..5, 0..0]);
        assert_eq!(parts((3, 4)), [3..3, 0..0, 5..7, 0..1]);
        assert_eq!(parts((0, 1)), [0..3, 0..0, 0..7, 0..1]);
        let huge = Cut::new(usize::MAX, (2, 3));
        assert_eq!(huge.part.end, usize::MAX);
    }
}
