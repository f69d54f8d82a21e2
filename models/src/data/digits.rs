//! Handwritten-looking digits that the crate draws itself.
//!
//! Every image starts from one of a few pen paths a digit, which is bent,
//! slanted, turned, stretched and moved at random and then drawn with a round
//! pen of random width and darkness on noisy paper. The result needs no files,
//! is a little harder than MNIST for a linear model and about as hard for a
//! network with a hidden layer.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{DataError, Dataset, Images};

/// The width and height of an image in pixels.
pub const SIDE: usize = 28;

/// The number of classes: the digits 0 to 9.
pub const CLASSES: usize = 10;

/// Draws `train` images to train on and `test` images to test on, 28x28 pixels
/// each, of digits chosen evenly at random.
///
/// An image depends only on `seed`, on the half it belongs to and on its place
/// there: asking for more images adds to the end and changes nothing before
/// it. Only the basic operations of `f32` are used, for which every platform
/// gives the same bits.
///
/// # Errors
///
/// [`DataError::Zero`] when `train` or `test` is zero.
///
/// ```
/// use tlr_models::data::digits;
///
/// let data = digits::draw(1, 30, 10)?;
/// assert_eq!((data.train.len(), data.test.len()), (30, 10));
/// assert_eq!(data.test, digits::draw(1, 5, 10)?.test);
/// # Ok::<(), tlr_models::data::DataError>(())
/// ```
pub fn draw(seed: u64, train: usize, test: usize) -> Result<Dataset, DataError> {
    Dataset::new(draw_split(seed, Split::Train, train)?, draw_split(seed, Split::Test, test)?)
}

#[derive(Clone, Copy)]
enum Split {
    Train = 0,
    Test = 1,
}

fn draw_split(seed: u64, split: Split, count: usize) -> Result<Images, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for index in 0..count as u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(2 * index + split as u64);
        let label = rng.gen_range(0..CLASSES as u8);
        pixels.extend(draw_digit(usize::from(label), &mut rng));
        labels.push(label);
    }
    Images::new(pixels, labels, [1, SIDE, SIDE], CLASSES)
}

/// A position, x to the right and y down.
type Point = [f32; 2];

/// A pen path: a smooth curve through its points. Paths that meet in a point
/// form a corner there.
type Stroke = &'static [Point];

