//! The sequence-to-sequence transformer against PyTorch in float64: loss, logits and the gradient
//! of every parameter, from weights that a formula gives.

use dfdx::{
    nn::{RecursiveWalker, TensorOptions, TensorVisitor, ViewTensorName, ViewTensorRef},
    prelude::*,
};
use safetensors::{tensor::TensorView, Dtype as Stored};
use serde::Deserialize;
use std::{collections::BTreeMap, convert::Infallible};
use tlr_models::{
    layers::DropoutRate,
    padded, shifted,
    weights::{self, Location, Names},
    Seq2SeqTransformer,
};

const GOLDEN: &str = include_str!("../../golden/seq2seq_transformer.json");

/// Of the loss and the logits, which are of the order of 1. Measured: 3e-15.
const FORWARD: f64 = 1e-9;
/// Of a gradient's norm, sum and first elements, relative to its norm: sums of many elements that
/// cancel have the error of these, not of themselves. Measured: 5e-14.
const BACKWARD: f64 = 1e-7;

#[derive(Deserialize)]
struct Golden {
    pad: usize,
    src: Vec<Vec<usize>>,
    tgt: Vec<Vec<usize>>,
    loss: f64,
    logits: Vec<f64>,
    logits_l2: f64,
    num_params: usize,
    params: Vec<Param>,
}

#[derive(Deserialize)]
struct Param {
    k: usize,
    name: String,
    shape: Vec<usize>,
    grad_l2: f64,
    grad_sum: f64,
    grad_head: Vec<f64>,
}

type Model = Seq2SeqTransformer<50, 60, 32, 8, 64, 3, 3, f64, Cpu>;

fn names() -> Names {
    Names::torch_transformer()
        .prefix("src_embedding.", "src_emb.")
        .prefix("tgt_embedding.", "tgt_emb.")
        .prefix("encoder.", "tr.encoder.")
        .prefix("decoder.", "tr.decoder.")
        .prefix("generator.", "gen.")
}

/// The weights by the formula in the file, as a checkpoint.
fn weights(params: &[Param]) -> Vec<u8> {
    let values: Vec<Vec<u8>> = params
        .iter()
        .map(|param| {
            let len: usize = param.shape.iter().product();
            let value = |index: usize| {
                let s = (0.7 * index as f64 + param.k as f64).sin();
                match param.shape.len() {
                    1 if param.name.ends_with(".weight") => 1.0 + 0.1 * s,
                    1 => 0.1 * s,
                    _ if param.name.contains("_emb.") => s,
                    _ => (2.0 * param.shape[0] as f64 / len as f64).sqrt() * s,
                }
            };
            (0..len).flat_map(|index| value(index).to_le_bytes()).collect()
        })
        .collect();
    let views = params.iter().zip(&values).map(|(param, values)| {
        (&param.name, TensorView::new(Stored::F64, param.shape.clone(), values).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// Each gradient by where its parameter is in a file.
struct Collect<'a> {
    gradients: &'a Gradients<f64, Cpu>,
    found: BTreeMap<Location, Vec<f64>>,
}

impl TensorVisitor<f64, Cpu> for Collect<'_> {
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = Infallible;
    type E2 = f64;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, f64, Cpu>,
        (tensor, name): (&Tensor<S, f64, Cpu>, String),
    ) -> Result<Option<Tensor<S, f64, Cpu>>, Infallible> {
        self.found.insert(names().location(&name), self.gradients.get(tensor).as_vec());
        Ok(None)
    }
}

fn close(what: &str, ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() <= tolerance, "{what}: {ours} for {theirs}");
}

// Fails for any difference in masks, positions, scales, norms, order of branches or packing.
#[test]
fn as_pytorch() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let dev = Cpu::default();
    let mut model = Model::build(&dev);
    model.set_dropout(DropoutRate::NONE);
    assert_eq!(model.num_trainable_params(), golden.num_params);
    assert_eq!(model.pad.0, golden.pad);
    weights::load_bytes(&mut model, &weights(&golden.params), &names()).unwrap();

    let batch = |sentences: &[Vec<usize>]| {
        let sentences: Vec<&[usize]> = sentences.iter().map(Vec::as_slice).collect();
        padded(&dev, &sentences, golden.pad).unwrap()
    };
    let (source, target) = (batch(&golden.src), batch(&golden.tgt));
    let (input, labels) = shifted(&target).unwrap();
    let evaluated = model.forward((source.clone(), input.clone())).as_vec();
    let logits = model.forward_mut((source.traced(model.alloc_grads()), input));
    assert_eq!(logits.shape(), &(2, 5, Const));
    let values = logits.as_vec();
    assert_eq!(values, evaluated);
    for (index, (ours, theirs)) in values.iter().zip(&golden.logits).enumerate() {
        close(&format!("logit {index}"), *ours, *theirs, FORWARD);
    }
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    close("logits", norm(&values), golden.logits_l2, FORWARD * golden.logits_l2);

    let loss = model.try_loss(logits, &labels).unwrap();
    close("loss", loss.array(), golden.loss, FORWARD);

    let gradients = loss.backward();
    let mut collect = Collect { gradients: &gradients, found: BTreeMap::new() };
    let walker = &mut RecursiveWalker { m: (&model, String::new()), f: &mut collect };
    let Ok(_) = Model::iter_tensors(walker);
    let mut gradients: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    // The parts of a packed tensor in their order.
    for (source, gradient) in collect.found {
        gradients.entry(source.name).or_default().extend(gradient);
    }
    assert_eq!(gradients.len(), golden.params.len());
    for param in &golden.params {
        let ours = &gradients[&param.name];
        let tolerance = BACKWARD * param.grad_l2;
        close(&param.name, norm(ours), param.grad_l2, tolerance);
        close(&param.name, ours.iter().sum(), param.grad_sum, tolerance);
        for (ours, theirs) in ours.iter().zip(&param.grad_head) {
            close(&param.name, *ours, *theirs, tolerance);
        }
    }
}
