use super::DataError;

/// Grey-scale images of one size, each with a class label.
///
/// Pixels are bytes, 0 for the background and 255 for full ink, stored image
/// by image and row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    rows: usize,
    columns: usize,
    classes: usize,
}

impl Images {
    /// Builds a set from `labels.len()` images of `rows` x `columns` pixels.
    ///
    /// # Errors
    ///
    /// [`DataError::Zero`] when a size, `classes` or the number of images is
    /// zero, [`DataError::Length`] when `pixels` does not hold exactly
    /// `labels.len() * rows * columns` bytes, and [`DataError::Label`] for the
    /// first label that is not below `classes`.
    pub fn new(
        pixels: Vec<u8>,
        labels: Vec<u8>,
        rows: usize,
        columns: usize,
        classes: usize,
    ) -> Result<Self, DataError> {
        let sizes = [
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
        let expected = labels
            .len()
            .checked_mul(rows)
            .and_then(|n| n.checked_mul(columns))
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
        Ok(Self { pixels, labels, rows, columns, classes })
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

    /// The height of an image in pixels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The width of an image in pixels.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The number of classes; labels lie in `0..classes`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The `rows * columns` pixels of image `index`, row by row.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`len`](Self::len), as indexing a slice does.
    pub fn pixels_of(&self, index: usize) -> &[u8] {
        let size = self.rows * self.columns;
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
        self.pixels.truncate(n * self.rows * self.columns);
        Ok(self)
    }

    /// The scaling that gives the pixels of these images mean 0 and standard deviation 1.
    pub fn scaling(&self) -> Scaling {
        let mut counts = [0_u64; 256];
        for &pixel in &self.pixels {
            counts[usize::from(pixel)] += 1;
        }
        let total = self.pixels.len() as f64; // at least one
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            (0..).zip(counts).map(|(byte, count)| f(f64::from(byte)) * count as f64).sum::<f64>()
                / total
        };
        let mean = mean_of(&|byte| byte);
        let deviation = mean_of(&|byte| (byte - mean).powi(2)).sqrt();
        // Images of a single shade have no deviation, and nothing to scale.
        let deviation = if deviation > 0.0 { deviation } else { 1.0 };
        Scaling(std::array::from_fn(|byte| ((byte as f64 - mean) / deviation) as f32))
    }

    /// Replaces the contents of `pixels` and `labels` by those of the images `indices`, in that order,
    /// ready for training.
    ///
    /// Pixels are scaled by `scaling`, usually that of the training set. `pixels` ends up with
    /// `indices.len() * rows * columns` values, `labels` with `indices.len()`. Reusing the two vectors
    /// from batch to batch avoids allocations.
    ///
    /// # Errors
    ///
    /// [`DataError::Index`] when an index is not below [`len`](Self::len); the two vectors are left as
    /// they were.
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
        pixels.clear();
        labels.clear();
        for &i in indices {
            pixels.extend(self.pixels_of(i).iter().map(|&byte| scaling.of(byte)));
            labels.push(usize::from(self.labels[i]));
        }
        Ok(())
    }
}

/// What each pixel byte becomes before it enters a model; see [`Images::scaling`].
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling([f32; 256]);

impl Scaling {
    /// The value of a pixel byte.
    pub fn of(&self, byte: u8) -> f32 {
        self.0[usize::from(byte)]
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
    /// [`DataError::Split`] when they differ in rows, columns or classes.
    pub fn new(train: Images, test: Images) -> Result<Self, DataError> {
        let sizes = [
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
        Images::new((0..18).collect(), vec![2, 0, 1], 2, 3, 3).unwrap()
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
            let error = Images::new(vec![0; length], vec![0; 3], 2, 3, 3).unwrap_err();
            assert!(
                matches!(error, DataError::Length { expected: 18, found, .. } if found == length)
            );
        }
    }

    #[test]
    fn an_overflowing_size_is_refused() {
        let error = Images::new(vec![0; 4], vec![0; 4], usize::MAX, 2, 1).unwrap_err();
        assert!(matches!(error, DataError::Length { .. }));
    }

    #[test]
    fn a_label_equal_to_the_number_of_classes_is_refused() {
        let error = Images::new(vec![0; 3], vec![0, 1, 2], 1, 1, 2).unwrap_err();
        assert!(matches!(error, DataError::Label { index: 2, label: 2, classes: 2 }));
    }

    #[test]
    fn zero_sizes_are_refused() {
        for (labels, rows, columns, classes) in
            [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)]
        {
            let pixels = vec![0; labels * rows * columns];
            let error = Images::new(pixels, vec![0; labels], rows, columns, classes).unwrap_err();
            assert!(matches!(error, DataError::Zero { .. }), "{error}");
        }
    }

    #[test]
    fn take_keeps_the_first_images() {
        let two = three().take(2).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(two.pixels_of(1), three().pixels_of(1));
        assert_eq!(two, Images::new((0..12).collect(), vec![2, 0], 2, 3, 3).unwrap());
        assert_eq!(three().take(100).unwrap(), three());
        assert!(matches!(three().take(0), Err(DataError::Zero { .. })));
    }

    #[test]
    fn a_batch_is_scaled_in_the_order_asked_for() {
        let images = Images::new(vec![0, 200, 0, 200], vec![1, 0], 1, 2, 2).unwrap();
        let other = Images::new(vec![100, 50], vec![0], 1, 2, 2).unwrap();
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
        let scaled: Vec<f64> = (0..18).map(|byte| f64::from(images.scaling().of(byte))).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / 18.0;
        assert!(mean(&scaled).abs() < 1e-7);
        let squares: Vec<f64> = scaled.iter().map(|value| value * value).collect();
        assert!((mean(&squares) - 1.0).abs() < 1e-6);
        let grey = Images::new(vec![7; 4], vec![0], 2, 2, 1).unwrap();
        assert_eq!(grey.scaling().of(7), 0.0);
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
        let of = |rows, columns, classes| {
            Images::new(vec![0; rows * columns], vec![0], rows, columns, classes).unwrap()
        };
        assert!(Dataset::new(of(2, 3, 4), of(2, 3, 4)).is_ok());
        for (other, name) in
            [(of(3, 3, 4), "rows"), (of(2, 2, 4), "columns"), (of(2, 3, 5), "classes")]
        {
            let error = Dataset::new(of(2, 3, 4), other).unwrap_err();
            assert!(matches!(error, DataError::Split { what, .. } if what == name));
        }
    }
}