/// The ways to write each digit, in a box from (0, 0) to (1, 1).
#[rustfmt::skip]
const GLYPHS: [&[&[Stroke]]; CLASSES] = [
    &[
        &[&[
            [0.50, 0.00], [0.20, 0.12], [0.05, 0.50], [0.20, 0.88], [0.50, 1.00],
            [0.80, 0.88], [0.95, 0.50], [0.80, 0.12], [0.50, 0.00],
        ]],
        &[&[
            [0.70, 0.06], [0.38, 0.04], [0.10, 0.42], [0.18, 0.88], [0.50, 1.00],
            [0.84, 0.76], [0.88, 0.32], [0.62, 0.04], [0.40, 0.14],
        ]],
    ],
    &[
        &[&[[0.50, 0.00], [0.50, 1.00]]],
        &[&[[0.25, 0.26], [0.55, 0.00]], &[[0.55, 0.00], [0.54, 1.00]]],
        &[
            &[[0.25, 0.22], [0.52, 0.00]],
            &[[0.52, 0.00], [0.52, 1.00]],
            &[[0.20, 1.00], [0.86, 1.00]],
        ],
    ],
    &[
        &[
            &[
                [0.10, 0.26], [0.24, 0.06], [0.54, 0.00], [0.84, 0.18], [0.76, 0.48],
                [0.42, 0.80], [0.06, 1.00],
            ],
            &[[0.06, 1.00], [0.96, 0.97]],
        ],
        &[&[
            [0.12, 0.20], [0.42, 0.00], [0.80, 0.14], [0.76, 0.46], [0.44, 0.84],
            [0.14, 0.98], [0.06, 0.86], [0.26, 0.80], [0.56, 0.95], [0.96, 0.92],
        ]],
    ],
    &[
        &[
            &[[0.10, 0.14], [0.40, 0.00], [0.78, 0.10], [0.78, 0.34], [0.38, 0.46]],
            &[
                [0.38, 0.46], [0.80, 0.54], [0.92, 0.77], [0.66, 0.98], [0.30, 1.00],
                [0.04, 0.86],
            ],
        ],
        &[
            &[[0.08, 0.02], [0.86, 0.00]],
            &[[0.86, 0.00], [0.40, 0.40]],
            &[[0.40, 0.40], [0.80, 0.48], [0.92, 0.74], [0.60, 1.00], [0.06, 0.92]],
        ],
    ],
    &[
        &[
            &[[0.18, 0.00], [0.08, 0.34], [0.20, 0.54], [0.56, 0.54], [0.94, 0.48]],
            &[[0.80, 0.06], [0.74, 1.00]],
        ],
        &[
            &[[0.66, 0.00], [0.04, 0.66]],
            &[[0.04, 0.66], [0.98, 0.66]],
            &[[0.66, 0.00], [0.68, 1.00]],
        ],
        &[
            &[[0.10, 0.02], [0.10, 0.52]],
            &[[0.10, 0.52], [0.86, 0.52]],
            &[[0.76, 0.00], [0.76, 1.00]],
        ],
    ],
    &[
        &[
            &[[0.86, 0.00], [0.24, 0.02]],
            &[[0.24, 0.02], [0.18, 0.44]],
            &[
                [0.18, 0.44], [0.50, 0.36], [0.86, 0.54], [0.86, 0.82], [0.58, 1.00],
                [0.08, 0.92],
            ],
        ],
        &[&[
            [0.90, 0.03], [0.46, 0.03], [0.20, 0.22], [0.46, 0.44], [0.82, 0.64],
            [0.72, 0.92], [0.36, 1.00], [0.06, 0.88],
        ]],
    ],
    &[
        &[&[
            [0.72, 0.00], [0.32, 0.24], [0.08, 0.64], [0.24, 0.94], [0.60, 1.00],
            [0.88, 0.78], [0.70, 0.54], [0.38, 0.55], [0.12, 0.74],
        ]],
        &[&[
            [0.50, 0.00], [0.20, 0.40], [0.12, 0.76], [0.36, 1.00], [0.74, 0.94],
            [0.80, 0.68], [0.50, 0.58], [0.16, 0.80],
        ]],
    ],
    &[
        &[
            &[[0.04, 0.03], [0.94, 0.00]],
            &[[0.94, 0.00], [0.56, 0.48], [0.36, 1.00]],
        ],
        &[
            &[[0.06, 0.02], [0.92, 0.00]],
            &[[0.92, 0.00], [0.58, 0.50], [0.40, 1.00]],
            &[[0.26, 0.52], [0.86, 0.48]],
        ],
        &[
            &[[0.06, 0.20], [0.10, 0.02]],
            &[[0.10, 0.02], [0.92, 0.02]],
            &[[0.92, 0.02], [0.70, 0.50], [0.60, 1.00]],
        ],
    ],
    &[
        &[&[
            [0.82, 0.14], [0.48, 0.00], [0.18, 0.18], [0.46, 0.45], [0.86, 0.74],
            [0.52, 1.00], [0.12, 0.78], [0.48, 0.47], [0.82, 0.20], [0.70, 0.06],
        ]],
        &[
            &[
                [0.50, 0.00], [0.22, 0.10], [0.22, 0.36], [0.50, 0.46], [0.78, 0.36],
                [0.78, 0.10], [0.50, 0.00],
            ],
            &[
                [0.50, 0.46], [0.14, 0.60], [0.12, 0.88], [0.50, 1.00], [0.88, 0.88],
                [0.86, 0.60], [0.50, 0.46],
            ],
        ],
    ],
    &[
        &[
            &[
                [0.86, 0.16], [0.50, 0.00], [0.12, 0.22], [0.30, 0.48], [0.66, 0.44],
                [0.86, 0.16],
            ],
            &[[0.86, 0.10], [0.82, 0.50], [0.68, 1.00]],
        ],
        &[&[
            [0.84, 0.24], [0.54, 0.00], [0.14, 0.20], [0.28, 0.48], [0.70, 0.42],
            [0.84, 0.14], [0.88, 0.56], [0.66, 0.96], [0.22, 0.96],
        ]],
    ],
];

