//! How one image is written: the bend of its strokes, the pen, and the paper.

use super::glyphs::{Point, Stroke};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The width and height of an image in pixels.
pub const SIDE: usize = 28;

// Chosen so that a linear model stays near 90 % and a network with a hidden layer of 1000 reaches
// 98 to 99 % after ten epochs of 20,000 images.

/// Half the width of the pen, in pixels.
pub(super) const PEN: (f32, f32) = (0.8, 1.7);
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
pub(super) struct Hand {
    /// Half the width of the pen, in pixels.
    pen: f32,
    /// The two rows of the matrix from box coordinates, relative to the middle, to pixels.
    matrix: [[f32; 2]; 2],
    /// Where the middle of the box lies, in pixels.
    middle: Point,
    /// Displacements on a grid over the box, interpolated in between.
    elastic: [[Point; 4]; 4],
}

impl Hand {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Self {
        let width = between(WIDTH, rng);
        let height = between(HEIGHT, rng);
        let shear = within(SHEAR, rng);
        // The rational form of a rotation: sine and cosine differ between platforms in the last
        // bit.
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
    pub(super) fn bend(&self, stroke: Stroke, rng: &mut ChaCha8Rng) -> Vec<Dot> {
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

    /// The position in pixels of a point in box coordinates.
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
pub(super) struct Dot {
    pub(super) at: Point,
    pub(super) radius: f32,
}

/// The point at `t` in 0..=1 between points `span` and `span + 1`.
pub(super) fn catmull_rom(points: &[Point], span: usize, t: f32) -> Point {
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

/// Darkens the pixels that a pen touches on its way from `a` to `b`. A pixel is as dark as the
/// pen's edge is near its middle, which smooths the edges.
pub(super) fn draw_segment(canvas: &mut [f32; SIDE * SIDE], a: Dot, b: Dot) {
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

/// The darkness of ink and paper, and the standard deviation of the noise, as parts of full ink.
const INK: (f32, f32) = (0.65, 1.0);
const PAPER: (f32, f32) = (0.0, 0.06);
const NOISE: (f32, f32) = (0.0, 0.1);

/// Turns ink into bytes, as a bad camera would.
pub(super) fn expose(canvas: &[f32; SIDE * SIDE], rng: &mut ChaCha8Rng) -> [u8; SIDE * SIDE] {
    let (ink, paper) = (between(INK, rng), between(PAPER, rng));
    let noise = between(NOISE, rng);
    canvas.map(|value| {
        // The sum of four bytes is close to normal and quickly drawn; 147.8 is its standard
        // deviation.
        let sum: u32 = rng.r#gen::<[u8; 4]>().iter().map(|&b| u32::from(b)).sum();
        let grain = (sum as f32 - 510.0) / 147.8 * noise;
        // The cast saturates.
        (255.0 * (paper + (ink - paper) * value + grain) + 0.5) as u8
    })
}

fn between((low, high): (f32, f32), rng: &mut ChaCha8Rng) -> f32 {
    low + (high - low) * rng.r#gen::<f32>()
}

/// Between `-limit` and `limit`, mostly near zero: most digits look ordinary.
fn within(limit: f32, rng: &mut ChaCha8Rng) -> f32 {
    let mut sum = 0.0;
    for _ in 0..3 {
        sum += between((-limit, limit), rng);
    }
    sum / 3.0
}
