//! Random crops and mirror images.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{
    random::{generator, Purpose},
    DataError,
};

/// Random crops and mirror images, as CIFAR is usually trained on: each image is padded on all
/// sides, cut back to its size at a random place, and mirrored left to right half of the time.
///
/// It works on scaled batches. The padding is zero *after* scaling, that is the mean colour of the
/// training set and not black.
///
/// What is drawn for an image depends on nothing but the seed, the epoch and the image's index in
/// its set: neither on the image's batch nor on the draws before.
///
/// ```
/// use tlr_models::data::{shapes, Augment, Batches};
///
/// let train = shapes::draw(7, 100, 10, 10)?.train;
/// let (scaling, augment) = (train.scaling(), Augment::new(7));
/// let (mut pixels, mut labels) = (Vec::new(), Vec::new());
/// for epoch in 0..2 {
///     for indices in Batches::new(train.len(), 32, 7)?.epoch(epoch) {
///         train.write_batch(&indices, &scaling, &mut pixels, &mut labels)?;
///         augment.apply(epoch, &indices, train.shape(), &mut pixels)?;
///     }
/// }
///
/// // Without padding and mirror images, nothing changes.
/// let (still, before) = (Augment::new(7).padding(0).flip(false), pixels.clone());
/// still.apply(0, &[0, 1, 2, 3], train.shape(), &mut pixels)?;
/// assert_eq!(pixels, before);
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augment {
    seed: u64,
    padding: usize,
    flip: bool,
}

impl Augment {
    /// An augmentation with a padding of 4 pixels, and with mirror images.
    ///
    /// Example: [`Augment`].
    pub fn new(seed: u64) -> Self {
        Self { seed, padding: 4, flip: true }
    }

    /// Pads by `padding` pixels on each side, so that an image moves by at most as many. Default 4;
    /// 0 leaves images where they are.
    ///
    /// Example: [`Augment`].
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Whether half of the images are mirrored left to right. Default true.
    ///
    /// Example: [`Augment`].
    pub fn flip(self, flip: bool) -> Self {
        Self { flip, ..self }
    }

    /// Augments a batch in place: `pixels` holds the images `indices`, in that order, of shape
    /// `[channels, rows, columns]` each, as [`Images::write_batch`](super::Images::write_batch)
    /// leaves them. `epoch` counts from 0.
    ///
    /// # Errors
    /// [`DataError::Length`] when `pixels` does not hold `indices.len()` such images; nothing is
    /// changed then.
    ///
    /// Example: [`Augment`].
    pub fn apply(
        &self,
        epoch: usize,
        indices: &[usize],
        shape: [usize; 3],
        pixels: &mut [f32],
    ) -> Result<(), DataError> {
        let [_, rows, columns] = shape;
        let size = shape.iter().try_fold(1, |product: usize, &n| product.checked_mul(n));
        let expected = size.and_then(|size| size.checked_mul(indices.len())).unwrap_or(usize::MAX);
        if pixels.len() != expected {
            return Err(DataError::Length {
                what: "number of pixels",
                expected,
                found: pixels.len(),
            });
        }
        // Nothing to do. Chunks of no length would panic, and no memory holds a plane of any size.
        let Some(size) = size.filter(|_| !pixels.is_empty()) else { return Ok(()) };
        let mut source = vec![0.0; rows * columns];
        for (image, &index) in pixels.chunks_exact_mut(size).zip(indices) {
            let mut rng = generator(Purpose::Augment, self.seed, epoch as u64, index as u64);
            let shift = self.shift(&mut rng);
            for plane in image.chunks_exact_mut(rows * columns) {
                source.copy_from_slice(plane);
                shift.copy(&source, plane, rows, columns);
            }
        }
        Ok(())
    }

    fn shift(&self, rng: &mut ChaCha8Rng) -> Shift {
        // As i64: the draw must not depend on the width of usize. No image is larger than the
        // limit.
        let padding = self.padding.min(1 << 30) as i64;
        let mut offset = || rng.gen_range(-padding..=padding);
        let (down, right) = (offset(), offset());
        Shift { down, right, flip: self.flip && rng.r#gen::<bool>() }
    }
}

/// Which part of a padded image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shift {
    /// Where the upper left corner of the part lies in the unpadded image, in pixels.
    down: i64,
    right: i64,
    /// Whether the part is mirrored.
    flip: bool,
}