fn draw_digit(digit: usize, rng: &mut ChaCha8Rng) -> [u8; SIDE * SIDE] {
    let glyph = GLYPHS[digit][rng.gen_range(0..GLYPHS[digit].len() as u32) as usize];
    let hand = Hand::new(rng);
    let mut canvas = [0.0; SIDE * SIDE];
    for stroke in glyph {
        let path = hand.bend(stroke, rng);
        for ends in path.windows(2) {
            draw_segment(&mut canvas, ends[0], ends[1]);
        }
    }
    expose(&canvas, rng)
}

// Chosen so that a linear model stays near 90 % and a network with a hidden
// layer of 1000 reaches 98 to 99 % after ten epochs of 20,000 images.

/// Half the width of the pen, in pixels.
const PEN: (f32, f32) = (0.8, 1.7);
/// The relative change of the width within a stroke.
const PRESSURE: f32 = 0.25;
/// The width and the height of a digit, in pixels.
const WIDTH: (f32, f32) = (9.0, 17.0);
const HEIGHT: (f32, f32) = (15.0, 21.0);
/// How far the top moves sideways for a unit of height.
const SHEAR: f32 = 0.5;
/// The tangent of half the largest rotation, which is 20 degrees.
const HALF_TURN: f32 = 0.18;
/// How far a digit moves off the middle, in pixels.
const SHIFT: f32 = 4.2;
/// How far each point of a glyph moves on its own, in boxes.
const JITTER: f32 = 0.06;
/// How far the sheet is pulled out of shape, in boxes.
const ELASTIC: f32 = 0.14;

/// How one image is written.
struct Hand {
    /// Half the width of the pen, in pixels.
    pen: f32,
    /// From box coordinates about the middle to pixels: two rows.
    matrix: [[f32; 2]; 2],
    /// Where the middle of the box lies, in pixels.
    middle: Point,
    /// Displacements on a grid over the box, interpolated in between.
    elastic: [[Point; 4]; 4],
}

