//! Images of one size with their labels, and data sets of them.

use super::{DataError, Scaling};

/// Images of one size and number of channels, each with a class label.
///
/// Pixels are bytes, stored image by image, within an image channel by channel
/// (grey, or red, green, blue) and within a channel row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    channels: usize,
    rows: usize,
    columns: usize,
    classes: usize,
}

impl Images {
    /// Builds a set from `labels.len()` images of the shape `[channels, rows, columns]`; grey
    /// images have one channel, coloured ones three.
    ///
    /// # Errors
    /// [`DataError::Zero`] when a size, `classes` or the number of images is zero,
    /// [`DataError::Length`] when `pixels` does not hold exactly `labels.len() * channels * rows *
    /// columns` bytes, and [`DataError::Label`] for the first label that is not below `classes`.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::Images;
    ///
    /// // Two grey images of 1 x 3 pixels, of the classes 0 and 1.
    /// let images = Images::new(vec![0, 128, 255, 255, 128, 0], vec![0, 1], [1, 1, 3], 2)?;
    /// assert_eq!((images.len(), images.pixels_of(1)), (2, &[255, 128, 0][..]));
    /// # Ok::<(), tlr_models::data::DataError>(())
    /// ```
    pub fn new(
        pixels: Vec<u8>,
        labels: Vec<u8>,
        [channels, rows, columns]: [usize; 3],
        classes: usize,
    ) -> Result<Self, DataError> {
        let sizes = [
            ("number of channels", channels),
            ("number of rows", rows),
            ("number of columns", columns),
            ("number of classes", classes),
            ("number of images", labels.len()),
        ];
        for (what, size) in sizes {
            if size == 0 {
                return Err(DataError::Zero { what });
            }
        }
        let expected = [channels, rows, columns]
            .iter()
            .try_fold(labels.len(), |product, &size| product.checked_mul(size))
            .unwrap_or(usize::MAX);
        if pixels.len() != expected {
            return Err(DataError::Length {
                what: "number of pixels",
                expected,
                found: pixels.len(),
            });
        }
        if let Some(index) = labels.iter().position(|&l| usize::from(l) >= classes) {
            return Err(DataError::Label { index, label: labels[index], classes });
        }
        Ok(Self { pixels, labels, channels, rows, columns, classes })
    }

    /// The number of images, at least one.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images; always false, since [`Images::new`]
    /// refuses an empty set.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The number of channels: one for grey images, three for red, green and
    /// blue.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The height of an image in pixels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The width of an image in pixels.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `[channels, rows, columns]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.rows, self.columns]
    }

    /// The number of values in an image: channels x rows x columns.
    pub fn size(&self) -> usize {
        self.channels * self.rows * self.columns
    }

    /// The number of classes; labels lie in `0..classes`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The [`size`](Self::size) bytes of image `index`, channel by channel and
    /// row by row.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`len`](Self::len), as indexing a slice does.
    pub fn pixels_of(&self, index: usize) -> &[u8] {
        let size = self.size();
        &self.pixels[index * size..][..size]
    }

    /// The class of image `index`.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`len`](Self::len), as indexing a slice does.
    pub fn label(&self, index: usize) -> u8 {
        self.labels[index]
    }

    /// Keeps the first `n` images, or all of them when there are fewer.
    ///
    /// # Errors
    ///
    /// [`DataError::Zero`] when `n` is zero.
    pub fn take(mut self, n: usize) -> Result<Self, DataError> {
        if n == 0 {
            return Err(DataError::Zero { what: "number of images to take" });
        }
        let n = n.min(self.len());
        self.labels.truncate(n);
        self.pixels.truncate(n * self.size());
        Ok(self)
    }

    /// The scaling that gives each channel of these images mean 0 and standard deviation 1.
    pub fn scaling(&self) -> Scaling {
        let mut counts = vec![[0_u64; 256]; self.channels];
        for (i, plane) in self.pixels.chunks_exact(self.rows * self.columns).enumerate() {
            let counts = &mut counts[i % self.channels];
            for &pixel in plane {
                counts[usize::from(pixel)] += 1;
            }
        }
        let total = (self.pixels.len() / self.channels) as f64; // at least one
        Scaling::of_counts(&counts, total)
    }

    /// Replaces the contents of `pixels` and `labels` by those of the images `indices`, in that
    /// order, ready for training.
    ///
    /// Pixels are scaled by `scaling`, usually that of the training set. `pixels` ends up with the
    /// values of a tensor of shape (images, channels, rows, columns), `labels` with
    /// `indices.len()`. Reusing the two vectors from batch to batch avoids allocations.
    ///
    /// # Errors
    ///
    /// [`DataError::Index`] when an index is not below [`len`](Self::len), and
    /// [`DataError::Channels`] when `scaling` is that of images with another number of channels;
    /// the two vectors are left as they were.
    pub fn write_batch(
        &self,
        indices: &[usize],
        scaling: &Scaling,
        pixels: &mut Vec<f32>,
        labels: &mut Vec<usize>,
    ) -> Result<(), DataError> {
        let len = self.len();
        if let Some(&index) = indices.iter().find(|&&i| i >= len) {
            return Err(DataError::Index { index, len });
        }
        let found = scaling.channels();
        if found != self.channels {
            return Err(DataError::Channels { expected: self.channels, found });
        }
        pixels.clear();
        labels.clear();
        let plane = self.rows * self.columns;
        for &i in indices {
            for (bytes, table) in self.pixels_of(i).chunks_exact(plane).zip(scaling.tables()) {
                pixels.extend(bytes.iter().map(|&byte| table[usize::from(byte)]));
            }
            labels.push(usize::from(self.labels[i]));
        }
        Ok(())
    }
}

