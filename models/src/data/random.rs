//! Seeded generators of random numbers, one for each purpose.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a generator is for. Two purposes never share a stream, whatever their seeds.
#[derive(Clone, Copy)]
#[cfg_attr(not(all(feature = "pictures", feature = "text")), allow(dead_code))]
pub(super) enum Purpose {
    Augment = 1,
    Shape = 2,
    Crop = 3,
    Bucket = 4,
    Sentence = 5,
}

/// A generator that depends on its four arguments only, so that what is drawn for an image is the
/// same in whatever order, and on whatever thread, images come.
pub(super) fn generator(purpose: Purpose, seed: u64, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([purpose as u64, seed, epoch, index]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    #[test]
    fn every_argument_matters() {
        let first = |purpose, seed, epoch, index| generator(purpose, seed, epoch, index).next_u64();
        let base = first(Purpose::Augment, 1, 2, 3);
        assert_eq!(base, first(Purpose::Augment, 1, 2, 3));
        for other in [
            first(Purpose::Shape, 1, 2, 3),
            first(Purpose::Augment, 2, 2, 3),
            first(Purpose::Augment, 1, 3, 3),
            first(Purpose::Augment, 1, 2, 4),
            first(Purpose::Augment, 1, 3, 2),
        ] {
            assert_ne!(base, other);
        }
    }
}
