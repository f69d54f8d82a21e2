//! The paper's models against PyTorch's, in double precision: weights by a formula, loss, logits
//! and every parameter's gradient as it has them. `tests/golden/` holds its figures.

use dfdx::{nn::ModuleMut, prelude::*};
use serde::Deserialize;
use support::values::{gradient_values, set_weights, weights};
use tlr_models::resnet::{ResNet50, Wrn10x1, Wrn16x1, Wrn16x2, Wrn16x4, Wrn16x8, Wrn28x10};

#[derive(Deserialize)]
struct Golden {
    input_shape: [usize; 4],
    labels: Vec<usize>,
    loss: f64,
    logits: Vec<f64>,
    num_params: usize,
    params: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    k: usize,
    name: String,
    shape: Vec<usize>,
    grad_l2: f64,
    grad_sum: f64,
    grad_head: Vec<f64>,
}

impl Parameter {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The formula that the figures were made with.
    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let wave = |i| (0.7 * i as f64 + self.k as f64).sin();
        let scale = (2.0 * self.shape[0] as f64 / self.len() as f64).sqrt();
        (0..self.len()).map(move |i| match self.shape.len() {
            1 if self.name.ends_with("weight") => 1.0 + 0.1 * wave(i),
            1 => 0.1 * wave(i),
            _ => scale * wave(i),
        })
    }
}

fn golden(json: &str) -> Golden {
    serde_json::from_str(json).unwrap()
}

fn close(what: &str, ours: f64, theirs: f64, tolerance: f64, scale: f64) {
    assert!((ours - theirs).abs() <= tolerance * scale.max(1.0), "{what}: {ours} for {theirs}");
}

type Input = Tensor<(usize, Const<3>, usize, usize), f64, Cpu, OwnedTape<f64, Cpu>>;
type Logits<const N: usize> = Tensor<(usize, Const<N>), f64, Cpu, OwnedTape<f64, Cpu>>;

// Gradients are compared relative to the parameter's own where that is above 1: ResNet-50's first
// are of order 1e8, with 2 × 2 pixels left for its last norms. Fails for any layer in a wrong
// place, order or mode.
fn agrees<M, const N: usize>(golden: &Golden, tolerance: f64)
where
    M: TensorCollection<f64, Cpu, To<f64, Cpu> = M>
        + ModuleMut<Input, Output = Logits<N>>
        + ZeroGrads<f64, Cpu>
        + NumParams<f64, Cpu>,
{
    let dev = Cpu::default();
    let mut model = M::try_build(&dev).unwrap();
    assert_eq!(model.num_trainable_params(), golden.num_params);
    let values: Vec<f64> = golden.params.iter().flat_map(Parameter::values).collect();
    set_weights(&mut model, &values);
    assert_eq!(weights(&model), values);

    let [batch, _, height, width] = golden.input_shape;
    let pixels = (0..batch * 3 * height * width).map(|i| (0.01 * i as f64).sin()).collect();
    let x = dev.tensor_from_vec(pixels, (batch, Const::<3>, height, width));
    let logits = model.try_forward_mut(x.traced(model.alloc_grads())).unwrap();
    let values = logits.as_vec();
    assert_eq!(values.len(), golden.logits.len());
    for (ours, theirs) in values.iter().zip(&golden.logits) {
        close("logits", *ours, *theirs, tolerance, 1.0);
    }
    let mut one_hot = vec![0.0; batch * N];
    golden.labels.iter().enumerate().for_each(|(row, label)| one_hot[row * N + label] = 1.0);
    let labels = dev.tensor_from_vec(one_hot, (batch, Const::<N>));
    let loss = cross_entropy_with_logits_loss(logits, labels);
    close("loss", loss.array(), golden.loss, tolerance, 1.0);

    let gradients = gradient_values(&model, &loss.backward());
    let mut rest = &gradients[..];
    for parameter in &golden.params {
        let (gradient, others) = rest.split_at(parameter.len());
        rest = others;
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let (name, scale) = (&parameter.name, parameter.grad_l2);
        close(name, norm, parameter.grad_l2, 1e-7, scale);
        // A sum of n elements may be √n times as large as their norm, and as inexact.
        let sum = gradient.iter().sum();
        close(name, sum, parameter.grad_sum, 1e-7, scale * (parameter.len() as f64).sqrt());
        for (ours, theirs) in gradient.iter().zip(&parameter.grad_head) {
            close(name, *ours, *theirs, 1e-7, scale);
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn wide_resnet_10_1() {
    agrees::<Wrn10x1<10, f64, Cpu>, 10>(&golden(include_str!("../../golden/wrn_10_1.json")), 1e-9);
}

// With a projection in the first group, and 100 classes.
#[test]
fn wide_resnet_16_2() {
    agrees::<Wrn16x2<100, f64, Cpu>, 100>(
        &golden(include_str!("../../golden/wrn_16_2.json")),
        1e-9,
    );
}

// Its last norms see 2 × 2 pixels of two images: PyTorch's own logits move by 4e-9 when the input
// moves by one unit in the last place, and by 2e-9 between two machines.
#[test]
fn resnet_50() {
    agrees::<ResNet50<10, f64, Cpu>, 10>(&golden(include_str!("../../golden/resnet50.json")), 5e-8);
}

// As published: Zagoruyko and Komodakis give 2.7 M, 11.0 M and 36.5 M for 16-4, 16-8 and 28-10;
// torchvision counts 25,557,032 in its ResNet-50.
#[test]
fn parameters_are_counted_as_published() {
    fn parameters<M: BuildModule<Cpu, f32> + NumParams<f32, Cpu>>() -> usize {
        M::build(&Cpu::default()).num_trainable_params()
    }
    assert_eq!(parameters::<Wrn10x1<10, f32, Cpu>>(), 77_850);
    assert_eq!(parameters::<Wrn16x1<10, f32, Cpu>>(), 175_066);
    assert_eq!(parameters::<Wrn16x2<10, f32, Cpu>>(), 691_674);
    assert_eq!(parameters::<Wrn16x4<10, f32, Cpu>>(), 2_748_890);
    assert_eq!(parameters::<Wrn16x8<10, f32, Cpu>>(), 10_961_370);
    assert_eq!(parameters::<Wrn28x10<10, f32, Cpu>>(), 36_479_194);
    assert_eq!(parameters::<ResNet50<1000, f32, Cpu>>(), 25_557_032);
}
