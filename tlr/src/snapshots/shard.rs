//! What the ranks tell each other of their parts of the snapshots.
//!
//! A rank keeps A and B of its [part](super::cut) of the weights, and of all buffers. Sums over the
//! elements are added up in the order of the ranks, so that all ranks get the same.

use super::{tracked::Tracked, Snapshots};
use crate::{error::Error, optim::Shards};
use dfdx::shapes::Dtype;
use std::borrow::Cow;

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
        let own = own.map(Vec::into_flattened);
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
        let parts = shards.exchange_numbers(own)?;
        Ok(Cow::Owned(parts.into_iter().flatten().map(from).collect()))
    }
}
