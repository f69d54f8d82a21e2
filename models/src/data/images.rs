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
    /// assert_eq!((images.pixels_of(1), images.label(1)), (Some(&[255, 128, 0][..]), Some(1)));
    /// assert_eq!((images.len(), images.pixels_of(2)), (2, None));
    /// assert_eq!((images.channels(), images.rows(), images.columns()), (1, 1, 3));
    /// assert_eq!((images.shape(), images.size(), images.classes()), ([1, 1, 3], 3, 2));
    /// assert!(!images.is_empty() && images.take(1)?.len() == 1);
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
        let mut numbered = labels.iter().enumerate();
        if let Some((index, &label)) = numbered.find(|(_, label)| usize::from(**label) >= classes) {
            return Err(DataError::Label { index, label, classes });
        }
        Ok(Self { pixels, labels, channels, rows, columns, classes })
    }

    /// The number of images, at least one.
    ///
    /// Example: [`new`](Self::new).
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images; always false, since [`Images::new`]
    /// refuses an empty set.
    ///
    /// Example: [`new`](Self::new).
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The number of channels: one for grey images, three for red, green and
    /// blue.
    ///
    /// Example: [`new`](Self::new).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The height of an image in pixels.
    ///
    /// Example: [`new`](Self::new).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The width of an image in pixels.
    ///
    /// Example: [`new`](Self::new).
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `[channels, rows, columns]`.
    ///
    /// Example: [`new`](Self::new).
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.rows, self.columns]
    }

    /// The number of values in an image: channels x rows x columns.
    ///
    /// Example: [`new`](Self::new).
    pub fn size(&self) -> usize {
        self.channels * self.rows * self.columns
    }

    /// The number of classes; labels lie in `0..classes`.
    ///
    /// Example: [`new`](Self::new).
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The [`size`](Self::size) bytes of image `index`, channel by channel and
    /// row by row. None if `index` is not below [`len`](Self::len).
    ///
    /// Example: [`new`](Self::new).
    pub fn pixels_of(&self, index: usize) -> Option<&[u8]> {
        self.pixels.chunks_exact(self.size()).nth(index)
    }

    /// The class of image `index`. None if `index` is not below [`len`](Self::len).
    ///
    /// Example: [`new`](Self::new).
    pub fn label(&self, index: usize) -> Option<u8> {
        self.labels.get(index).copied()
    }

    /// Keeps the first `n` images, or all of them when there are fewer.
    ///
    /// # Errors
    /// [`DataError::Zero`] when `n` is zero.
    ///
    /// Example: [`new`](Self::new).
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
    ///
    /// Example: [`Scaling`].
    pub fn scaling(&self) -> Scaling {
        let mut counts = vec![[0_u64; 256]; self.channels];
        for image in self.pixels.chunks_exact(self.size()) {
            let planes = image.chunks_exact(self.rows * self.columns);
            for (counts, plane) in counts.iter_mut().zip(planes) {
                plane.iter().for_each(|&pixel| counts[usize::from(pixel)] += 1);
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
    /// [`DataError::Index`] when an index is not below [`len`](Self::len), and
    /// [`DataError::Channels`] when `scaling` is that of images with another number of channels;
    /// the two vectors are left as they were.
    ///
    /// Example: [`Augment`](super::Augment).
    pub fn write_batch(
        &self,
        indices: &[usize],
        scaling: &Scaling,
        pixels: &mut Vec<f32>,
        labels: &mut Vec<usize>,
    ) -> Result<(), DataError> {
        let len = self.len();
        let outside = |index| DataError::Index { index, len };
        if let Some(&index) = indices.iter().find(|&&i| i >= len) {
            return Err(outside(index));
        }
        let found = scaling.channels();
        if found != self.channels {
            return Err(DataError::Channels { expected: self.channels, found });
        }
        pixels.clear();
        labels.clear();
        let plane = self.rows * self.columns;
        for &i in indices {
            let (Some(image), Some(label)) = (self.pixels_of(i), self.label(i)) else {
                return Err(outside(i));
            };
            for (bytes, table) in image.chunks_exact(plane).zip(scaling.tables()) {
                pixels.extend(bytes.iter().map(|&byte| table[usize::from(byte)]));
            }
            labels.push(usize::from(label));
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
mod tests;
