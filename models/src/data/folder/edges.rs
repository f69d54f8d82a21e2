//! The last column and the last row of a JPEG whose colours are sampled at every second pixel.
//!
//! A pixel's colour is interpolated between two samples. At the edge there is but one, which
//! libjpeg takes as it is. The decoder here (zune-jpeg 0.5) interpolates with what the encoder has
//! put beyond the edge, where the picture ends within a block. So such a picture is decoded as if
//! its brightness and its two colours were red, green and blue. Then the samples at the edge are
//! computed from the pixels before them, and red, green and blue from those.

use image::{Rgb, RgbImage};

/// The colours' factors, of which brightness has the first: samples in a unit, across and down.
type Sampling = [(u8, u8)];

/// Which edges of the second and third colour have to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edges([OfColour; 2]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OfColour {
    last_column: bool,
    last_row: bool,
}

impl Edges {
    /// None if the decoder's pixels are right.
    pub(super) fn of(width: u16, height: u16, sampling: &Sampling) -> Option<Self> {
        let &[most, second, third] = sampling else { return None };
        let of = |(across, down): (u8, u8)| {
            let ratio = (most.0 / across.max(1), most.1 / down.max(1));
            let interpolated = matches!(ratio, (2, 1) | (1, 2) | (2, 2));
            // libjpeg does not interpolate in pictures of 4 pixels across.
            let last_column = interpolated && ratio.0 == 2 && width > 4 && is_cut(width, most.0);
            let last_row = interpolated && ratio.1 == 2 && height > 2 && is_cut(height, most.1);
            OfColour { last_column, last_row }
        };
        let edges = [of(second), of(third)];
        edges.iter().any(|of| of.last_column || of.last_row).then_some(Self(edges))
    }

    /// Makes red, green and blue of a picture's brightness and two colours.
    pub(super) fn mend(self, picture: &mut RgbImage) {
        let (width, height) = picture.dimensions();
        for (colour, OfColour { last_column, last_row }) in (1..).zip(self.0) {
            // From the pixels as they were decoded: the corner has both edges.
            let corner = (last_column && last_row).then(|| {
                let along = |y| sample(picture, colour, [(3, width - 2, y), (-1, width - 3, y)]);
                (3 * along(height - 2) - along(height - 3) + 2) >> 2
            });
            if last_column {
                for y in 0..height {
                    let last = sample(picture, colour, [(3, width - 2, y), (-1, width - 3, y)]);
                    picture.get_pixel_mut(width - 1, y)[colour] = clamped((last + 1) >> 1);
                }
            }
            if last_row {
                for x in 0..width {
                    let last = sample(picture, colour, [(3, x, height - 2), (-1, x, height - 3)]);
                    picture.get_pixel_mut(x, height - 1)[colour] = clamped((last + 1) >> 1);
                }
            }
            if let Some(corner) = corner {
                picture.get_pixel_mut(width - 1, height - 1)[colour] = clamped(corner);
            }
        }
        picture.pixels_mut().for_each(|pixel| *pixel = rgb(*pixel));
    }
}

/// Whether a picture ends within a block and at the second pixel of a sample. A block is 8 samples.
fn is_cut(length: u16, factor: u8) -> bool {
    length.is_multiple_of(2) && !length.is_multiple_of(8 * u16::from(factor))
}

/// A sum of two pixels' values with these factors. If the two before the last one are (3a + b)/4
/// and (a + 3b)/4, of the last samples a and b, then 3 times the first less the second is 2a.
fn sample(picture: &RgbImage, colour: usize, pixels: [(i32, u32, u32); 2]) -> i32 {
    pixels.map(|(by, x, y)| by * i32::from(picture.get_pixel(x, y)[colour])).iter().sum()
}

/// As JFIF has it, in 65,536ths.
fn rgb(Rgb([brightness, blueness, redness]): Rgb<u8>) -> Rgb<u8> {
    let [y, cb, cr] = [i32::from(brightness), i32::from(blueness) - 128, i32::from(redness) - 128];
    let of = |blueness: i32, redness: i32| {
        clamped(y + ((blueness * cb + redness * cr + (1 << 15)) >> 16))
    };
    Rgb([of(0, 91_881), of(-22_554, -46_802), of(116_130, 0)])
}

fn clamped(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    // 420, 422 and 440; then a width and height that end with a block, odd ones, tiny ones, colours
    // as often as brightness, or a quarter as often.
    #[test]
    fn edges_that_are_computed() {
        let edges = |width, height, of: [(u8, u8); 3]| {
            let edges = Edges::of(width, height, &of)?.0;
            Some((edges.map(|of| of.last_column), edges.map(|of| of.last_row)))
        };
        let (both, none) = ([true; 2], [false; 2]);
        assert_eq!(edges(24, 40, [(2, 2), (1, 1), (1, 1)]), Some((both, both)));
        assert_eq!(edges(24, 40, [(2, 1), (1, 1), (1, 1)]), Some((both, none)));
        assert_eq!(edges(24, 40, [(1, 2), (1, 1), (1, 1)]), Some((none, both)));
        assert_eq!(edges(24, 32, [(2, 2), (1, 2), (2, 2)]), Some(([true, false], none)));
        assert_eq!(edges(32, 37, [(2, 2), (1, 1), (1, 1)]), None);
        assert_eq!(edges(37, 48, [(2, 2), (1, 1), (1, 1)]), None);
        assert_eq!(edges(4, 2, [(2, 2), (1, 1), (1, 1)]), None);
        assert_eq!(edges(24, 40, [(2, 2); 3]), None);
        assert_eq!(edges(24, 40, [(4, 2), (1, 1), (1, 1)]), None);
        assert_eq!(Edges::of(24, 40, &[(2, 2)]), None);
    }

    // By hand, from columns and rows of samples 60 and 100: pixels of 70, 90 and, wrongly, 12. In
    // the corner it is 100 + 100, less what half a sample of each is.
    #[test]
    fn last_samples_from_the_pixels_before() {
        let value = |at: u32| [60, 60, 70, 90, 12][at as usize];
        let mut picture = RgbImage::from_fn(5, 5, |x, y| Rgb([128, value(x), value(y)]));
        let of = |last_column, last_row| OfColour { last_column, last_row };
        let edges = Edges([of(true, false), of(false, true)]);
        edges.mend(&mut picture);
        let expected = |x: u32, y: u32| {
            let value = |at| if at == 4 { 100 } else { value(at) };
            rgb(Rgb([128, value(x), value(y)]))
        };
        assert!(picture.enumerate_pixels().all(|(x, y, pixel)| *pixel == expected(x, y)));

        // Brightness is 50 and the third colour none, so that only green and blue change.
        let product = |x, y| (u16::from(value(x)) * u16::from(value(y)) / 100) as u8;
        let mut picture = RgbImage::from_fn(5, 5, |x, y| Rgb([50, product(x, y), 128]));
        let edges = Edges([of(true, true), of(false, false)]);
        edges.mend(&mut picture);
        assert_eq!(*picture.get_pixel(4, 4), rgb(Rgb([50, 100, 128])));
    }

    // The corners of the cube of colours, by JFIF's own figures.
    #[test]
    fn colours_of_jfif() {
        for (coded, expected) in [
            ([76, 85, 255], [254, 0, 0]),
            ([150, 44, 21], [0, 255, 1]),
            ([29, 255, 107], [0, 0, 254]),
            ([255, 128, 128], [255; 3]),
            ([0, 128, 128], [0; 3]),
        ] {
            assert_eq!(rgb(Rgb(coded)), Rgb(expected));
        }
    }
}
