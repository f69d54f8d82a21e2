//! Linear and logistic regression.

use crate::scenarios::{
    data::{cluster, dot, Random},
    job::{supervised, Job, Measure, Start},
    table::Row,
};
use dfdx::{nn::modules, prelude::*};

/// What one example's noise is.
type Noise = fn(&mut Random) -> f32;
pub(super) type Line = modules::Linear<8, 1, f32, Cpu>;

pub(super) fn rows() -> Vec<Row> {
    vec![
        // Three tails.
        Row::new("noise-normal", 1000, |start| line(start, Random::normal)),
        Row::new("noise-cubed", 1000, |start| line(start, Random::cubed)),
        Row::new("noise-student", 1000, |start| line(start, Random::student)),
        // One example a batch.
        Row::new("batch-one", 1500, |start| line(start, Random::normal)).batch(1).epoch(500),
        Row::new("batch-one-cubed", 1500, |start| line(start, Random::cubed)).batch(1).epoch(500),
        Row::new("full-batch", 500, full_batch).batch(32),
        Row::new("scaled-features", 1500, scaled_features).scale(1e6),
        Row::new("ill-conditioned", 1000, ill_conditioned),
        Row::new("separable", 1000, separable),
        Row::new("zero-start", 500, zero_start),
    ]
}

/// y = ⟨x,w⟩ + noise, measured without the noise.
fn line(start: &mut Start, noise: Noise) -> Job<Line> {
    let w: [f32; 8] = start.truth.normals();
    let model = start.build::<Linear<8, 1>>();
    let examples = move |random: &mut Random, _| {
        let x = random.normals();
        (x, [dot(&x, &w) + noise(random)])
    };
    let clean = move |random: &mut Random| {
        let x = random.normals();
        (x, [dot(&x, &w)])
    };
    supervised::<_, 8, 1>(start, model, Measure::Squares, examples, clean)
}

/// The same 32 examples at each step, without noise.
fn full_batch(start: &mut Start) -> Job<Line> {
    let w: [f32; 8] = start.truth.normals();
    let x: Vec<[f32; 8]> = (0..32).map(|_| start.truth.normals()).collect();
    let model = start.build::<Linear<8, 1>>();
    let mut next = (0..32).cycle();
    let examples = move |_: &mut Random, _| {
        let x = x[next.next().unwrap_or(0)];
        (x, [dot(&x, &w)])
    };
    let clean = move |random: &mut Random| {
        let x = random.normals();
        (x, [dot(&x, &w)])
    };
    supervised::<_, 8, 1>(start, model, Measure::Squares, examples, clean)
}

/// Every second feature is a thousand times as large, and all of them matter as much. Curvatures
/// are two and two million, so constants are tried from 1e-6 down: plain descent can learn but one
/// half.
fn scaled_features(start: &mut Start) -> Job<Line> {
    let scale: [f32; 8] = std::array::from_fn(|n| if n % 2 == 0 { 1.0 } else { 1000.0 });
    let w: [f32; 8] = std::array::from_fn(|_| if start.truth.below(2) == 0 { 1.0 } else { -1.0 });
    let model = start.build::<Linear<8, 1>>();
    let draw = move |random: &mut Random| {
        let x: [f32; 8] = random.normals();
        (std::array::from_fn(|n| x[n] * scale[n]), [dot(&x, &w)])
    };
    let mut job = supervised::<_, 8, 1>(start, model, Measure::Squares, move |r, _| draw(r), draw);
    // Random weights are off by a million. The error of weights of zero is what there is to learn.
    job.unit = f64::from(dot(&w, &w));
    job
}

/// Mean squared error where the inputs have sixteen variances from 1 to 1e-4 in a rotated frame,
/// and each direction is as much of the error at the start. Without noise in the targets.
fn ill_conditioned(start: &mut Start) -> Job<modules::UnbiasedLinear<16, 1, f32, Cpu>> {
    let deviation: [f32; 16] = std::array::from_fn(|n| 10.0_f32.powf(-2.0 * n as f32 / 15.0));
    let mirrors: [[f32; 16]; 3] = std::array::from_fn(|_| start.truth.normals());
    let rotate = move |mut x: [f32; 16]| {
        for v in &mirrors {
            let share = 2.0 * dot(v, &x) / dot(v, v);
            x.iter_mut().zip(v).for_each(|(x, v)| *x -= share * v);
        }
        x
    };
    let mut model = start.build::<UnbiasedLinear<16, 1>>();
    model.weight = start.dev.zeros();
    let draw = move |random: &mut Random| {
        let z: [f32; 16] = random.normals();
        let x = rotate(std::array::from_fn(|n| z[n] * deviation[n]));
        (x, [z.iter().sum::<f32>() / 4.0])
    };
    supervised::<_, 16, 1>(start, model, Measure::Squares, move |r, _| draw(r), draw)
}

/// Two classes that a plane parts, with nothing near it. The cross entropy has no minimum.
fn separable(start: &mut Start) -> Job<modules::Linear<8, 2, f32, Cpu>> {
    let w: [f32; 8] = start.truth.normals();
    let length = dot(&w, &w).sqrt();
    let draw = move |random: &mut Random| loop {
        let x: [f32; 8] = random.normals();
        let margin = dot(&x, &w) / length;
        if margin.abs() > 0.2 {
            return (x, if margin > 0.0 { [1.0, 0.0] } else { [0.0, 1.0] });
        }
    };
    let model = start.build::<Linear<8, 2>>();
    supervised::<_, 8, 2>(start, model, Measure::Entropy, move |r, _| draw(r), draw)
}

/// Softmax regression whose weights are all zero at first: they have no norm to take a share of.
fn zero_start(start: &mut Start) -> Job<modules::Linear<2, 3, f32, Cpu>> {
    let mut model = start.build::<Linear<2, 3>>();
    (model.weight, model.bias) = (start.dev.zeros(), start.dev.zeros());
    let draw = |random: &mut Random| cluster(random, 0.7);
    supervised::<_, 2, 3>(start, model, Measure::Entropy, move |r, _| draw(r), draw)
}
