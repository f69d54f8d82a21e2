//! Images of half the size, which small networks learn in seconds.

use crate::data::{DataError, Images};

/// Each image in half its size: means over two by two pixels.
pub(super) fn halved(images: &Images) -> Result<Images, DataError> {
    let [channels, rows, columns] = images.shape();
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for index in 0..images.len() {
        let (Some(all), Some(label)) = (images.pixels_of(index), images.label(index)) else {
            continue;
        };
        let at = |c: usize, y: usize, x: usize| {
            u32::from(all.get((c * rows + y) * columns + x).copied().unwrap_or_default())
        };
        for c in 0..channels {
            for y in (0..rows - 1).step_by(2) {
                for x in (0..columns - 1).step_by(2) {
                    let sum = at(c, y, x) + at(c, y, x + 1) + at(c, y + 1, x) + at(c, y + 1, x + 1);
                    pixels.push((sum / 4) as u8);
                }
            }
        }
        labels.push(label);
    }
    Images::new(pixels, labels, [channels, rows / 2, columns / 2], images.classes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Fails if a mean is taken over other pixels than the four that it stands for.
    #[test]
    fn an_image_is_halved_by_means() {
        let pixels = vec![0, 4, 10, 10, 8, 4, 10, 10, 1, 1, 0, 0, 1, 1, 0, 200];
        let images = Images::new(pixels, vec![1], [1, 4, 4], 2).unwrap();
        let half = halved(&images).unwrap();
        assert_eq!((half.shape(), half.pixels_of(0).unwrap()), ([1, 2, 2], &[4, 10, 1, 50][..]));
        assert_eq!(half.label(0).unwrap(), 1);
    }
}
