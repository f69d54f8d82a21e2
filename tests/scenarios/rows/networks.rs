//! Small networks of the usual kinds.

use super::{
    drift::Perceptron,
    modules::{Attention, Recurrent, Words},
};
use crate::scenarios::{
    data::{cluster, dot, one_hot, Random},
    job::{supervised, Job, Loss, Measure, Rows, Start, Traced},
    table::Row,
};
use dfdx::{
    nn::{modules, BuildModule},
    prelude::*,
};
use tlr::{TensorCollection, TrainableLr};
use tlr_models::layers;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new("clusters", 500, clusters),
        Row::new("batch-one-classifier", 1500, clusters).batch(1).epoch(500),
        // A mean that was meant to be a sum, and a loss that is hardly there.
        Row::new("large-loss", 500, |start| clusters(start).with_loss(|loss, _| loss * 1e3))
            .scale(1e3),
        Row::new("tiny-loss", 500, |start| clusters(start).with_loss(|loss, _| loss * 1e-6))
            .scale(1e-6),
        Row::new("small-epochs", 500, small_epochs).epoch(6),
        Row::new("label-noise", 2000, label_noise),
        Row::new("spirals", 2000, spirals).batch(32),
        Row::new("convolution", 500, convolution),
        Row::new("attention", 1000, attention),
        Row::new("autoencoder", 1000, autoencoder),
        Row::new("rare-words", 1000, rare_words),
        Row::new("deep", 1000, deep),
        Row::new("recurrent", 500, recurrent),
        Row::new("residual", 1000, residual),
    ]
}

type Classifier = Perceptron<2, 16, 3>;

fn classifier(start: &Start) -> Classifier {
    start.build::<(Linear<2, 16>, Tanh, Linear<16, 3>)>()
}

/// Three clusters that hardly overlap.
fn clusters(start: &mut Start) -> Job<Classifier> {
    let draw = |random: &mut Random| cluster(random, 0.5);
    let model = classifier(start);
    supervised::<_, 2, 3>(start, model, Measure::Entropy, move |r, _| draw(r), draw)
}

/// The same three clusters, 96 points of them in all: six batches an epoch, in a new order each
/// time.
fn small_epochs(start: &mut Start) -> Job<Classifier> {
    let mut points: Vec<_> = (0..96).map(|_| cluster(&mut start.truth, 0.5)).collect();
    let mut next = 0;
    let examples = move |random: &mut Random, _| {
        if next == 0 {
            (1..points.len()).for_each(|n| points.swap(n, random.below(n + 1)));
        }
        let point = points[next];
        next = (next + 1) % points.len();
        point
    };
    let model = classifier(start);
    let clean = |random: &mut Random| cluster(random, 0.5);
    supervised::<_, 2, 3>(start, model, Measure::Entropy, examples, clean)
}

/// Three sectors of the plane, and 40 % of the labels are wrong. Measured by the divergence of the
/// probabilities that are right: 0.6 for the sector, 0.2 for the others.
fn label_noise(start: &mut Start) -> Job<Classifier> {
    let draw = |random: &mut Random| {
        let [x, y]: [f32; 2] = random.normals();
        let turn = (y.atan2(x) / std::f32::consts::TAU).rem_euclid(1.0);
        ([x, y], ((3.0 * turn) as usize).min(2))
    };
    let examples = move |random: &mut Random, _| {
        let (x, class) = draw(random);
        let wrong = random.uniform() < 0.4;
        let label = if wrong { class + 1 + random.below(2) } else { class };
        (x, one_hot(label % 3))
    };
    let clean = move |random: &mut Random| {
        let (x, class) = draw(random);
        (x, one_hot::<3>(class).map(|one| 0.2 + 0.4 * one))
    };
    let model = classifier(start);
    supervised::<_, 2, 3>(start, model, Measure::Entropy, examples, clean)
}

type Two = (
    modules::Linear<2, 16, f32, Cpu>,
    Tanh,
    modules::Linear<16, 16, f32, Cpu>,
    Tanh,
    modules::Linear<16, 2, f32, Cpu>,
);

