//! Losses that change for a reason of their own.

use crate::scenarios::{
    data::{cluster, Random},
    job::{supervised, Job, Measure, Start},
    table::Row,
};
use dfdx::{nn::modules, prelude::*};

pub(super) type Perceptron<const I: usize, const H: usize, const O: usize> =
    (modules::Linear<I, H, f32, Cpu>, Tanh, modules::Linear<H, O, f32, Cpu>);

pub(super) fn rows() -> Vec<Row> {
    vec![
        // A term that no gradient knows of, as a regularizer or another task may add.
        Row::new("offset", 1000, |start| {
            bowl(start, |_| 0.0)
                .with_loss(|loss, step| if step < 500 { loss } else { loss + 100.0 })
        }),
        Row::new("factor", 1000, |start| {
            bowl(start, |_| 0.0)
                .with_loss(|loss, step| if step < 500 { loss } else { loss * 100.0 })
        }),
        // Targets get noisier and noisier: the loss grows from 1 to 10.
        Row::new("harder-targets", 1000, |start| bowl(start, |step| 3.0 * step as f32 / 1000.0)),
        Row::new("harder-inputs", 1000, harder_inputs),
        Row::new("tasks-in-turn", 1500, tasks_in_turn),
    ]
}

/// The function of the README's example, |x|².
fn bowl(start: &mut Start, noise: fn(usize) -> f32) -> Job<Perceptron<2, 16, 1>> {
    regression(start, |[a, b]| a * a + b * b, noise)
}

/// A function of two numbers, with noise in the targets that depends on the step.
pub(super) fn regression(
    start: &mut Start,
    target: fn([f32; 2]) -> f32,
    noise: fn(usize) -> f32,
) -> Job<Perceptron<2, 16, 1>> {
    let examples = move |random: &mut Random, step| {
        let x = random.normals();
        (x, [target(x) + noise(step) * random.normal()])
    };
    let clean = move |random: &mut Random| {
        let x = random.normals();
        (x, [target(x)])
    };
    let model = start.build::<(Linear<2, 16>, Tanh, Linear<16, 1>)>();
    supervised::<_, 2, 1>(start, model, Measure::Squares, examples, clean)
}

/// Three clusters that spread until they overlap; measured as they are at the end. The cross
/// entropy of the best classifier, which is about a third of that at the start, is part of the
/// error.
fn harder_inputs(start: &mut Start) -> Job<Perceptron<2, 16, 3>> {
    let examples = |random: &mut Random, step| cluster(random, 0.2 + step as f32 / 1000.0);
    let model = start.build::<(Linear<2, 16>, Tanh, Linear<16, 3>)>();
    let clean = |random: &mut Random| cluster(random, 1.2);
    supervised::<_, 2, 3>(start, model, Measure::Entropy, examples, clean)
}

/// Two functions, one after the other for 300 steps each. The third input tells which is asked for,
/// and both are measured.
fn tasks_in_turn(start: &mut Start) -> Job<Perceptron<3, 16, 1>> {
    let draw = |random: &mut Random, first: bool| {
        let [a, b] = random.normals();
        match first {
            true => ([a, b, 1.0], [a * a]),
            false => ([a, b, -1.0], [2.0 * a.sin() - b]),
        }
    };
    let examples = move |random: &mut Random, step| draw(random, (step / 300) % 2 == 0);
    let clean = move |random: &mut Random| {
        let first = random.below(2) == 0;
        draw(random, first)
    };
    let model = start.build::<(Linear<3, 16>, Tanh, Linear<16, 1>)>();
    supervised::<_, 3, 1>(start, model, Measure::Squares, examples, clean)
}
