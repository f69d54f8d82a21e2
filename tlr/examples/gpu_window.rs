//! The update at the end of a window on a GPU, beside a copy on the same GPU: which share of its
//! bandwidth the update has.
//!
//! ```text
//! cargo run --release -p tlr --features cuda --example gpu_window
//! ```

use dfdx::{
    optim::{Optimizer, OptimizerUpdateError},
    prelude::*,
    tensor::{Storage, Synchronize},
};
use std::{error::Error, hint::black_box, io::Write, time::Instant};
use tlr::{Newton, NewtonConfig, TunableOptimizer, Window};

/// Parameters, all of one tensor.
const N: usize = 25_000_000;
type Weights = Tensor<Rank1<N>, f32, Cuda>;

/// Leaves the weights where they are, so that nothing but the window's update is timed.
struct Still(f64);

impl TunableOptimizer for Still {
    type Model = Weights;
    type Dtype = f32;
    type Device = Cuda;

    fn rate(&self, _group: usize) -> f64 {
        self.0
    }

    fn set_rate(&mut self, _group: usize, rate: f64) {
        self.0 = rate;
    }

    fn reset(&mut self, _model: &Weights) {}
}

impl Optimizer<Weights, Cuda, f32> for Still {
    fn update(
        &mut self,
        _model: &mut Weights,
        _gradients: &Gradients<f32, Cuda>,
    ) -> Result<(), OptimizerUpdateError<CudaError>> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dev = Cuda::default();
    dev.enable_cache();
    let mut model: Weights = dev.zeros();
    let config = NewtonConfig::default().window(Window::steps(1)?).climb(None);
    let mut newton = Newton::new(&model, Still(0.1), config)?;
    let gradients = Gradients::leaky();
    let buffer = Storage::<f32>::try_alloc_len(&dev, N).map_err(|error| error.to_string())?;

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
        (median * 1e3, passes * size_of::<f32>() as f64 * N as f64 / median / 1e9)
    });
    writeln!(
        std::io::stdout(),
        "{N} parameters: update {:.3} ms, {:.0} GB/s; copy {:.3} ms, {:.0} GB/s; share {:.2}",
        update.0,
        update.1,
        copy.0,
        copy.1,
        update.1 / copy.1
    )?;
    Ok(())
}
