//! Coloured shapes that the crate draws itself, where no photographs are at hand.
//!
//! A class is a shape, plain or striped, light on a dark ground. Its hue, its size, place and turn,
//! the ground's hues, the spots on it and the grain are all random, so that no pixel says much
//! about the class: a linear model hardly learns it, a convolutional network does within a minute.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{
    random::{generator, Purpose},
    DataError, Dataset, Images,
};

/// The width and height of an image in pixels.
pub const SIDE: usize = 32;

/// The shapes, in the order of their labels; the same shapes again, striped, are the last ten.
pub const NAMES: [&str; 20] = [
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "cross",
    "bars",
    "crescent",
    "corner",
    "dots",
    "striped-disc",
    "striped-ring",
    "striped-square",
    "striped-frame",
    "striped-triangle",
    "striped-cross",
    "striped-bars",
    "striped-crescent",
    "striped-corner",
    "striped-dots",
];

/// Draws `train` images to train on and `test` images to test on, 3x32x32 pixels each, of the first
/// `classes` of [`NAMES`], chosen evenly at random.
///
/// An image depends only on `seed`, on the half it belongs to and on its place there: asking for
/// more images adds to the end and changes nothing before it. Only the basic operations of `f32`
/// are used, for which every platform gives the same bits.
///
/// # Errors
/// [`DataError::Zero`] when `train` or `test` is zero, [`DataError::Classes`] when `classes` is
/// zero or more than 20.
///
/// ```
/// use tlr_models::data::shapes;
///
/// let data = shapes::draw(1, 30, 10, 10)?;
/// assert_eq!(data.train.shape(), [3, 32, 32]);
/// assert_eq!(data.test, shapes::draw(1, 5, 10, 10)?.test);
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
pub fn draw(seed: u64, train: usize, test: usize, classes: usize) -> Result<Dataset, DataError> {
    check(classes)?;
    let split = |half, count: usize| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for index in 0..count as u64 {
            let mut rng = generator(Purpose::Shape, seed, half as u64, index);
            let label = rng.gen_range(0..classes as u8);
            pixels.extend(picture(label, SIDE, &mut rng));
            labels.push(label);
        }
        Images::new(pixels, labels, [3, SIDE, SIDE], classes)
    };
    Dataset::new(split(Half::Train, train)?, split(Half::Test, test)?)
}

/// Whether there are `classes` shapes.
pub(super) fn check(classes: usize) -> Result<(), DataError> {
    if (1..=NAMES.len()).contains(&classes) {
        Ok(())
    } else {
        Err(DataError::Classes { classes, limit: NAMES.len() })
    }
}

/// The half of a set that an image belongs to.
#[derive(Clone, Copy)]
pub(super) enum Half {
    Train = 0,
    Test = 1,
}

/// The planes of picture `index` of a class, `side` x `side` pixels.
#[cfg(feature = "pictures")]
pub(super) fn picture_of(seed: u64, half: Half, index: u64, label: u8, side: usize) -> Vec<u8> {
    picture(label, side, &mut generator(Purpose::Shape, seed, half as u64, index))
}

fn picture(label: u8, side: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let scene = Scene::new(label, rng);
    let mut pixels = vec![0; 3 * side * side];
    let scale = 1.0 / side as f32;
    for row in 0..side {
        for column in 0..side {
            let at = [(column as f32 + 0.5) * scale, (row as f32 + 0.5) * scale];
            let colour = scene.colour(at, scale);
            for (channel, value) in colour.into_iter().enumerate() {
                let grain = scene.noise * grain(rng);
                // The cast saturates.
                pixels[(channel * side + row) * side + column] =
                    (255.0 * (value + grain) + 0.5) as u8;
            }
        }
    }
    pixels
}

/// A position, x to the right and y down, both from 0 to 1 within the picture.
type Point = [f32; 2];
/// Red, green and blue, from 0 to 1.
type Colour = [f32; 3];

// Chosen so that WRN-10-1 classifies 95 % of ten classes' images after four epochs of 4,000 images
// (SGD at 0.1, batches of 32), and less than one in eight after as many epochs at a constant rate
// of 1e-4.

/// Half the size of a shape, in pictures.
const RADIUS: (f32, f32) = (0.24, 0.42);
/// The tangent of half the largest turn, which is 30 degrees.
const HALF_TURN: f32 = 0.27;
/// The standard deviation of the grain.
const NOISE: (f32, f32) = (0.02, 0.08);
/// The most spots on a ground, and their radius in pictures.
const SPOTS: u32 = 3;
const SPOT: (f32, f32) = (0.03, 0.08);
/// The width of a stripe and of the gap after it, in radii.
const STRIPE: f32 = 0.24;