/// Two arms of a spiral.
fn spirals(start: &mut Start) -> Job<Two> {
    let draw = |random: &mut Random| {
        let class = random.below(2);
        let radius = 0.2 + 1.8 * random.uniform();
        let angle = 2.0 * radius + std::f32::consts::PI * class as f32;
        let [x, y]: [f32; 2] = random.normals();
        ([radius * angle.cos() + 0.05 * x, radius * angle.sin() + 0.05 * y], one_hot(class))
    };
    let model = start.build::<(Linear<2, 16>, Tanh, Linear<16, 16>, Tanh, Linear<16, 2>)>();
    supervised::<_, 2, 2>(start, model, Measure::Entropy, move |r, _| draw(r), draw)
}

#[derive(Clone, Debug, TensorCollection, TrainableLr)]
struct Images<E: Dtype, D: Device<E>> {
    filters: layers::Conv2d<1, 4, 3, 1, 1, 1, 1, E, D>,
    norm: layers::BatchNorm2d<4, true, E, D>,
    head: modules::Linear<4, 3, E, D>,
}

/// Images of 6 by 6 pixels: bars across, bars upright or a chessboard, in noise. A convolution, a
/// batch norm, the mean over pixels. Measured as in use, by the running statistics.
fn convolution(start: &mut Start) -> Job<Images<f32, Cpu>> {
    type Pixels = Tensor<(usize, Const<1>, Const<6>, Const<6>), f32, Cpu>;
    fn draw(random: &mut Random, dev: &Cpu, batch: usize) -> (Pixels, Rows<3>) {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..batch {
            let (class, phase) = (random.below(3), random.below(2));
            for (y, x) in (0..6).flat_map(|y| (0..6).map(move |x| (y, x))) {
                let place = phase + [y, x, x + y][class];
                let ink = if place.is_multiple_of(2) { 1.0 } else { -1.0 };
                pixels.push(ink + 1.5 * random.normal());
            }
            labels.push(one_hot::<3>(class));
        }
        let pixels = dev.tensor_from_vec(pixels, (batch, Const, Const, Const));
        (pixels, dev.tensor_from_vec(labels.concat(), (batch, Const)))
    }
    let (x, y) = draw(&mut start.clean(), &start.dev, 128);
    let error = move |model: &Images<f32, Cpu>| {
        let seen = model.norm.forward(model.filters.forward(x.clone()));
        let logits = model.head.forward(seen.mean::<(usize, Const<4>), Axes2<2, 3>>());
        Measure::Entropy.error::<3>(&logits.as_vec(), &y.as_vec())
    };
    let (mut random, dev, batch) = (start.batches(), start.dev.clone(), start.batch);
    let loss = move |model: &mut Images<f32, Cpu>, gradients, _| -> Loss {
        let (x, y) = draw(&mut random, &dev, batch);
        let seen = model.norm.forward_mut(model.filters.forward(x.trace(gradients)));
        let seen: Rows<4, Traced> = seen.mean::<_, Axes2<2, 3>>();
        cross_entropy_with_logits_loss(model.head.forward(seen), y)
    };
    Job::new(Images::build(&start.dev), loss, error)
}

/// Four tokens, each with one of four kinds; one of them is marked, and its kind is asked for.
fn attention(start: &mut Start) -> Job<Attention<f32, Cpu>> {
    let draw = |random: &mut Random| {
        let (marked, mut answer) = (random.below(4), 0);
        let mut tokens: [f32; 32] = random.normals::<32>().map(|noise| 0.3 * noise);
        for (n, token) in tokens.chunks_exact_mut(8).enumerate() {
            let kind = random.below(4);
            token[kind] += 1.0;
            if n == marked {
                (token[4], answer) = (token[4] + 2.0, kind);
            }
        }
        (tokens, one_hot(answer))
    };
    let model = Attention::build(&start.dev);
    supervised::<_, 32, 4>(start, model, Measure::Entropy, move |r, _| draw(r), draw)
}