/// A training set and a test set of the same kind of images.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dataset {
    /// The images to train on.
    pub train: Images,
    /// The images to test on, never trained on.
    pub test: Images,
}

impl Dataset {
    /// Joins the two sets.
    ///
    /// # Errors
    ///
    /// [`DataError::Split`] when they differ in channels, rows, columns or classes.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::{Dataset, Images};
    ///
    /// let images = |pixels: [u8; 4]| Images::new(pixels.to_vec(), vec![0, 1], [1, 1, 2], 2);
    /// let data = Dataset::new(images([0, 1, 2, 3])?, images([4, 5, 6, 7])?)?;
    /// assert_eq!(data.test.len(), 2);
    /// # Ok::<(), tlr_models::data::DataError>(())
    /// ```
    pub fn new(train: Images, test: Images) -> Result<Self, DataError> {
        let sizes = [
            ("channels", train.channels, test.channels),
            ("rows", train.rows, test.rows),
            ("columns", train.columns, test.columns),
            ("classes", train.classes, test.classes),
        ];
        for (what, train, test) in sizes {
            if train != test {
                return Err(DataError::Split { what, train, test });
            }
        }
        Ok(Self { train, test })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Three images of 2x3 pixels: 0..6, 6..12, 12..18.
    fn three() -> Images {
        Images::new((0..18).collect(), vec![2, 0, 1], [1, 2, 3], 3).unwrap()
    }

    #[test]
    fn accessors_return_what_was_stored() {
        let images = three();
        assert_eq!(images.len(), 3);
        assert!(!images.is_empty());
        assert_eq!((images.rows(), images.columns()), (2, 3));
        assert_eq!(images.classes(), 3);
        assert_eq!(images.pixels_of(1), [6, 7, 8, 9, 10, 11]);
        assert_eq!(images.label(0), 2);
    }

    #[test]
    fn a_wrong_number_of_pixels_is_refused() {
        for length in [0, 17, 19] {
            let error = Images::new(vec![0; length], vec![0; 3], [1, 2, 3], 3).unwrap_err();
            assert!(
                matches!(error, DataError::Length { expected: 18, found, .. } if found == length)
            );
        }
    }

    #[test]
    fn an_overflowing_size_is_refused() {
        let error = Images::new(vec![0; 4], vec![0; 4], [1, usize::MAX, 2], 1).unwrap_err();
        assert!(matches!(error, DataError::Length { .. }));
    }

    #[test]
    fn a_label_equal_to_the_number_of_classes_is_refused() {
        let error = Images::new(vec![0; 3], vec![0, 1, 2], [1, 1, 1], 2).unwrap_err();
        assert!(matches!(error, DataError::Label { index: 2, label: 2, classes: 2 }));
    }

    #[test]
    fn zero_sizes_are_refused() {
        for (labels, shape, classes) in [
            (0, [1, 1, 1], 1),
            (1, [0, 1, 1], 1),
            (1, [1, 0, 1], 1),
            (1, [1, 1, 0], 1),
            (1, [1, 1, 1], 0),
        ] {
            let pixels = vec![0; labels * shape.iter().product::<usize>()];
            let error = Images::new(pixels, vec![0; labels], shape, classes).unwrap_err();
            assert!(matches!(error, DataError::Zero { .. }), "{error}");
        }
    }

    #[test]
    fn take_keeps_the_first_images() {
        let two = three().take(2).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(two.pixels_of(1), three().pixels_of(1));
        assert_eq!(two, Images::new((0..12).collect(), vec![2, 0], [1, 2, 3], 3).unwrap());
        assert_eq!(three().take(100).unwrap(), three());
        assert!(matches!(three().take(0), Err(DataError::Zero { .. })));
    }

    #[test]
    fn a_batch_is_scaled_in_the_order_asked_for() {
        let images = Images::new(vec![0, 200, 0, 200], vec![1, 0], [1, 1, 2], 2).unwrap();
        let other = Images::new(vec![100, 50], vec![0], [1, 1, 2], 2).unwrap();
        let (mut pixels, mut labels) = (vec![9.0], vec![9]);
        images.write_batch(&[1, 0], &images.scaling(), &mut pixels, &mut labels).unwrap();
        assert_eq!((&*pixels, &*labels), (&[-1.0, 1.0, -1.0, 1.0][..], &[0, 1][..]));
        // Others by the same mean, 100, and deviation, 100.
        other.write_batch(&[0], &images.scaling(), &mut pixels, &mut labels).unwrap();
        assert_eq!((&*pixels, &*labels), (&[0.0, -0.5][..], &[0][..]));
    }

    #[test]
    fn scaled_pixels_have_mean_0_and_deviation_1() {
        let images = three();
        let scaled: Vec<f64> =
            (0..18).map(|byte| f64::from(images.scaling().of(0, byte))).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / 18.0;
        assert!(mean(&scaled).abs() < 1e-7);
        let squares: Vec<f64> = scaled.iter().map(|value| value * value).collect();
        assert!((mean(&squares) - 1.0).abs() < 1e-6);
        let grey = Images::new(vec![7; 4], vec![0], [1, 2, 2], 1).unwrap();
        assert_eq!(grey.scaling().of(0, 7), 0.0);
    }

    /// Two channels of 1x2 pixels, two images; means 100 and 10, deviations 100 and 10.
    fn two_channels() -> Images {
        Images::new(vec![0, 200, 0, 20, 200, 0, 20, 0], vec![1, 0], [2, 1, 2], 2).unwrap()
    }

    #[test]
    fn each_channel_has_its_own_scaling_and_its_own_plane() {
        let images = two_channels();
        assert_eq!((images.channels(), images.shape(), images.size()), (2, [2, 1, 2], 4));
        assert_eq!(images.pixels_of(1), [200, 0, 20, 0]);
        let scaling = images.scaling();
        assert_eq!(scaling.channels(), 2);
        assert_eq!((scaling.of(0, 20), scaling.of(1, 20)), (-0.8, 1.0));
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        images.write_batch(&[1, 0], &scaling, &mut pixels, &mut labels).unwrap();
        assert_eq!(pixels, [1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0]);
        assert_eq!(images.take(1).unwrap().pixels_of(0), [0, 200, 0, 20]);
    }

    /// Guards the figures made with grey images before there were channels: the bits of the values
    /// that 18 bytes 0..18 are scaled to.
    #[test]
    fn the_scaling_of_grey_images_is_pinned() {
        let bits: Vec<u32> =
            [0, 9, 17, 255].iter().map(|&byte| three().scaling().of(0, byte).to_bits()).collect();
        assert_eq!(bits, [0xbfd1b5a7, 0x3dc55fac, 0x3fd1b5a7, 0x423e0c9f]);
    }

    #[test]
    fn a_scaling_for_other_channels_is_refused() {
        let (mut pixels, mut labels) = (vec![9.0], vec![9]);
        let error = three()
            .write_batch(&[0], &two_channels().scaling(), &mut pixels, &mut labels)
            .unwrap_err();
        assert!(matches!(error, DataError::Channels { expected: 1, found: 2 }));
        assert_eq!((pixels, labels), (vec![9.0], vec![9]));
    }

    #[test]
    fn a_batch_with_a_bad_index_changes_nothing() {
        let (mut pixels, mut labels) = (vec![9.0], vec![9]);
        let error =
            three().write_batch(&[0, 3], &three().scaling(), &mut pixels, &mut labels).unwrap_err();
        assert!(matches!(error, DataError::Index { index: 3, len: 3 }));
        assert_eq!((pixels, labels), (vec![9.0], vec![9]));
    }

    #[test]
    fn the_halves_of_a_dataset_must_agree() {
        let of = |shape: [usize; 3], classes| {
            Images::new(vec![0; shape.iter().product()], vec![0], shape, classes).unwrap()
        };
        assert!(Dataset::new(of([1, 2, 3], 4), of([1, 2, 3], 4)).is_ok());
        for (other, name) in [
            (of([3, 2, 3], 4), "channels"),
            (of([1, 3, 3], 4), "rows"),
            (of([1, 2, 2], 4), "columns"),
            (of([1, 2, 3], 5), "classes"),
        ] {
            let error = Dataset::new(of([1, 2, 3], 4), other).unwrap_err();
            assert!(matches!(error, DataError::Split { what, .. } if what == name));
        }
    }
}
