//! Training steps on a GPU, to be timed.
//!
//! ```text
//! cargo run --release -p tlr-models --no-default-features --features cuda --example gpu_step
//! ... gpu_step NAME BATCH                    # the parts of one network's step
//! ... gpu_step NAME BATCH STEPS f16          # benches/gpu.py starts it like this
//! ... gpu_step NAME BATCH STEPS f32 read
//! ```
//!
//! With STEPS it answers each line on stdin: it takes so many steps without waiting in between,
//! and prints the milliseconds of a step and the bytes that are free on the GPU. With `read` it
//! reads each step's loss, and waits for it, as training does; the perceptron always does.

use cudarc::driver::result::mem_get_info;
use dfdx::{losses::cross_entropy_with_logits_loss, optim::SgdConfig, prelude::*};
use dfdx::{nn::ModuleMut, tensor::Synchronize};
use num_traits::Float;
use rand_distr::uniform::SampleUniform;
use std::{error::Error, io::Write, time::Instant};
use tlr::{optim::Sgd, Backend, Newton, NewtonConfig, TensorCollection, TunableOptimizer, Window};
use tlr_models::{
    layers::{LayerError, Planes, Rows, SequenceKernels},
    resnet::{ResNet50, Wrn16x1, Wrn16x4},
    shifted, Mlp, Seq2Seq,
};

type Failed = Box<dyn Error>;
type Taped<E> = OwnedTape<E, Cuda>;
type Loss<E> = Tensor<Rank0, E, Cuda, Taped<E>>;
/// Calls its argument after the forward pass with 0, after the backward pass with 1, and after the
/// update with 2.
type Step = Box<dyn FnMut(&mut dyn FnMut(usize)) -> Result<(), Failed>>;

/// The networks, and the batches that are usual for them.
const NETS: [(&str, usize); 6] = [
    ("perceptron", 128),
    ("perceptron-newton", 128),
    ("wrn-16-1", 128),
    ("wrn-16-4", 128),
    ("resnet-50", 32),
    ("transformer", 128),
];

/// Words in each vocabulary, and in a sentence.
const WORDS: usize = 2_000;
const LENGTH: usize = 20;

fn failed(error: impl std::fmt::Debug) -> Failed {
    format!("{error:?}").into()
}

/// `len` values that repeat after some thousand and have a mean of about 0.
fn values<E: Dtype>(len: usize) -> Vec<E> {
    (0..len).map(|at| E::from_f64((at as f64 * 0.7).sin()).unwrap_or_default()).collect()
}

/// One class for each row.
fn labels<E: Dtype, const CLASSES: usize>(
    dev: &Cuda,
    rows: usize,
) -> Tensor<(usize, Const<CLASSES>), E, Cuda>
where
    Cuda: Device<E>,
{
    let label =
        |at: usize| if at % CLASSES == at / CLASSES % CLASSES { E::ONE } else { E::default() };
    dev.tensor_from_vec((0..rows * CLASSES).map(label).collect(), (rows, Const))
}

/// Steps of a model: `forward` is from the model to the loss, `update` moves it. Whether the loss
/// is read is for `update` to decide, after the backward pass has begun.
fn steps<E, M>(
    mut model: M,
    mut forward: impl FnMut(&mut M, Gradients<E, Cuda>) -> Result<Loss<E>, Failed> + 'static,
    mut update: impl FnMut(&mut M, &mut Gradients<E, Cuda>, &dyn Fn() -> f64) -> Result<(), Failed>
        + 'static,
) -> Step
where
    E: Dtype,
    Cuda: Backend<E>,
    M: TensorCollection<E, Cuda> + 'static,
{
    let mut kept = Some(model.alloc_grads());
    Box::new(move |lap| {
        let gradients = kept.take().unwrap_or_else(|| model.alloc_grads());
        let loss = forward(&mut model, gradients)?;
        lap(0);
        let value = loss.with_empty_tape();
        let mut gradients = loss.try_backward().map_err(failed)?;
        lap(1);
        let read = || value.array().to_f64().unwrap_or(f64::NAN);
        update(&mut model, &mut gradients, &read)?;
        model.try_zero_grads(&mut gradients).map_err(failed)?;
        lap(2);
        kept = Some(gradients);
        Ok(())
    })
}