type Coder = (
    modules::Linear<8, 8, f32, Cpu>,
    Tanh,
    modules::Linear<8, 3, f32, Cpu>,
    modules::Linear<3, 8, f32, Cpu>,
);

/// Eight numbers made of three, through a bottleneck of three. The error is all that is not
/// reproduced; it cannot be 0.
fn autoencoder(start: &mut Start) -> Job<Coder> {
    let mix: [[f32; 3]; 8] = std::array::from_fn(|_| start.truth.normals());
    let draw = move |random: &mut Random| {
        let z: [f32; 3] = random.normals();
        let x = mix.map(|row| 0.6 * dot(&row, &z) + 0.1 * random.normal());
        (x, x)
    };
    let model = start.build::<(Linear<8, 8>, Tanh, Linear<8, 3>, Linear<3, 8>)>();
    supervised::<_, 8, 8>(start, model, Measure::Squares, move |r, _| draw(r), draw)
}

/// Sixteen words with a number each; the k-th occurs k^-1.5 times as often as the first. Measured
/// over the same words.
fn rare_words(start: &mut Start) -> Job<Words<f32, Cpu>> {
    let numbers: [f32; 16] = start.truth.normals();
    let often: [f32; 16] = std::array::from_fn(|k| (k as f32 + 1.0).powf(-1.5));
    let total: f32 = often.iter().sum();
    let draw = move |random: &mut Random, noise: f32| {
        let mut left = total * random.uniform();
        let passed = |often: &&f32| {
            left -= **often;
            left > 0.0
        };
        let word = often.iter().take_while(passed).count().min(15);
        ([word as f32], [numbers[word] + noise * random.normal()])
    };
    let model = Words::build(&start.dev);
    let examples = move |random: &mut Random, _| draw(random, 0.3);
    let clean = move |random: &mut Random| draw(random, 0.0);
    supervised::<_, 1, 1>(start, model, Measure::Squares, examples, clean)
}

type Deep = (
    modules::Linear<2, 6, f32, Cpu>,
    Tanh,
    modules::Repeated<(modules::Linear<6, 6, f32, Cpu>, Tanh), 6>,
    modules::Linear<6, 1, f32, Cpu>,
);

/// Seven layers of six units each.
fn deep(start: &mut Start) -> Job<Deep> {
    let draw = |random: &mut Random| {
        let [a, b] = random.normals();
        ([a, b], [a * b])
    };
    let model =
        start.build::<(Linear<2, 6>, Tanh, Repeated<(Linear<6, 6>, Tanh), 6>, Linear<6, 1>)>();
    supervised::<_, 2, 1>(start, model, Measure::Squares, move |r, _| draw(r), draw)
}

/// The last of six numbers, and half of the one four before it.
fn recurrent(start: &mut Start) -> Job<Recurrent<f32, Cpu>> {
    let draw = |random: &mut Random| {
        let x: [f32; 6] = random.normals();
        (x, [x[5] + 0.5 * x[1]])
    };
    let model = Recurrent::build(&start.dev);
    supervised::<_, 6, 1>(start, model, Measure::Squares, move |r, _| draw(r), draw)
}

type Block = modules::Residual<(
    modules::LayerNorm1D<16, f32, Cpu>,
    modules::Linear<16, 16, f32, Cpu>,
    ReLU,
)>;

type Residually = (modules::Linear<2, 16, f32, Cpu>, Block, modules::Linear<16, 1, f32, Cpu>);

/// A residual block with a layer norm.
fn residual(start: &mut Start) -> Job<Residually> {
    let draw = |random: &mut Random, noise: f32| {
        let [a, b] = random.normals();
        ([a, b], [a * a + b * b + noise * random.normal()])
    };
    type Build = (Linear<2, 16>, Residual<(LayerNorm1D<16>, Linear<16, 16>, ReLU)>, Linear<16, 1>);
    let model = start.build::<Build>();
    let examples = move |random: &mut Random, _| draw(random, 0.3);
    let clean = move |random: &mut Random| draw(random, 0.0);
    supervised::<_, 2, 1>(start, model, Measure::Squares, examples, clean)
}
