//! Functions of a few numbers, known in closed form.

use crate::scenarios::{
    job::{Job, Loss, Start, Traced},
    table::Row,
};
use dfdx::prelude::*;

type Number = Tensor<Rank0, f32, Cpu>;
type Four = Tensor<Rank1<4>, f32, Cpu>;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new("rosenbrock", 2000, rosenbrock),
        Row::new("reward", 1000, reward),
        Row::new("density", 1000, density),
    ]
}

/// (1 − a)² + 100·(b − a²)² from (−1.2, 1) or near. With a rate a layer a and b have one each.
fn rosenbrock(start: &mut Start) -> Job<(Number, Number)> {
    let [a, b] = [-1.2, 1.0].map(|x| x + 0.05 * start.truth.normal());
    let value = |a: f64, b: f64| (1.0 - a).powi(2) + 100.0 * (b - a * a).powi(2);
    let error = move |(a, b): &(Number, Number)| value(a.array().into(), b.array().into());
    let loss = |(a, b): &mut (Number, Number), gradients, _| {
        let valley = b.trace(gradients) - a.retaped::<Traced>().square();
        (a.retaped::<Traced>() - 1.0).square() + valley.square() * 100.0
    };
    Job::new((start.dev.tensor(a), start.dev.tensor(b)), loss, error)
}

/// Maximizes exp(−|w − t|²/8), seen through noise in t: the loss is negative and bounded. Measured
/// without the noise, as what is missing to 1. The weights are zero at first.
fn reward(start: &mut Start) -> Job<Four> {
    let t: [f32; 4] = std::array::from_fn(|_| if start.truth.below(2) == 0 { 2.0 } else { -2.0 });
    let error = move |w: &Four| {
        let w = w.array();
        let far: f32 = w.iter().zip(&t).map(|(w, t)| (w - t).powi(2)).sum();
        1.0 - f64::from(-far / 8.0).exp()
    };
    let (mut random, dev) = (start.batches(), start.dev.clone());
    let loss = move |w: &mut Four, gradients, _| {
        let mut seen = || std::array::from_fn(|n| t[n] + random.normal());
        let seen: [[f32; 4]; 8] = std::array::from_fn(|_| seen());
        let far = w.trace(gradients).broadcast::<Rank2<8, 4>, _>() - dev.tensor(seen);
        (far.square().sum::<Rank1<8>, _>() / -8.0).exp().mean().negate()
    };
    Job::new(start.dev.zeros(), loss, error)
}

/// A normal density's means and log-deviations, fitted by maximum likelihood to deviations of 0.1:
/// the loss is negative at the end. Measured by the divergence of the fitted from the true.
fn density(start: &mut Start) -> Job<(Four, Four)> {
    const TRUE: f32 = 0.1;
    let t: [f32; 4] = start.truth.normals();
    let error = move |(mean, log): &(Four, Four)| {
        let pairs = mean.array().into_iter().zip(log.array()).zip(t);
        let divergence = |((mean, log), t): ((f32, f32), f32)| {
            let (mean, log, t) = (f64::from(mean), f64::from(log), f64::from(t));
            let wrong = f64::from(TRUE).powi(2) + (mean - t).powi(2);
            log - f64::from(TRUE).ln() + 0.5 * (wrong * (-2.0 * log).exp() - 1.0)
        };
        pairs.map(divergence).sum::<f64>().max(0.0)
    };
    let (mut random, dev) = (start.batches(), start.dev.clone());
    let loss = move |(mean, log): &mut (Four, Four), gradients, _| {
        let mut seen = || std::array::from_fn(|n| t[n] + TRUE * random.normal());
        let seen: [[f32; 4]; 16] = std::array::from_fn(|_| seen());
        let far = mean.trace(gradients).broadcast::<Rank2<16, 4>, _>() - dev.tensor(seen);
        let inverse = log.retaped::<Traced>().negate().exp().broadcast::<Rank2<16, 4>, _>();
        let misfit: Loss = (far * inverse).square().sum();
        log.retaped::<Traced>().sum() + misfit / 32.0
    };
    Job::new((start.dev.zeros(), start.dev.zeros()), loss, error)
}