/// What one picture shows.
struct Scene {
    label: u8,
    middle: Point,
    radius: f32,
    /// Cosine and sine of the turn.
    turn: [f32; 2],
    ink: Colour,
    /// The colours of the ground in its four corners.
    corners: [Colour; 4],
    spots: Vec<(Point, f32, Colour)>,
    noise: f32,
}

impl Scene {
    fn new(label: u8, rng: &mut ChaCha8Rng) -> Self {
        let radius = between(RADIUS, rng);
        // Whole shapes, but for their corners.
        let place = (radius, 1.0 - radius);
        let base = colour(rng).map(|v| 0.5 * v);
        let corners = std::array::from_fn(|_| base.map(|v| v + between((-0.15, 0.15), rng)));
        let ink = colour(rng).map(|v| 0.5 + 0.5 * v);
        let spots = (0..rng.gen_range(0..=SPOTS))
            .map(|_| {
                (
                    [between((0.0, 1.0), rng), between((0.0, 1.0), rng)],
                    between(SPOT, rng),
                    colour(rng),
                )
            })
            .collect();
        Self {
            label,
            middle: [between(place, rng), between(place, rng)],
            radius,
            turn: turn(rng),
            ink,
            corners,
            spots,
            noise: between(NOISE, rng),
        }
    }

    /// The colour at `at`, where a pixel is `pixel` wide.
    fn colour(&self, at: Point, pixel: f32) -> Colour {
        let [x, y] = at;
        let [a, b, c, d] = self.corners;
        let mut colour = std::array::from_fn(|k| mix(mix(a[k], b[k], x), mix(c[k], d[k], x), y));
        for (middle, radius, spot) in &self.spots {
            let away = length([x - middle[0], y - middle[1]]) - radius;
            colour = blend(colour, *spot, cover(away, pixel));
        }
        // Into the shape's own coordinates, in radii.
        let ([cos, sin], [dx, dy]) = (self.turn, [x - self.middle[0], y - self.middle[1]]);
        let local = [(cos * dx + sin * dy) / self.radius, (cos * dy - sin * dx) / self.radius];
        let mut away = outline(usize::from(self.label) % 10, local);
        if self.label >= 10 {
            // Between the stripes one sees the ground.
            let along = local[0] + 4.0 * STRIPE;
            let phase = along - 2.0 * STRIPE * (along / (2.0 * STRIPE)).floor();
            away = away.max((phase - STRIPE / 2.0).abs() - STRIPE / 2.0);
        }
        blend(colour, self.ink, cover(away * self.radius, pixel))
    }
}

/// How far a point lies outside of a shape of radius 1, roughly; negative inside.
fn outline(shape: usize, [x, y]: Point) -> f32 {
    let disc = |x: f32, y: f32, radius: f32| length([x, y]) - radius;
    let block = |x: f32, y: f32, [w, h]: [f32; 2]| (x.abs() - w).max(y.abs() - h);
    match shape {
        0 => disc(x, y, 0.85),
        1 => disc(x, y, 0.9).max(0.5 - length([x, y])),
        2 => block(x, y, [0.75, 0.75]),
        3 => block(x, y, [0.8, 0.8]).max(-block(x, y, [0.42, 0.42])),
        // Three edges at a distance of 0.5: 0.866 and 0.5 are sine and cosine of 60 degrees.
        4 => (y - 0.5).max(0.866 * x.abs() - 0.5 * y - 0.5),
        5 => block(x, y, [0.95, 0.27]).min(block(x, y, [0.27, 0.95])),
        6 => block(x, y - 0.5, [0.9, 0.25]).min(block(x, y + 0.5, [0.9, 0.25])),
        7 => disc(x, y, 0.95).max(0.75 - length([x - 0.5, y])),
        8 => block(x, y, [0.8, 0.8]).max(-block(x - 0.45, y - 0.45, [0.75, 0.75])),
        _ => {
            let (x, y) = (x.abs() - 0.5, y.abs() - 0.5);
            disc(x, y, 0.36)
        }
    }
}

/// How much of a pixel lies inside, if its middle is this far outside.
fn cover(away: f32, pixel: f32) -> f32 {
    (0.5 - away / pixel).clamp(0.0, 1.0)
}

