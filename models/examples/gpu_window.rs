//! The update at the end of a window on a GPU, beside a copy on the same GPU: which share of its
//! bandwidth the update has.
//!
//! ```text
//! cargo run --release -p tlr-models --no-default-features --features cuda --example gpu_window
//! ```

use dfdx::{
    optim::{Optimizer, OptimizerUpdateError},
    prelude::*,
    tensor::{Storage, Synchronize},
};
use std::{error::Error, hint::black_box, io::Write, marker::PhantomData, time::Instant};
use tlr::{Newton, NewtonConfig, TensorCollection, TunableOptimizer, Window};
use tlr_models::resnet::ResNet50;

/// Weights of one tensor.
const N: usize = 25_000_000;

/// Leaves the weights where they are, so that nothing but the window's update is timed.
struct Still<M>(f64, PhantomData<M>);

impl<M: TensorCollection<f32, Cuda> + Clone> TunableOptimizer for Still<M> {
    type Model = M;
    type Dtype = f32;
    type Device = Cuda;

    fn rate(&self, _group: usize) -> f64 {
        self.0
    }

    fn set_rate(&mut self, _group: usize, rate: f64) {
        self.0 = rate;
    }

    fn reset(&mut self, _model: &M) {}
}

impl<M: TensorCollection<f32, Cuda> + Clone> Optimizer<M, Cuda, f32> for Still<M> {
    fn update(
        &mut self,
        _model: &mut M,
        _gradients: &Gradients<f32, Cuda>,
    ) -> Result<(), OptimizerUpdateError<CudaError>> {
        Ok(())
    }
}

/// Times the two in turns, and prints a line.
fn compare<M>(dev: &Cuda, mut model: M, name: &str) -> Result<(), Box<dyn Error>>
where
    M: TensorCollection<f32, Cuda> + Clone,
{
    let count = model.num_trainable_params();
    let config = NewtonConfig::default().window(Window::steps(1)?).climb(None);
    let config = config.ramp(false).settle(false).safeguard(None);
    let mut newton = Newton::new(&model, Still(0.1, PhantomData), config)?;
    let gradients = Gradients::leaky();
    let buffer = Storage::<f32>::try_alloc_len(dev, count).map_err(|error| error.to_string())?;

    let (mut updates, mut copies) = (Vec::new(), Vec::new());
    // The first rounds compile the kernel and find memory.
    for _ in 0..25 {
        let start = Instant::now();
        newton.update(&mut model, &gradients)?;
        dev.synchronize();
        updates.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        black_box(buffer.clone());
        dev.synchronize();
        copies.push(start.elapsed().as_secs_f64());
    }
    // Three are read and one is written; one and one.
    let [update, copy] = [(updates, 4.0), (copies, 2.0)].map(|(mut seconds, passes)| {
        seconds.drain(..5);
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        (median * 1e3, passes * size_of::<f32>() as f64 * count as f64 / median / 1e9)
    });
    writeln!(
        std::io::stdout(),
        "{name}: update {:.3} ms, {:.0} GB/s; copy {:.3} ms, {:.0} GB/s; share {:.2}",
        update.0,
        update.1,
        copy.0,
        copy.1,
        update.1 / copy.1
    )?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dev = Cuda::default();
    dev.enable_cache();
    let one: Tensor<Rank1<N>, f32, Cuda> = dev.zeros();
    compare(&dev, one, "25,000,000 weights, one tensor")?;
    let many = ResNet50::<1000, f32, Cuda>::build(&dev);
    compare(&dev, many, "ResNet-50, 25,557,032 weights, 161 tensors")
}
