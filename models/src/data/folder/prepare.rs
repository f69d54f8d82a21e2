//! A picture of any size becomes the input of a model.

use image::{
    imageops::{crop_imm, resize, FilterType},
    RgbImage,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{decode::decode, Pictures, Preparation};
use crate::data::{
    random::{generator, Purpose},
    DataError,
};

/// Which part of a picture is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// To test on: the shorter side is resized to [`Preparation::shorter`] and the middle square
    /// taken.
    Centre,
    /// To train on: a part of 8 to 100 % of the area and an aspect ratio of 3/4 to 4/3, resized to
    /// the square, and mirrored left to right half of the time. It depends on the seed, the epoch
    /// and the picture's index only.
    Random {
        /// The seed of all parts that are taken.
        seed: u64,
        /// The epoch, counted from 0.
        epoch: usize,
    },
}

impl Pictures {
    /// Picture `index` as a model takes it: `3 * side * side` values, the red plane first.
    ///
    /// # Errors
    /// [`DataError::Index`], [`DataError::Io`] when the file cannot be read, [`DataError::Picture`]
    /// when it is no picture or is damaged, [`DataError::PictureEnd`] when it is cut off,
    /// [`DataError::PictureKind`] when it is a JPEG of a rare kind, [`DataError::Preparation`] for
    /// sizes that make no sense. The format is seen by the contents, not by the name.
    ///
    /// # Example
    /// ```
    /// use tlr_models::data::folder::{write_drawn, Folder, Preparation, Crop};
    ///
    /// let dir = tempfile::tempdir()?;
    /// write_drawn(dir.path(), 7, 4, 2, 2, 40)?;
    /// let folder = Folder::open(dir.path())?;
    /// let pixels = folder.val.read(0, &Preparation::square(32), Crop::Centre)?;
    /// assert_eq!(pixels.len(), 3 * 32 * 32);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(
        &self,
        index: usize,
        prepare: &Preparation,
        crop: Crop,
    ) -> Result<Vec<f32>, DataError> {
        prepare.check()?;
        let mut pixels = Vec::new();
        self.append(index, prepare, crop, &mut pixels)?;
        Ok(pixels)
    }

    /// As [`read`](Self::read), but appends the values to `pixels`.
    pub(super) fn append(
        &self,
        index: usize,
        prepare: &Preparation,
        crop: Crop,
        pixels: &mut Vec<f32>,
    ) -> Result<(), DataError> {
        let (path, _) = self.entry(index)?;
        let picture = decode(path)?;
        let (square, flip) = match crop {
            Crop::Centre => (centre(&picture, prepare), false),
            Crop::Random { seed, epoch } => {
                let mut rng = generator(Purpose::Crop, seed, epoch as u64, index as u64);
                let part = Part::random(picture.dimensions(), &mut rng);
                (part.resized(&picture, prepare.side), rng.r#gen::<bool>())
            }
        };
        let side = prepare.side as usize;
        for channel in 0..3 {
            let (mean, deviation) = (prepare.mean[channel], prepare.deviation[channel]);
            let table: [f32; 256] =
                std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / deviation);
            for row in square.chunks_exact(3 * side) {
                let value = |pixel: &[u8]| table[usize::from(pixel[channel])];
                if flip {
                    pixels.extend(row.chunks_exact(3).rev().map(value));
                } else {
                    pixels.extend(row.chunks_exact(3).map(value));
                }
            }
        }
        Ok(())
    }
}

/// The middle square after resizing the shorter side.
fn centre(picture: &RgbImage, prepare: &Preparation) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = prepare.side;
    // Cutting before resizing gives the same square, and takes no time or memory for what is cut
    // off, however long the longer side is.
    let shorter = f64::from(width.min(height));
    let size = shorter * f64::from(side) / f64::from(prepare.shorter);
    let size = (size.round() as u32).clamp(1, width.min(height));
    Part { x: (width - size) / 2, y: (height - size) / 2, width: size, height: size }
        .resized(picture, side)
}

