//! Shuffled mini-batches of sentence pairs of about the same length.

use rand::seq::SliceRandom;

use super::{EncodedPairs, TextError};
use crate::data::random::{generator, Purpose};

/// How many batches are sorted by length together: enough for little padding, few enough that
/// batches differ from epoch to epoch.
const POOL: usize = 50;

/// Shuffled mini-batches of pairs of like length.
///
/// Every epoch visits each pair once. Pairs are shuffled, sorted by length within pools of 50
/// batches, cut into batches, and the batches shuffled; the order depends on nothing but the seed
/// and the number of the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Target before source: the decoder's side costs more.
    lengths: Vec<(usize, usize)>,
    batch_size: usize,
    seed: u64,
}

impl Buckets {
    /// Batches of `batch_size` of the `pairs`.
    ///
    /// # Errors
    /// [`TextError::Zero`] when `batch_size` is zero.
    ///
    /// Example: [`EncodedPairs::new`].
    pub fn new(pairs: &EncodedPairs, batch_size: usize, seed: u64) -> Result<Self, TextError> {
        if batch_size == 0 {
            return Err(TextError::Zero { what: "batch size" });
        }
        let lengths = (0..pairs.len())
            .filter_map(|index| pairs.get(index))
            .map(|(source, target)| (target.len(), source.len()))
            .collect();
        Ok(Self { lengths, batch_size, seed })
    }

    /// The number of batches in an epoch. One batch may be smaller than the others; it counts too.
    ///
    /// Example: [`EncodedPairs::new`].
    pub fn batches_per_epoch(&self) -> usize {
        self.lengths.len().div_ceil(self.batch_size)
    }

    /// The batches of epoch number `epoch`, each a list of indices into the pairs.
    ///
    /// Example: [`EncodedPairs::new`].
    pub fn epoch(&self, epoch: usize) -> std::vec::IntoIter<Vec<usize>> {
        let mut rng = generator(Purpose::Bucket, self.seed, epoch as u64, 0);
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        order.shuffle(&mut rng);
        // Stable, so that pairs of one length stay shuffled.
        for pool in order.chunks_mut(self.batch_size.saturating_mul(POOL)) {
            pool.sort_by_key(|&index| self.lengths.get(index));
        }
        let mut batches: Vec<_> = order.chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        batches.shuffle(&mut rng);
        batches.into_iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::pairs::tests::of_lengths, *};

    /// `count` pairs of lengths that look random.
    fn pairs(count: usize) -> EncodedPairs {
        let lengths: Vec<_> = (0..count).map(|i| (i * i % 17, i * 7 % 23)).collect();
        of_lengths(&lengths)
    }

    fn epoch(count: usize, batch_size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
        Buckets::new(&pairs(count), batch_size, seed).unwrap().epoch(epoch).collect()
    }

    #[test]
    fn an_epoch_visits_every_pair_once() {
        for (count, size, batches) in [(10, 4, 3), (12, 4, 3), (3, 100, 1), (2003, 10, 201)] {
            let all = epoch(count, size, 1, 2);
            assert_eq!(all.len(), batches);
            assert_eq!(Buckets::new(&pairs(count), size, 1).unwrap().batches_per_epoch(), batches);
            let small = all.iter().filter(|batch| batch.len() < size).count();
            assert_eq!(small, usize::from(count % size != 0));
            let mut indices = all.concat();
            indices.sort_unstable();
            assert_eq!(indices, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_only() {
        assert_eq!(epoch(200, 10, 1, 5), epoch(200, 10, 1, 5));
        assert_ne!(epoch(200, 10, 1, 5), epoch(200, 10, 1, 6));
        assert_ne!(epoch(200, 10, 1, 5), epoch(200, 10, 2, 5));
    }

    /// Guards resumed runs against a change of the generator.
    #[test]
    fn the_order_is_pinned() {
        assert_eq!(epoch(8, 3, 42, 3), [vec![6, 3], vec![1, 5, 2], vec![0, 7, 4]]);
    }

    #[test]
    fn batches_hold_pairs_of_like_length_in_no_order() {
        let pairs = pairs(2000);
        let target = |index: &usize| pairs.get(*index).unwrap().1.len();
        let all = epoch(2000, 20, 1, 0);
        let waste: usize = all
            .iter()
            .map(|batch| {
                let longest = batch.iter().map(target).max().unwrap();
                batch.iter().map(|index| longest - target(index)).sum::<usize>()
            })
            .sum();
        // In random batches there are about 10 wasted positions a pair.
        assert!(waste < 2000, "{waste}");
        // Long and short batches alternate: no run from short to long.
        let firsts: Vec<usize> = all.iter().map(|batch| target(&batch[0])).collect();
        let rises = firsts.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((30..70).contains(&rises), "{rises}");
    }

    #[test]
    fn no_batch_size_is_refused() {
        assert!(matches!(Buckets::new(&pairs(3), 0, 1), Err(TextError::Zero { .. })));
    }
}
