//! Layers that start late, from zero, from trained weights, or not at all.

use super::{
    drift::{regression, Perceptron},
    modules::{Idle, Late},
};
use crate::scenarios::{
    data::{dot, Random},
    job::{supervised, Job, Measure, Start},
    table::Row,
};
use dfdx::{
    nn::{modules, BuildModule},
    prelude::*,
};
use support::{quadratic::norm, values::values};

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new("idle-layer", 1000, idle),
        Row::new("idle-layer-decayed", 1000, idle).decay(5e-4),
        Row::new("late-layer", 1000, late),
        Row::new("low-rank", 1000, low_rank),
        Row::new("trained-same", 500, |start| trained(start, squares)),
        Row::new("trained-other", 500, |start| trained(start, |x| x[0] - x[1] * x[1])),
    ]
}

/// Linear regression beside a layer that the loss does not know of. A user cares for that as well:
/// if its weights have shrunk or grown tenfold, that counts as much as nothing learned at all.
/// (A rate of 1 and a decay of 5e-4 leave more than half.)
fn idle(start: &mut Start) -> Job<Idle<f32, Cpu>> {
    let w: [f32; 8] = start.truth.normals();
    let draw = move |random: &mut Random, noise: f32| {
        let x = random.normals();
        (x, [dot(&x, &w) + noise * random.normal()])
    };
    let model = Idle::build(&start.dev);
    let before = norm(&values(&model.idle));
    let mut job = supervised::<_, 8, 1>(
        start,
        model,
        Measure::Squares,
        move |random, _| draw(random, 1.0),
        move |random| draw(random, 0.0),
    );
    let (unit, error) = (job.unit, job.error);
    job.error = Box::new(move |model| {
        let kept = (0.1..10.0).contains(&(norm(&values(&model.idle)) / before));
        error(model) + if kept { 0.0 } else { unit }
    });
    job
}

/// Two lines, the second silent for the first 200 steps.
fn late(start: &mut Start) -> Job<Late<f32, Cpu>> {
    let [w, v]: [[f32; 8]; 2] = std::array::from_fn(|_| start.truth.normals());
    let draw = move |random: &mut Random, noise: f32, factor: f32| {
        let [x, z]: [[f32; 8]; 2] = std::array::from_fn(|_| random.normals());
        let mut inputs = [factor; 17];
        inputs[..8].copy_from_slice(&x);
        inputs[8..16].copy_from_slice(&z);
        (inputs, [dot(&x, &w) + dot(&z, &v) + noise * random.normal()])
    };
    let examples =
        move |random: &mut Random, step| draw(random, 0.3, if step < 200 { 0.0 } else { 1.0 });
    let model = Late::build(&start.dev);
    let clean = move |random: &mut Random| draw(random, 0.0, 1.0);
    supervised::<_, 17, 1>(start, model, Measure::Squares, examples, clean)
}

type LowRank = (modules::UnbiasedLinear<8, 2, f32, Cpu>, modules::UnbiasedLinear<2, 8, f32, Cpu>);

/// A correction B·A of rank two to a matrix that is known and stays as it is, with B = 0: at first
/// only B has a gradient. What the known matrix gives is taken off the targets.
fn low_rank(start: &mut Start) -> Job<LowRank> {
    let a: [[f32; 8]; 2] = std::array::from_fn(|_| start.truth.normals());
    let b: [[f32; 2]; 8] = std::array::from_fn(|_| start.truth.normals());
    let draw = move |random: &mut Random, noise: f32| {
        let x: [f32; 8] = random.normals();
        let inner = [dot(&a[0], &x), dot(&a[1], &x)];
        (x, b.map(|row| 0.3 * dot(&row, &inner) + noise * random.normal()))
    };
    let mut model = start.build::<(UnbiasedLinear<8, 2>, UnbiasedLinear<2, 8>)>();
    model.1.weight = start.dev.zeros();
    let examples = move |random: &mut Random, _| draw(random, 0.1);
    let clean = move |random: &mut Random| draw(random, 0.0);
    supervised::<_, 8, 8>(start, model, Measure::Squares, examples, clean)
}

fn squares(x: [f32; 2]) -> f32 {
    x[0] * x[0] + x[1] * x[1]
}

/// Goes on with weights that were trained for |x|² by 500 steps of plain descent at 0.05. The unit
/// is the error of untrained weights.
fn trained(start: &mut Start, target: fn([f32; 2]) -> f32) -> Job<Perceptron<2, 16, 1>> {
    let before = regression(start, squares, |_| 0.3);
    let mut job = regression(start, target, |_| 0.3);
    job.model = before.trained(500, 0.05);
    job
}