impl Shift {
    fn copy(self, source: &[f32], plane: &mut [f32], rows: usize, columns: usize) {
        let inside = |at: usize, offset: i64, size: usize| {
            usize::try_from(at as i64 + offset).ok().filter(|&at| at < size)
        };
        for (row, line) in plane.chunks_exact_mut(columns).enumerate() {
            let from = inside(row, self.down, rows);
            for (column, value) in line.iter_mut().enumerate() {
                let column = if self.flip { columns - 1 - column } else { column };
                let at = from.zip(inside(column, self.right, columns));
                let kept = at.and_then(|(row, column)| source.get(row * columns + column));
                *value = kept.copied().unwrap_or(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHAPE: [usize; 3] = [2, 3, 4];

    /// Image `index` holds index * 100 + 1, + 2, … so that no value is 0 or occurs twice.
    fn batch(indices: &[usize]) -> Vec<f32> {
        indices.iter().flat_map(|i| (1..=24).map(move |n| (i * 100 + n) as f32)).collect()
    }

    fn augmented(augment: Augment, epoch: usize, indices: &[usize]) -> Vec<Vec<f32>> {
        let mut pixels = batch(indices);
        augment.apply(epoch, indices, SHAPE, &mut pixels).unwrap();
        pixels.chunks(24).map(<[f32]>::to_vec).collect()
    }

    #[test]
    fn a_view_is_moved_padded_by_zeros_and_mirrored() {
        let source: Vec<f32> = (1..=12).map(|n| n as f32).collect();
        let mut plane = vec![9.0; 12];
        Shift { down: 1, right: -1, flip: false }.copy(&source, &mut plane, 3, 4);
        assert_eq!(plane, [0., 5., 6., 7., 0., 9., 10., 11., 0., 0., 0., 0.]);
        Shift { down: -2, right: 1, flip: true }.copy(&source, &mut plane, 3, 4);
        assert_eq!(plane, [0., 0., 0., 0., 0., 0., 0., 0., 0., 4., 3., 2.]);
    }

    #[test]
    fn an_image_depends_on_seed_epoch_and_index_only() {
        let augment = Augment::new(5);
        let all = augmented(augment, 3, &[0, 1, 2, 3, 4, 5, 6, 7]);
        let other = augmented(augment, 3, &[6, 2, 100, 0]);
        assert_eq!((&other[0], &other[1], &other[3]), (&all[6], &all[2], &all[0]));
        assert_ne!(all, augmented(augment, 4, &[0, 1, 2, 3, 4, 5, 6, 7]));
        assert_ne!(all, augmented(Augment::new(6), 3, &[0, 1, 2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn channels_move_together() {
        for image in augmented(Augment::new(1).padding(1), 0, &[0, 1, 2, 3, 4, 5, 6, 7]) {
            let (first, second) = image.split_at(12);
            for (a, b) in first.iter().zip(second) {
                assert!(if *a == 0.0 { *b == 0.0 } else { *b == a + 12.0 });
            }
        }
    }

    #[test]
    fn offsets_and_mirrors_are_even() {
        let shifts = |augment: Augment| -> Vec<Shift> {
            (0..9000).map(|i| augment.shift(&mut generator(Purpose::Augment, 1, 0, i))).collect()
        };
        let all = shifts(Augment::new(1));
        for offset in -4..=4 {
            for count in [
                all.iter().filter(|shift| shift.down == offset).count(),
                all.iter().filter(|shift| shift.right == offset).count(),
            ] {
                assert!((850..1150).contains(&count), "{offset}: {count}");
            }
        }
        let flipped = all.iter().filter(|shift| shift.flip).count();
        assert!((4300..4700).contains(&flipped), "{flipped}");
        let both = all.iter().filter(|shift| shift.down == shift.right).count();
        assert!((850..1150).contains(&both), "{both}");
        assert!(all.iter().all(|shift| shift.down.abs() <= 4 && shift.right.abs() <= 4));
        assert!(shifts(Augment::new(1).flip(false)).iter().all(|shift| !shift.flip));
    }

    /// Guards resumed runs against a change of the generator.
    #[test]
    fn the_views_are_pinned() {
        let shift = Augment::new(42).shift(&mut generator(Purpose::Augment, 42, 3, 7));
        assert_eq!(shift, Shift { down: -3, right: 0, flip: true });
    }

    #[test]
    fn without_padding_and_mirrors_nothing_changes() {
        let still = Augment::new(1).padding(0).flip(false);
        assert_eq!(augmented(still, 0, &[3, 4]).concat(), batch(&[3, 4]));
    }

    #[test]
    fn a_batch_of_another_length_is_refused_and_left_alone() {
        let mut pixels = batch(&[0, 1]);
        for (indices, shape) in
            [(&[0, 1, 2][..], SHAPE), (&[0, 1], [3, 3, 4]), (&[0, 1], [usize::MAX, 2, 1])]
        {
            let error = Augment::new(1).apply(0, indices, shape, &mut pixels).unwrap_err();
            assert!(matches!(error, DataError::Length { found: 48, .. }), "{error}");
            assert_eq!(pixels, batch(&[0, 1]));
        }
        Augment::new(1).apply(0, &[1], [0, 1, 1], &mut []).unwrap();
        Augment::new(1).apply(0, &[1], [0, 1 << 31, 1 << 31], &mut []).unwrap();
        Augment::new(1).apply(0, &[], [1, 1 << 31, 1 << 31], &mut []).unwrap();
    }
}