impl Hand {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let width = between(WIDTH, rng);
        let height = between(HEIGHT, rng);
        let shear = within(SHEAR, rng);
        // The rational form of a rotation: sine and cosine differ between
        // platforms in the last bit.
        let t = within(HALF_TURN, rng);
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let slant = -shear * height;
        let middle = SIDE as f32 / 2.0;
        Self {
            pen: between(PEN, rng),
            matrix: [
                [cos * width, cos * slant - sin * height],
                [sin * width, sin * slant + cos * height],
            ],
            middle: [middle + within(SHIFT, rng), middle + within(SHIFT, rng)],
            elastic: std::array::from_fn(|_| {
                std::array::from_fn(|_| [within(ELASTIC, rng), within(ELASTIC, rng)])
            }),
        }
    }

    /// The path of the pen for a stroke, in pixels, as short straight pieces.
    fn bend(&self, stroke: Stroke, rng: &mut ChaCha8Rng) -> Vec<Dot> {
        const PIECES: usize = 8;
        let points: Vec<Point> = stroke
            .iter()
            .map(|&[x, y]| [x + within(JITTER, rng), y + within(JITTER, rng)])
            .collect();
        let (first, last) =
            (self.pen * (1.0 + within(PRESSURE, rng)), self.pen * (1.0 + within(PRESSURE, rng)));
        let spans = points.len() - 1;
        (0..=spans * PIECES)
            .map(|i| {
                let span = (i / PIECES).min(spans - 1);
                let t = i as f32 / PIECES as f32 - span as f32;
                let point = catmull_rom(&points, span, t);
                let along = i as f32 / (spans * PIECES) as f32;
                Dot { at: self.place(point), radius: first + (last - first) * along }
            })
            .collect()
    }

    /// From box coordinates to pixels.
    fn place(&self, [x, y]: Point) -> Point {
        let [dx, dy] = self.displacement([x, y]);
        let (x, y) = (x + dx - 0.5, y + dy - 0.5);
        let [[a, b], [c, d]] = self.matrix;
        [self.middle[0] + a * x + b * y, self.middle[1] + c * x + d * y]
    }

    fn displacement(&self, [x, y]: Point) -> Point {
        let cell = |v: f32| {
            let v = (v * 3.0).clamp(0.0, 3.0);
            let i = (v as usize).min(2);
            (i, v - i as f32)
        };
        let ((i, s), (j, t)) = (cell(x), cell(y));
        let mix = |k: usize| {
            let [top, bottom] = [j, j + 1].map(|j| {
                let (left, right) = (self.elastic[j][i][k], self.elastic[j][i + 1][k]);
                left + (right - left) * s
            });
            top + (bottom - top) * t
        };
        [mix(0), mix(1)]
    }
}

/// A pen position with the radius of the pen there, in pixels.
#[derive(Clone, Copy)]
struct Dot {
    at: Point,
    radius: f32,
}

/// The point at `t` in 0..=1 between points `span` and `span + 1`.
fn catmull_rom(points: &[Point], span: usize, t: f32) -> Point {
    let (p1, p2) = (points[span], points[span + 1]);
    // Beyond an end, the curve goes on straight.
    let p0 = if span > 0 { points[span - 1] } else { mirror(p2, p1) };
    let p3 = points.get(span + 2).copied().unwrap_or_else(|| mirror(p1, p2));
    std::array::from_fn(|k| {
        let (a, b, c, d) = (p0[k], p1[k], p2[k], p3[k]);
        let cubic = 3.0 * (b - c) + d - a;
        let square = 2.0 * a - 5.0 * b + 4.0 * c - d;
        b + 0.5 * t * (c - a + t * (square + t * cubic))
    })
}

fn mirror(point: Point, at: Point) -> Point {
    [2.0 * at[0] - point[0], 2.0 * at[1] - point[1]]
}

/// Darkens the pixels that a pen touches on its way from `a` to `b`. A pixel
/// is as dark as the pen's edge is near its middle, which smooths the edges.
fn draw_segment(canvas: &mut [f32; SIDE * SIDE], a: Dot, b: Dot) {
    let reach = a.radius.max(b.radius) + 0.5;
    let range = |k: usize| {
        let (low, high) = (a.at[k].min(b.at[k]) - reach, a.at[k].max(b.at[k]) + reach);
        // Casts of negative numbers give zero.
        low as usize..((high + 1.0) as usize).min(SIDE)
    };
    let direction = [b.at[0] - a.at[0], b.at[1] - a.at[1]];
    let length_squared = dot(direction, direction).max(1e-12);
    for row in range(1) {
        for column in range(0) {
            let pixel = [column as f32 + 0.5, row as f32 + 0.5];
            let from_a = [pixel[0] - a.at[0], pixel[1] - a.at[1]];
            let along = (dot(from_a, direction) / length_squared).clamp(0.0, 1.0);
            let away = [from_a[0] - along * direction[0], from_a[1] - along * direction[1]];
            let radius = a.radius + (b.radius - a.radius) * along;
            let ink = (0.5 + radius - dot(away, away).sqrt()).clamp(0.0, 1.0);
            let value = &mut canvas[row * SIDE + column];
            *value = value.max(ink);
        }
    }
}

fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

/// The darkness of ink and paper, and the standard deviation of the noise, as
/// parts of full ink.
const INK: (f32, f32) = (0.65, 1.0);
const PAPER: (f32, f32) = (0.0, 0.06);
const NOISE: (f32, f32) = (0.0, 0.1);

/// Turns ink into bytes, as a bad camera would.
fn expose(canvas: &[f32; SIDE * SIDE], rng: &mut ChaCha8Rng) -> [u8; SIDE * SIDE] {
    let (ink, paper) = (between(INK, rng), between(PAPER, rng));
    let noise = between(NOISE, rng);
    canvas.map(|value| {
        // The sum of four bytes is close to normal and quickly drawn; 147.8 is
        // its standard deviation.
        let sum: u32 = rng.gen::<[u8; 4]>().iter().map(|&b| u32::from(b)).sum();
        let grain = (sum as f32 - 510.0) / 147.8 * noise;
        // The cast saturates.
        (255.0 * (paper + (ink - paper) * value + grain) + 0.5) as u8
    })
}

fn between((low, high): (f32, f32), rng: &mut ChaCha8Rng) -> f32 {
    low + (high - low) * rng.gen::<f32>()
}

/// Between `-limit` and `limit`, mostly near zero: most digits look ordinary.
fn within(limit: f32, rng: &mut ChaCha8Rng) -> f32 {
    let mut sum = 0.0;
    for _ in 0..3 {
        sum += between((-limit, limit), rng);
    }
    sum / 3.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sha2::{Digest, Sha256};

    use super::*;

    fn pixels(images: &Images) -> Vec<u8> {
        (0..images.len()).flat_map(|i| images.pixels_of(i).to_vec()).collect()
    }

    #[test]
    fn every_glyph_can_be_drawn() {
        for variants in GLYPHS {
            assert!(variants.len() >= 2);
            for stroke in variants.iter().flat_map(|glyph| glyph.iter()) {
                assert!(stroke.len() >= 2);
                assert!(stroke.iter().flatten().all(|c| (0.0..=1.0).contains(c)));
            }
        }
    }

    #[test]
    fn a_curve_passes_through_its_points() {
        let points = [[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]];
        for span in 0..2 {
            assert_eq!(catmull_rom(&points, span, 0.0), points[span]);
            assert_eq!(catmull_rom(&points, span, 1.0), points[span + 1]);
        }
        let line = [[0.0, 0.0], [2.0, 4.0]];
        assert_eq!(catmull_rom(&line, 0, 0.5), [1.0, 2.0]);
    }

    #[test]
    fn a_segment_is_as_wide_as_the_pen_and_no_wider() {
        let mut canvas = [0.0; SIDE * SIDE];
        let [a, b] = [[8.5, 10.5], [20.5, 10.5]].map(|at| Dot { at, radius: 1.25 });
        draw_segment(&mut canvas, a, b);
        let column: Vec<f32> = (8..14).map(|row| canvas[row * SIDE + 14]).collect();
        assert_eq!(column, [0.0, 0.75, 1.0, 0.75, 0.0, 0.0]);
        let row: Vec<f32> = (5..9).map(|column| canvas[10 * SIDE + column]).collect();
        assert_eq!(row, [0.0, 0.0, 0.75, 1.0]);
    }

    #[test]
    fn a_segment_off_the_sheet_draws_nothing() {
        for at in [[-40.0, 10.0], [10.0, -40.0], [90.0, 10.0], [10.0, 90.0]] {
            let mut canvas = [0.0; SIDE * SIDE];
            let dot = Dot { at, radius: 2.0 };
            draw_segment(&mut canvas, dot, dot);
            assert!(canvas.iter().all(|&v| v == 0.0));
        }
    }

    #[test]
    fn an_image_depends_on_seed_half_and_place_only() {
        let short = draw(3, 20, 5).unwrap();
        let long = draw(3, 40, 30).unwrap();
        assert_eq!(short.train, long.train.clone().take(20).unwrap());
        assert_eq!(short.test, long.test.clone().take(5).unwrap());
        assert_ne!(short.train, long.test.take(20).unwrap());
        assert_ne!(short.train, draw(4, 20, 5).unwrap().train);
    }

    /// Holds on every platform and in every profile.
    #[test]
    fn the_pixels_are_pinned() {
        let data = draw(42, 200, 100).unwrap();
        let sum = Sha256::new()
            .chain_update(pixels(&data.train))
            .chain_update(pixels(&data.test))
            .finalize();
        let start: String = sum.iter().take(8).map(|b| format!("{b:02x}")).collect();
        assert_eq!(start, "41b114b7061e2f61");
    }

    #[test]
    fn the_digits_are_equally_frequent() {
        let train = draw(5, 2000, 1).unwrap().train;
        for digit in 0..10 {
            let count = (0..2000).filter(|&i| train.label(i) == digit).count();
            assert!((140..260).contains(&count), "{digit}: {count}");
        }
    }

    #[test]
    fn every_image_shows_a_digit_that_is_mostly_on_the_sheet() {
        let train = draw(6, 1000, 1).unwrap().train;
        let mut on_border = 0;
        for i in 0..train.len() {
            let image = train.pixels_of(i);
            let ink = image.iter().filter(|&&x| x > 100).count();
            assert!((20..300).contains(&ink), "{i}: {ink}");
            let border = |p: usize| [p % SIDE, p / SIDE].iter().any(|c| [0, SIDE - 1].contains(c));
            let cut = (0..image.len()).any(|p| border(p) && image[p] > 150);
            on_border += usize::from(cut);
        }
        assert!(on_border < 100, "{on_border}");
    }

    /// The mean of a class is a linear classifier. That it fails often where
    /// the nearest neighbour rarely does is what a network can gain.
    #[test]
    fn classes_overlap_for_a_linear_model_but_not_for_a_neighbour() {
        let data = draw(8, 3000, 200).unwrap();
        let floats = |images: &Images, i: usize| -> Vec<f32> {
            images.pixels_of(i).iter().map(|&x| f32::from(x)).collect()
        };
        let examples: Vec<_> = (0..data.train.len()).map(|i| floats(&data.train, i)).collect();
        let mut means = vec![(0, vec![0.0_f32; SIDE * SIDE]); CLASSES];
        for (i, example) in examples.iter().enumerate() {
            let (count, mean) = &mut means[usize::from(data.train.label(i))];
            *count += 1;
            mean.iter_mut().zip(example).for_each(|(m, x)| *m += x);
        }
        for (count, mean) in &mut means {
            mean.iter_mut().for_each(|m| *m /= *count as f32);
        }
        let distance =
            |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum() };
        let nearest = |x: &[f32], of: &mut dyn Iterator<Item = &Vec<f32>>| {
            of.map(|y| distance(x, y))
                .enumerate()
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .map(|(i, _)| i)
                .unwrap()
        };
        let (mut by_mean, mut by_neighbour) = (0, 0);
        for i in 0..data.test.len() {
            let x = floats(&data.test, i);
            let label = data.test.label(i);
            let mean = nearest(&x, &mut means.iter().map(|m| &m.1));
            by_mean += usize::from(mean == usize::from(label));
            let neighbour = nearest(&x, &mut examples.iter());
            by_neighbour += usize::from(data.train.label(neighbour) == label);
        }
        assert!((100..160).contains(&by_mean), "{by_mean} of 200");
        assert!(by_neighbour >= 165, "{by_neighbour} of 200");
    }

    #[test]
    fn empty_sets_are_refused() {
        for (train, test) in [(0, 1), (1, 0)] {
            assert!(matches!(draw(1, train, test), Err(DataError::Zero { .. })));
        }
    }
}