fn blend(below: Colour, above: Colour, part: f32) -> Colour {
    std::array::from_fn(|k| mix(below[k], above[k], part))
}

fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

fn length([x, y]: Point) -> f32 {
    (x * x + y * y).sqrt()
}

fn colour(rng: &mut ChaCha8Rng) -> Colour {
    std::array::from_fn(|_| rng.r#gen::<f32>())
}

/// Cosine and sine of a turn, in the rational form: those of the library differ between platforms
/// in the last bit.
fn turn(rng: &mut ChaCha8Rng) -> [f32; 2] {
    let t = between((-HALF_TURN, HALF_TURN), rng);
    [(1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)]
}

/// About standard normal: the sum of four bytes has a standard deviation of 147.8.
fn grain(rng: &mut ChaCha8Rng) -> f32 {
    let sum: u32 = rng.r#gen::<[u8; 4]>().iter().map(|&b| u32::from(b)).sum();
    (sum as f32 - 510.0) / 147.8
}

fn between((low, high): (f32, f32), rng: &mut ChaCha8Rng) -> f32 {
    low + (high - low) * rng.r#gen::<f32>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn an_image_depends_on_seed_half_and_place_only() {
        let (short, long) = (draw(3, 20, 5, 20).unwrap(), draw(3, 40, 30, 20).unwrap());
        assert_eq!(short.train, long.train.clone().take(20).unwrap());
        assert_eq!(short.test, long.test.clone().take(5).unwrap());
        assert_ne!(short.train, long.test.take(20).unwrap());
        assert_ne!(short.train, draw(4, 20, 5, 20).unwrap().train);
    }

    /// Holds on every platform and in every profile.
    #[test]
    fn the_pixels_are_pinned() {
        let data = draw(42, 60, 30, 20).unwrap();
        let mut sum = Sha256::new();
        for images in [&data.train, &data.test] {
            (0..images.len()).for_each(|i| sum.update(images.pixels_of(i).unwrap()));
        }
        let start: String = sum.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
        assert_eq!(start, "0846ca76a6fa63a7");
    }

    /// No two shapes look the same however they are turned: the parts of rings around the middle
    /// that they cover differ.
    #[test]
    fn the_shapes_differ_and_fit() {
        let grid = |i: usize| (i as f32 - 99.5) / 66.7; // -1.49 to 1.49
        let rings = |shape: usize| {
            let mut rings = [0_usize; 8];
            for (i, j) in (0..40_000).map(|n| (n % 200, n / 200)) {
                let at = [grid(i), grid(j)];
                if outline(shape, at) < 0.0 {
                    rings[((length(at) * 6.0) as usize).min(7)] += 1;
                }
            }
            rings
        };
        let all: Vec<_> = (0..10).map(rings).collect();
        for (i, a) in all.iter().enumerate() {
            // Between a fifth and nine tenths of the square, and within its corners.
            let area: usize = a.iter().sum();
            assert!((3000..13_000).contains(&area), "{}: {area}", NAMES[i]);
            assert_eq!(a[7], 0, "{}", NAMES[i]);
            for (j, b) in all.iter().enumerate().skip(i + 1) {
                let difference: usize = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).sum();
                assert!(difference > 900, "{} and {}: {difference}", NAMES[i], NAMES[j]);
            }
        }
    }

    #[test]
    fn stripes_take_about_half_of_a_shape() {
        let mut rng = generator(Purpose::Shape, 1, 0, 0);
        let mut scene = Scene::new(2, &mut rng);
        (scene.ink, scene.corners, scene.spots) = ([1.0; 3], [[0.0; 3]; 4], Vec::new());
        let mut ink = |label| -> f32 {
            scene.label = label;
            let points = (0..10_000).map(|n| [(n % 100) as f32 / 100.0, (n / 100) as f32 / 100.0]);
            points.map(|at| scene.colour(at, 0.01)[0]).sum()
        };
        let part = ink(12) / ink(2);
        assert!((0.4..0.6).contains(&part), "{part}");
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for (train, test) in [(0, 1), (1, 0)] {
            assert!(matches!(draw(1, train, test, 10), Err(DataError::Zero { .. })));
        }
        for classes in [0, 21, usize::MAX] {
            let error = draw(1, 1, 1, classes).unwrap_err();
            assert!(matches!(error, DataError::Classes { limit: 20, .. }), "{error}");
        }
    }
}
