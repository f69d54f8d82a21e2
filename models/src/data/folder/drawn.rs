//! A folder of drawn pictures, if there is none with photographs.

use std::path::Path;

use image::{ColorType, ImageFormat};

use super::preparation::LONGEST;
use crate::data::{
    shapes::{self, Half},
    DataError, PreparationError,
};

/// Writes a folder of drawn pictures that [`Folder::open`](super::Folder::open) reads: `train` and
/// `val` pictures of the first `classes` of [`shapes::NAMES`], as PNG files of `side` x `side`
/// pixels.
///
/// Classes take turns, so that each has as many pictures as the others, give or take one. A class's
/// folder is its label in two digits and its name, `00-disc`: sorted names and labels agree.
/// Pictures depend on `seed`, half, place and class only. Files that are there already under the
/// same names are replaced, others left.
///
/// # Errors
/// [`DataError::Classes`] when `classes` is zero or more than 20, [`DataError::Zero`] when a class
/// would have no picture to train on, there is none to test on or the side is zero,
/// [`DataError::Preparation`] when the side is above 16,384,
/// [`DataError::Io`] and [`DataError::Picture`] when the disk does not take them.
///
/// Example: [`Folder::open`](super::Folder::open).
pub fn write_drawn(
    dir: &Path,
    seed: u64,
    train: usize,
    val: usize,
    classes: usize,
    side: u32,
) -> Result<(), DataError> {
    shapes::check(classes)?;
    for (what, value) in [
        ("number of pictures of a class", train / classes),
        ("number of pictures to test on", val),
        ("side of the pictures", side as usize),
    ] {
        if value == 0 {
            return Err(DataError::Zero { what });
        }
    }
    if side > LONGEST {
        return Err(PreparationError::ShorterSide { shorter: side, least: 1, most: LONGEST }.into());
    }
    for (name, half, count) in [("train", Half::Train, train), ("val", Half::Test, val)] {
        for index in 0..count {
            let label = index % classes;
            let folder = dir.join(name).join(format!("{label:02}-{}", shapes::NAMES[label]));
            std::fs::create_dir_all(&folder).map_err(|source| DataError::Io {
                action: "create",
                path: folder.clone(),
                source,
            })?;
            let planes = shapes::picture_of(seed, half, index as u64, label as u8, side as usize);
            write(&folder.join(format!("{index:06}.png")), &planes, side)?;
        }
    }
    Ok(())
}

fn write(path: &Path, planes: &[u8], side: u32) -> Result<(), DataError> {
    // Turns three planes into pixels of red, green and blue.
    let (red, others) = planes.split_at(planes.len() / 3);
    let (green, blue) = others.split_at(others.len() / 2);
    let pixels = red.iter().zip(green).zip(blue);
    let pixels: Vec<u8> = pixels.flat_map(|((red, green), blue)| [*red, *green, *blue]).collect();
    image::save_buffer_with_format(path, &pixels, side, side, ColorType::Rgb8, ImageFormat::Png)
        .map_err(|source| DataError::Picture {
            action: "write",
            path: path.to_owned(),
            source: Box::new(source),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data::folder::{Crop, Folder, Preparation};

    #[test]
    fn what_was_drawn_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        write_drawn(dir.path(), 3, 7, 2, 3, 20).unwrap();
        let data = Folder::open(dir.path()).unwrap();
        assert_eq!(data.train.classes(), ["00-disc", "01-ring", "02-square"]);
        assert_eq!((data.train.len(), data.val.len()), (7, 2));
        let labels: Vec<usize> = (0..7).map(|i| data.train.get(i).unwrap().1).collect();
        assert_eq!(labels, [0, 0, 0, 1, 1, 2, 2]);

        // Picture 4 of the training half, the second of class 1.
        let plain =
            Preparation { side: 20, shorter: 20, mean: [0.0; 3], deviation: [1.0 / 255.0; 3] };
        let read = data.train.read(4, &plain, Crop::Centre).unwrap();
        let drawn = shapes::picture_of(3, Half::Train, 4, 1, 20);
        assert_eq!(read.len(), drawn.len());
        for (read, drawn) in read.iter().zip(&drawn) {
            assert!((read - f32::from(*drawn)).abs() < 1e-3, "{read} {drawn}");
        }
        // The other half is drawn from other numbers.
        assert_ne!(drawn, shapes::picture_of(3, Half::Test, 4, 1, 20));
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |train, val, classes, side| {
            write_drawn(dir.path(), 1, train, val, classes, side).unwrap_err()
        };
        for error in [write(2, 1, 3, 8), write(3, 0, 3, 8), write(3, 1, 3, 0)] {
            assert!(matches!(error, DataError::Zero { .. }), "{error}");
        }
        for error in [write(3, 1, 0, 8), write(99, 1, 21, 8)] {
            assert!(matches!(error, DataError::Classes { limit: 20, .. }), "{error}");
        }
        for side in [16_385, u32::MAX] {
            let error = write(3, 1, 3, side);
            assert!(matches!(error, DataError::Preparation(_)), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        // A file where a folder should be.
        std::fs::write(dir.path().join("train"), []).unwrap();
        let error = write(3, 1, 3, 8);
        assert!(matches!(error, DataError::Io { action: "create", .. }), "{error}");
    }
}
