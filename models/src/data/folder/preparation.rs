//! How a picture of any size becomes the input of a model.

use crate::data::{DataError, PreparationError};

/// The means of ImageNet's red, green and blue, where full light is 1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// The standard deviations of ImageNet's red, green and blue, where full light is 1.
pub const IMAGENET_DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// The longest that a shorter side may be, in pixels.
pub(super) const LONGEST: u32 = 1 << 14;

/// How a picture of any size becomes the input of a model.
///
/// Pictures are resized by averaging over triangles as wide as the scale asks for, so that smaller
/// ones do not alias. Grey pictures get three equal channels, transparency is dropped, and the
/// EXIF orientation is ignored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preparation {
    /// The width and height of the result in pixels. Default 224.
    pub side: u32,
    /// The length that the shorter side is resized to for [`Crop::Centre`](super::Crop::Centre); at
    /// least `side`. Default 256.
    pub shorter: u32,
    /// Subtracted from red, green and blue, where full light is 1. Default [`IMAGENET_MEAN`].
    pub mean: [f32; 3],
    /// What the differences are divided by. Default [`IMAGENET_DEVIATION`].
    pub deviation: [f32; 3],
}

impl Default for Preparation {
    fn default() -> Self {
        Self { side: 224, shorter: 256, mean: IMAGENET_MEAN, deviation: IMAGENET_DEVIATION }
    }
}

impl Preparation {
    /// Results of `side` x `side` pixels, with `shorter` 8/7 of that as for ImageNet.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::folder::Preparation;
    ///
    /// let preparation = Preparation::square(224);
    /// assert_eq!(preparation, Preparation::default());
    /// assert_eq!(preparation.shorter, 256);
    /// assert!(preparation.check().is_ok());
    /// ```
    pub fn square(side: u32) -> Self {
        Self { side, shorter: side.saturating_add(side / 7), ..Self::default() }
    }

    /// Whether pictures can be prepared like this.
    ///
    /// # Errors
    /// [`DataError::Preparation`] when `side` is zero, `shorter` is below it or above 16,384, a
    /// mean is not finite or a deviation not positive and finite.
    ///
    /// Example: [`square`](Self::square).
    pub fn check(&self) -> Result<(), DataError> {
        let Self { side, shorter, mean, deviation } = *self;
        if side == 0 {
            return Err(PreparationError::NoSide.into());
        }
        if !(side..=LONGEST).contains(&shorter) {
            let (least, most) = (side, LONGEST);
            return Err(PreparationError::ShorterSide { shorter, least, most }.into());
        }
        let wrong = |values: [f32; 3], fits: fn(f32) -> bool| {
            values.into_iter().enumerate().find(|(_, value)| !(value.is_finite() && fits(*value)))
        };
        if let Some((channel, value)) = wrong(mean, |_| true) {
            return Err(PreparationError::Mean { channel, value }.into());
        }
        match wrong(deviation, |deviation| deviation > 0.0) {
            Some((channel, value)) => Err(PreparationError::Deviation { channel, value }.into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn preparations_that_make_no_sense_are_refused() {
        let good = Preparation::square(32);
        assert_eq!((good.side, good.shorter), (32, 36));
        assert_eq!(Preparation::square(224), Preparation::default());
        good.check().unwrap();
        let wrong = |bad: Preparation| match bad.check() {
            Err(DataError::Preparation(wrong)) => wrong,
            other => panic!("{other:?}"),
        };
        let (inf, least, most) = (f32::INFINITY, 32, 16_384);
        assert_eq!(wrong(Preparation { side: 0, ..good }), PreparationError::NoSide);
        for shorter in [31, 16_385] {
            let expected = PreparationError::ShorterSide { shorter, least, most };
            assert_eq!(wrong(Preparation { shorter, ..good }), expected);
        }
        let mean = wrong(Preparation { mean: [0.0, inf, 0.0], ..good });
        assert_eq!(mean, PreparationError::Mean { channel: 1, value: inf });
        for (deviation, channel, value) in [([1.0, 1.0, 0.0], 2, 0.0), ([inf, 1.0, 1.0], 0, inf)] {
            let expected = PreparationError::Deviation { channel, value };
            assert_eq!(wrong(Preparation { deviation, ..good }), expected);
        }
    }
}
