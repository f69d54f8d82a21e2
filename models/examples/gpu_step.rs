//! A training step of image networks on a GPU: how long its parts take.
//!
//! ```text
//! cargo run --release -p tlr-models --no-default-features --features cuda --example gpu_step
//! ... --example gpu_step wrn-16-4 256       # one of them, on batches of 256
//! ```

use dfdx::{
    losses::cross_entropy_with_logits_loss, nn::ModuleMut, optim::Sgd, prelude::*,
    tensor::Synchronize,
};
use std::{error::Error, io::Write, time::Instant};
use tlr_models::{
    layers::{LayerError, Planes, Rows},
    resnet::{ResNet50, Wrn16x1, Wrn16x4},
};

type Taped = OwnedTape<f32, Cuda>;
type Images = Planes<usize, 3, usize, usize, f32, Cuda, Taped>;

/// Median milliseconds of forward pass, backward pass, update, and of all without waiting between.
fn step<const CLASSES: usize, M>(
    dev: &Cuda,
    mut net: M,
    batch: usize,
    side: usize,
) -> Result<[f64; 4], Box<dyn Error>>
where
    M: TensorCollection<f32, Cuda>
        + ModuleMut<
            Images,
            Output = Rows<usize, CLASSES, f32, Cuda, Taped>,
            Error = LayerError<CudaError>,
        >,
{
    let x: Planes<usize, 3, usize, usize, f32, Cuda, NoneTape> =
        dev.sample_like(&(batch, Const, side, side), rand_distr::StandardNormal);
    let label = |at: usize| if at % CLASSES == at / CLASSES % CLASSES { 1.0 } else { 0.0 };
    let labels = (0..batch * CLASSES).map(label).collect();
    let labels = dev.tensor_from_vec(labels, (batch, Const::<CLASSES>));
    let mut sgd = Sgd::new(&net, Default::default());
    let mut times = [const { Vec::new() }; 4];
    // The first rounds compile kernels and find memory.
    for round in 0..30 {
        let waits = round % 2 == 0;
        let mut last = Instant::now();
        let start = last;
        let mut lap = |part: usize| {
            if waits {
                dev.synchronize();
                if round >= 10 {
                    times[part].push(last.elapsed().as_secs_f64());
                }
                last = Instant::now();
            }
        };
        let traced = x.clone().traced(net.alloc_grads());
        let logits = net.try_forward_mut(traced).map_err(|error| error.to_string())?;
        let loss = cross_entropy_with_logits_loss(logits, labels.clone());
        lap(0);
        let gradients = loss.try_backward().map_err(|error| error.to_string())?;
        lap(1);
        sgd.update(&mut net, &gradients).map_err(|error| format!("{error:?}"))?;
        lap(2);
        if !waits {
            dev.synchronize();
            if round >= 10 {
                times[3].push(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        1e3 * times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    let batch = arguments.next().map(|batch| batch.parse()).transpose()?;
    let dev = Cuda::default();
    dev.enable_cache();
    let mut out = std::io::stdout();
    writeln!(out, "| net, batch | forward, ms | backward, ms | update, ms | a step, ms |")?;
    writeln!(out, "| --- | ---: | ---: | ---: | ---: |")?;
    for name in ["wrn-16-1", "wrn-16-4", "resnet-50"] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let size = batch.unwrap_or(if name == "resnet-50" { 32 } else { 128 });
        let [forward, backward, update, all] = match name {
            "wrn-16-1" => step::<10, _>(&dev, Wrn16x1::<10, f32, Cuda>::build(&dev), size, 32)?,
            "wrn-16-4" => step::<10, _>(&dev, Wrn16x4::<10, f32, Cuda>::build(&dev), size, 32)?,
            _ => step::<1000, _>(&dev, ResNet50::<1000, f32, Cuda>::build(&dev), size, 224)?,
        };
        writeln!(
            out,
            "| {name}, {size} | {forward:.2} | {backward:.2} | {update:.2} | {all:.2} |"
        )?;
    }
    Ok(())
}
