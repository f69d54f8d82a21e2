//! Shuffled mini-batches of the indices of a data set.

use rand::{seq::SliceRandom, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::DataError;

/// Shuffled mini-batches of the indices of a data set.
///
/// Every epoch visits each index once (but see [`drop_last`](Self::drop_last)), in an order that
/// depends on nothing but the seed and the number of the epoch: a run resumed at epoch 5 sees the
/// batches that an uninterrupted run would have seen.
///
/// ```
/// use tlr_models::data::Batches;
///
/// let batches = Batches::new(10, 4, 1)?;
/// let sizes: Vec<usize> = batches.epoch(0).map(|batch| batch.len()).collect();
/// assert_eq!(sizes, [4, 4, 2]);
/// assert_eq!((batches.batches_per_epoch(), batches.drop_last().batches_per_epoch()), (3, 2));
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    len: usize,
    batch_size: usize,
    seed: u64,
    drop_last: bool,
}

impl Batches {
    /// Batches of `batch_size` indices out of `0..len`.
    ///
    /// # Errors
    /// [`DataError::Zero`] when `len` or `batch_size` is zero.
    ///
    /// Example: [`Batches`].
    pub fn new(len: usize, batch_size: usize, seed: u64) -> Result<Self, DataError> {
        for (what, value) in [("number of images", len), ("batch size", batch_size)] {
            if value == 0 {
                return Err(DataError::Zero { what });
            }
        }
        Ok(Self { len, batch_size, seed, drop_last: false })
    }

    /// Leaves out a last batch that is smaller than the others, unless it is the only one. The
    /// examples that are left out differ from epoch to epoch.
    ///
    /// For models with batch norm, to which a few images are a poor sample: on 10,000 images of
    /// CIFAR-10 in batches of 128, a last batch of 16 at a rate of 0.1 can double the test loss.
    ///
    /// Example: [`Batches`].
    pub fn drop_last(self) -> Self {
        Self { drop_last: true, ..self }
    }

    /// The number of batches in an epoch. A last batch that is smaller than
    /// the others counts too, unless it is [left out](Self::drop_last).
    ///
    /// Example: [`Batches`].
    pub fn batches_per_epoch(&self) -> usize {
        self.used().div_ceil(self.batch_size)
    }

    /// Indices that an epoch visits.
    fn used(&self) -> usize {
        let whole = self.len - self.len % self.batch_size;
        if self.drop_last && whole > 0 {
            whole
        } else {
            self.len
        }
    }

    /// The batches of epoch number `epoch`, freshly shuffled.
    ///
    /// Example: [`Batches`].
    pub fn epoch(&self, epoch: usize) -> EpochBatches {
        // One stream of the generator an epoch: no epoch has to be replayed to
        // reach a later one.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(epoch as u64);
        let mut order: Vec<usize> = (0..self.len).collect();
        order.shuffle(&mut rng);
        order.truncate(self.used());
        EpochBatches { order, batch_size: self.batch_size, next: 0 }
    }
}

/// The batches of one epoch, see [`Batches::epoch`].
#[derive(Clone, Debug)]
pub struct EpochBatches {
    order: Vec<usize>,
    batch_size: usize,
    next: usize,
}

impl Iterator for EpochBatches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let rest = self.order.get(self.next..)?;
        let batch = rest.get(..self.batch_size).unwrap_or(rest);
        self.next += batch.len();
        (!batch.is_empty()).then(|| batch.to_vec())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.order.len() - self.next).div_ceil(self.batch_size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for EpochBatches {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn order(batches: &Batches, epoch: usize) -> Vec<usize> {
        batches.epoch(epoch).flatten().collect()
    }

    #[test]
    fn an_epoch_visits_every_index_once() {
        for (len, size, expected) in [(10, 4, 3), (12, 4, 3), (3, 100, 1), (5, 1, 5)] {
            let batches = Batches::new(len, size, 3).unwrap();
            assert_eq!(batches.batches_per_epoch(), expected);
            assert_eq!(batches.epoch(0).len(), expected);
            assert_eq!(batches.epoch(0).count(), expected);
            let mut indices = order(&batches, 2);
            indices.sort_unstable();
            assert_eq!(indices, (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_batch_but_the_last_is_full() {
        let sizes: Vec<_> = Batches::new(10, 4, 3).unwrap().epoch(1).map(|b| b.len()).collect();
        assert_eq!(sizes, [4, 4, 2]);
    }

    #[test]
    fn a_small_last_batch_can_be_left_out() {
        for (len, size, expected) in [(10, 4, &[4, 4][..]), (12, 4, &[4, 4, 4]), (3, 4, &[3])] {
            let all = Batches::new(len, size, 3).unwrap();
            let batches = all.clone().drop_last();
            let sizes: Vec<_> = batches.epoch(1).map(|b| b.len()).collect();
            assert_eq!((&sizes[..], batches.batches_per_epoch()), (expected, expected.len()));
            assert!(all.epoch(1).zip(batches.epoch(1)).all(|(all, some)| all == some));
        }
        let batches = Batches::new(10, 4, 3).unwrap().drop_last();
        let mut seen: Vec<usize> = (0..9).flat_map(|epoch| order(&batches, epoch)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn the_remaining_length_counts_down() {
        let mut epoch = Batches::new(10, 4, 3).unwrap().epoch(0);
        for left in [3, 2, 1, 0] {
            assert_eq!(epoch.len(), left);
            assert_eq!(epoch.next().is_some(), left > 0);
        }
        assert_eq!(epoch.next(), None);
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_only() {
        let one = Batches::new(100, 7, 1).unwrap();
        assert_eq!(order(&one, 5), order(&Batches::new(100, 7, 1).unwrap(), 5));
        assert_eq!(order(&one, 5), order(&Batches::new(100, 9, 1).unwrap(), 5));
        assert_ne!(order(&one, 5), order(&one, 6));
        assert_ne!(order(&one, 5), order(&Batches::new(100, 7, 2).unwrap(), 5));
        assert_ne!(order(&one, 0), (0..100).collect::<Vec<_>>());
    }

    /// Guards resumed runs against a change of the generator.
    #[test]
    fn the_order_is_pinned() {
        let order = order(&Batches::new(8, 3, 42).unwrap(), 3);
        assert_eq!(order, [1, 5, 0, 3, 6, 7, 2, 4]);
    }

    #[test]
    fn zeros_are_refused() {
        for (len, size) in [(0, 1), (1, 0)] {
            assert!(matches!(Batches::new(len, size, 0), Err(DataError::Zero { .. })));
        }
    }
}