/// Steps of a model from an input to logits, on one batch.
fn classify<X, E, M, const CLASSES: usize>(
    dev: &Cuda,
    model: M,
    x: X,
    rows: usize,
    update: impl FnMut(&mut M, &mut Gradients<E, Cuda>, &dyn Fn() -> f64) -> Result<(), Failed>
        + 'static,
) -> Step
where
    E: Dtype,
    Cuda: Backend<E>,
    X: Trace<E, Cuda> + Clone + 'static,
    M: TensorCollection<E, Cuda>
        + ModuleMut<X::Traced, Output = Rows<usize, CLASSES, E, Cuda, Taped<E>>>
        + 'static,
    M::Error: std::fmt::Debug,
{
    let labels = labels::<E, CLASSES>(dev, rows);
    let forward = move |model: &mut M, gradients| {
        let logits = model.try_forward_mut(x.clone().traced(gradients)).map_err(failed)?;
        Ok(cross_entropy_with_logits_loss(logits, labels.clone()))
    };
    steps(model, forward, update)
}

/// Plain SGD, which reads the loss or not.
fn sgd<E, M>(
    model: &M,
    reads: bool,
) -> impl FnMut(&mut M, &mut Gradients<E, Cuda>, &dyn Fn() -> f64) -> Result<(), Failed> + 'static
where
    E: Dtype,
    Cuda: Backend<E>,
    M: TensorCollection<E, Cuda> + Clone + 'static,
{
    let mut sgd = Sgd::new(model, SgdConfig { lr: 1e-3, ..Default::default() });
    move |model, gradients, loss| {
        if reads {
            loss();
        }
        sgd.update_owned(model, gradients).map_err(failed)
    }
}

fn image_net<E, M, const CLASSES: usize>(
    dev: &Cuda,
    model: M,
    [batch, side]: [usize; 2],
    reads: bool,
) -> Step
where
    E: Dtype,
    Cuda: Backend<E>,
    M: TensorCollection<E, Cuda>
        + ModuleMut<
            Planes<usize, 3, usize, usize, E, Cuda, Taped<E>>,
            Output = Rows<usize, CLASSES, E, Cuda, Taped<E>>,
            Error = LayerError<CudaError>,
        > + Clone
        + 'static,
{
    let x: Planes<usize, 3, usize, usize, E, Cuda, NoneTape> =
        dev.tensor_from_vec(values(batch * 3 * side * side), (batch, Const, side, side));
    let update = sgd(&model, reads);
    classify::<_, _, _, CLASSES>(dev, model, x, batch, update)
}

/// The perceptron of MNIST, with a learned rate or without. A learned rate needs the loss, which
/// is read in either case, as a training loop reads it.
fn perceptron<E>(dev: &Cuda, batch: usize, learned: bool) -> Result<Step, Failed>
where
    E: Dtype + Float + SampleUniform,
    Cuda: Backend<E> + SequenceKernels<E>,
{
    let model = Mlp::<784, 1000, 10, E, Cuda>::build(dev);
    let x: Rows<usize, 784, E, Cuda, NoneTape> =
        dev.tensor_from_vec(values(batch * 784), (batch, Const));
    if !learned {
        let update = sgd(&model, true);
        return Ok(classify::<_, _, _, 10>(dev, model, x, batch, update));
    }
    let config = NewtonConfig::default().window(Window::steps(94)?).ramp(false);
    let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    let mut newton = Newton::new(&model, sgd, config)?;
    Ok(classify::<_, _, _, 10>(dev, model, x, batch, move |model, gradients, loss| {
        newton.step_owned(model, gradients, loss())?;
        newton.take_history();
        Ok(())
    }))
}

fn transformer<E>(dev: &Cuda, batch: usize, reads: bool) -> Result<Step, Failed>
where
    E: Dtype + Float + SampleUniform,
    Cuda: Backend<E> + SequenceKernels<E>,
{
    let model = Seq2Seq::<WORDS, WORDS, E, Cuda>::build(dev);
    let sentences = |more: usize| {
        let ids = (0..batch * (LENGTH + more)).map(|at| 2 + at * 7 % (WORDS - 2)).collect();
        dev.tensor_from_vec(ids, (batch, LENGTH + more))
    };
    let (source, target) = (sentences(0), sentences(1));
    let (input, labels) = shifted(&target).map_err(failed)?;
    let update = sgd(&model, reads);
    let forward = move |model: &mut Seq2Seq<WORDS, WORDS, E, Cuda>, gradients| {
        let logits = model.try_forward_mut((source.clone().traced(gradients), input.clone()));
        model.try_loss(logits.map_err(failed)?, &labels).map_err(failed)
    };
    Ok(steps(model, forward, update))
}