/// A part of a picture, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl Part {
    /// A part with a uniformly distributed area and logarithm of the aspect ratio, as Inception was
    /// trained (Szegedy et al., *Going deeper with convolutions*); the middle if ten of them do not
    /// fit.
    fn random((width, height): (u32, u32), rng: &mut ChaCha8Rng) -> Self {
        let area = f64::from(width) * f64::from(height);
        let limit = (4.0_f64 / 3.0).ln();
        for _ in 0..10 {
            let part = area * rng.gen_range(0.08..=1.0);
            let ratio = rng.gen_range(-limit..=limit).exp();
            // Casts saturate.
            let w = (part * ratio).sqrt().round() as u32;
            let h = (part / ratio).sqrt().round() as u32;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let (x, y) = (rng.gen_range(0..=width - w), rng.gen_range(0..=height - h));
                return Self { x, y, width: w, height: h };
            }
        }
        let within = |long: u32, short: u32| {
            let most = (f64::from(short) * 4.0 / 3.0).round() as u32;
            long.min(most.max(1))
        };
        let (w, h) = (within(width, height), within(height, width));
        Self { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
    }

    fn resized(self, picture: &RgbImage, side: u32) -> RgbImage {
        let part = crop_imm(picture, self.x, self.y, self.width, self.height);
        if (self.width, self.height) == (side, side) {
            return part.to_image();
        }
        resize(&*part, side, side, FilterType::Triangle)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io::Cursor, path::PathBuf};

    use image::{GrayImage, ImageFormat, Luma, Rgb};
    use tempfile::TempDir;

    use super::*;

    /// Red grows to the right, green downwards, blue is 200.
    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 200])
        })
    }

    fn png(picture: &RgbImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    /// One picture, whatever the bytes are.
    fn pictures(name: &str, bytes: &[u8]) -> (TempDir, Pictures) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let files: Vec<(PathBuf, usize)> = vec![(path, 0)];
        (dir, Pictures { files: files.into(), classes: vec!["a".to_owned()].into() })
    }

    fn read(
        name: &str,
        bytes: &[u8],
        prepare: &Preparation,
        crop: Crop,
    ) -> Result<Vec<f32>, DataError> {
        let (_dir, pictures) = pictures(name, bytes);
        pictures.read(0, prepare, crop)
    }

    /// Values from 0 to 255.
    fn bytes_of(side: u32, shorter: u32) -> Preparation {
        Preparation { side, shorter, mean: [0.0; 3], deviation: [1.0 / 255.0; 3] }
    }

    #[test]
    fn the_centre_is_cut_and_resized() {
        // The middle 60x60 of 120x80, from x = 30 and y = 10, becomes 30x30.
        let values =
            read("a.png", &png(&gradient(120, 80)), &bytes_of(30, 40), Crop::Centre).unwrap();
        let at = |channel: usize, x: usize, y: usize| values[(channel * 30 + y) * 30 + x];
        for (x, y) in [(0, 0), (29, 0), (0, 29), (13, 21)] {
            let (px, py) = (30.0 + 2.0 * x as f32 + 0.5, 10.0 + 2.0 * y as f32 + 0.5);
            assert!((at(0, x, y) - px * 255.0 / 120.0).abs() < 2.0, "{}", at(0, x, y));
            assert!((at(1, x, y) - py * 255.0 / 80.0).abs() < 2.5, "{}", at(1, x, y));
            assert!((at(2, x, y) - 200.0).abs() < 1e-3);
        }
    }

    #[test]
    fn values_are_normalised_channel_by_channel() {
        let prepare = Preparation { side: 2, shorter: 2, ..Preparation::default() };
        let picture = RgbImage::from_pixel(5, 4, Rgb([255, 0, 102]));
        let values = read("a.png", &png(&picture), &prepare, Crop::Centre).unwrap();
        let expected = [(1.0 - 0.485) / 0.229, -0.456 / 0.224, (0.4 - 0.406) / 0.225];
        for (values, expected) in values.chunks(4).zip(expected) {
            assert!(values.iter().all(|v| (v - expected).abs() < 1e-6), "{values:?} {expected}");
        }
    }

    #[test]
    fn grey_pictures_get_three_equal_channels() {
        let grey = GrayImage::from_fn(8, 8, |x, y| Luma([(x * 20 + y) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        grey.write_to(&mut bytes, ImageFormat::Png).unwrap();
        let values = read("a.png", &bytes.into_inner(), &bytes_of(8, 8), Crop::Centre).unwrap();
        assert_eq!(values[..64], values[64..128]);
        assert_eq!(values[..64], values[128..]);
        assert!((values[9] - 21.0).abs() < 1e-3);
    }

    #[test]
    fn a_random_view_depends_on_seed_epoch_and_index_only() {
        let (_dir, one) = pictures("a.png", &png(&gradient(60, 40)));
        let two = Pictures { files: [&*one.files, &*one.files].concat().into(), ..one.clone() };
        let crop = |seed, epoch| Crop::Random { seed, epoch };
        let read = |pictures: &Pictures, index, crop| {
            pictures.read(index, &Preparation::square(16), crop).unwrap()
        };
        let first = read(&one, 0, crop(1, 2));
        assert_eq!(first, read(&two, 0, crop(1, 2)));
        assert_ne!(first, read(&two, 1, crop(1, 2)));
        assert_ne!(first, read(&one, 0, crop(2, 2)));
        assert_ne!(first, read(&one, 0, crop(1, 3)));
    }

    #[test]
    fn half_of_the_random_views_are_mirrored() {
        let (_dir, pictures) = pictures("a.png", &png(&gradient(60, 40)));
        let mirrored = (0..200)
            .filter(|&epoch| {
                let crop = Crop::Random { seed: 1, epoch };
                let red = pictures.read(0, &bytes_of(8, 8), crop).unwrap();
                red[0] > red[7]
            })
            .count();
        assert!((70..130).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn random_parts_lie_within_and_vary_as_told() {
        let mut rng = generator(Purpose::Crop, 1, 0, 0);
        let parts: Vec<Part> = (0..2000).map(|_| Part::random((300, 200), &mut rng)).collect();
        let areas = parts.iter().map(|p| f64::from(p.width * p.height) / 60_000.0);
        let ratios = parts.iter().map(|p| f64::from(p.width) / f64::from(p.height));
        assert!(parts.iter().all(|p| p.x + p.width <= 300 && p.y + p.height <= 200));
        assert!(areas.clone().all(|area| (0.07..=1.0).contains(&area)));
        assert!(ratios.clone().all(|ratio| (0.73..1.37).contains(&ratio)));
        assert!(areas.clone().any(|area| area < 0.12) && areas.clone().any(|area| area > 0.8));
        let wide = ratios.filter(|ratio| *ratio > 1.0).count();
        assert!((900..1200).contains(&wide), "{wide}");
        assert!(parts.iter().any(|p| p.x == 0) && parts.iter().any(|p| p.x + p.width == 300));
    }

    #[test]
    fn of_pictures_much_longer_than_wide_the_middle_is_taken() {
        let mut rng = generator(Purpose::Crop, 1, 0, 0);
        let middle = Part { x: 0, y: 493, width: 10, height: 13 };
        let of = |size, rng: &mut ChaCha8Rng| {
            (0..50).map(|_| Part::random(size, rng)).collect::<Vec<_>>()
        };
        assert!(of((10, 1000), &mut rng).contains(&middle));
        for size in [(1, 1), (1, 5000), (5000, 1), (2, 3)] {
            for part in of(size, &mut rng) {
                assert!(part.x + part.width <= size.0 && part.y + part.height <= size.1);
                assert!(part.width > 0 && part.height > 0);
            }
        }
    }

    #[test]
    fn missing_files_are_refused() {
        let (dir, pictures) = pictures("a.png", &[]);
        drop(dir);
        let error = pictures.read(0, &bytes_of(8, 8), Crop::Centre).unwrap_err();
        assert!(matches!(error, DataError::Io { action: "read", .. }), "{error}");
        let error = pictures.read(1, &bytes_of(8, 8), Crop::Centre).unwrap_err();
        assert!(matches!(error, DataError::Index { index: 1, len: 1 }), "{error}");
    }
}