fn net<E>(dev: &Cuda, name: &str, batch: usize, reads: bool) -> Result<Step, Failed>
where
    E: Dtype + Float + SampleUniform,
    Cuda: Backend<E> + SequenceKernels<E>,
{
    Ok(match name {
        "perceptron" => perceptron::<E>(dev, batch, false)?,
        "perceptron-newton" => perceptron::<E>(dev, batch, true)?,
        "wrn-16-1" => {
            image_net::<E, _, 10>(dev, Wrn16x1::<10, E, Cuda>::build(dev), [batch, 32], reads)
        }
        "wrn-16-4" => {
            image_net::<E, _, 10>(dev, Wrn16x4::<10, E, Cuda>::build(dev), [batch, 32], reads)
        }
        "resnet-50" => {
            image_net::<E, _, 1000>(dev, ResNet50::<1000, E, Cuda>::build(dev), [batch, 224], reads)
        }
        "transformer" => transformer::<E>(dev, batch, reads)?,
        other => return Err(format!("there is no network {other}").into()),
    })
}

/// Median milliseconds of forward pass, backward pass, and update.
fn parts(dev: &Cuda, step: &mut Step) -> Result<[f64; 3], Failed> {
    let mut times = [const { Vec::new() }; 3];
    // The first rounds compile kernels and find memory.
    for round in 0..20 {
        dev.synchronize();
        let mut last = Instant::now();
        step(&mut |part| {
            dev.synchronize();
            if round >= 10 {
                times[part].push(last.elapsed().as_secs_f64());
            }
            last = Instant::now();
        })?;
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        1e3 * times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    }))
}

/// Milliseconds of a step, if none waits for the one before.
fn in_a_row(dev: &Cuda, step: &mut Step, steps: usize) -> Result<f64, Failed> {
    dev.synchronize();
    let start = Instant::now();
    (0..steps).try_for_each(|_| step(&mut |_| ()))?;
    dev.synchronize();
    Ok(start.elapsed().as_secs_f64() * 1e3 / steps as f64)
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<usize>()).transpose();
    let (batch, steps) = (number(1)?, number(2)?);
    let dev = Cuda::default();
    dev.enable_cache();
    let mut out = std::io::stdout();
    if let (Some(name), Some(batch), Some(steps)) = (arguments.first(), batch, steps) {
        let reads = arguments.get(4).is_some_and(|word| word == "read");
        let mut step = match arguments.get(3).map(String::as_str) {
            None | Some("f32") => net::<f32>(&dev, name, batch, reads)?,
            #[cfg(feature = "f16")]
            Some("f16") => net::<dfdx::dtypes::f16>(&dev, name, batch, reads)?,
            Some(other) => return Err(format!("{other}: f32, or f16 with this feature").into()),
        };
        for line in std::io::stdin().lines() {
            line?;
            let milliseconds = in_a_row(&dev, &mut step, steps)?;
            let (free, _) = mem_get_info().map_err(failed)?;
            writeln!(out, "{milliseconds} {free}")?;
            out.flush()?;
        }
        return Ok(());
    }
    writeln!(out, "| net, batch | forward, ms | backward, ms | update, ms | a step, ms |")?;
    writeln!(out, "| --- | ---: | ---: | ---: | ---: |")?;
    for (name, usual) in NETS {
        if arguments.first().is_some_and(|only| only != name) {
            continue;
        }
        let size = batch.unwrap_or(usual);
        let mut step = net::<f32>(&dev, name, size, false)?;
        let [forward, backward, update] = parts(&dev, &mut step)?;
        let all = in_a_row(&dev, &mut step, 10)?;
        writeln!(
            out,
            "| {name}, {size} | {forward:.2} | {backward:.2} | {update:.2} | {all:.2} |"
        )?;
    }
    Ok(())
}
