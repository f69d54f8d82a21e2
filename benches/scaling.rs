//! What several ranks take to average their gradients, and what a step of theirs takes.
//!
//! ```text
//! cargo bench --features mpi --bench scaling --no-run
//! python3 benches/scaling.py        # starts it with 1, 2 and 4 ranks, and fits a model
//! ```

use clap::Parser;
use dfdx::{
    losses::cross_entropy_with_logits_loss,
    optim::{Optimizer, OptimizerUpdateError, SgdConfig},
    prelude::*,
};
use std::{error::Error, io::Write, time::Instant};
use tlr::{
    optim::Sgd,
    parallel::{Compression, Mpi, Ranks},
    DataParallel, Newton, NewtonConfig, TunableOptimizer,
};
use tlr_models::Mlp;

#[derive(Parser)]
struct Args {
    /// Numbers of a gradient: 2, 800000, 4000000, 4194304 or 25000000, about
    #[arg(long, default_value_t = 800_000)]
    elements: usize,
    /// 4194304 numbers as 16 averages of 262144, in place of one
    #[arg(long)]
    one_at_a_time: bool,
    /// Numbers of a bucket
    #[arg(long, default_value_t = 1 << 18)]
    bucket: usize,
    /// In 16 bits
    #[arg(long)]
    bf16: bool,
    /// Steps of the perceptron 784-1000-10 with so many examples on each rank, in place of averages
    #[arg(long)]
    examples: Option<usize>,
    /// The fastest counts: others may use the machine
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Outcome = Result<(), Box<dyn Error>>;

/// Leaves the weights where they are, so that nothing but the average is timed.
struct Still<M>(std::marker::PhantomData<M>);

impl<M: TensorCollection<f32, Cpu> + Clone> TunableOptimizer for Still<M> {
    type Model = M;
    type Dtype = f32;
    type Device = Cpu;

    fn rate(&self, _group: usize) -> f64 {
        1.0
    }

    fn set_rate(&mut self, _group: usize, _rate: f64) {}

    fn reset(&mut self, _model: &M) {}
}

impl<M: TensorCollection<f32, Cpu>> Optimizer<M, Cpu, f32> for Still<M> {
    fn update(
        &mut self,
        _model: &mut M,
        _gradients: &Gradients<f32, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        Ok(())
    }
}

fn main() -> Outcome {
    let args = Args::parse();
    let ranks = Ranks::new(Mpi::new()?);
    let dev = Cpu::seed_from_u64(0);
    dev.enable_cache();
    // As many threads as there are: one for each rank.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let (elements, times) = match (args.examples, args.elements) {
        (Some(examples), _) => step(&args, &ranks, &dev, examples)?,
        _ if args.one_at_a_time => {
            average(&args, &ranks, [(); 16].map(|()| dev.build_module::<Linear<511, 512>, f32>()))?
        }
        (_, ..1000) => average(&args, &ranks, [dev.build_module::<Linear<1, 1>, f32>()])?,
        (_, ..2_000_000) => average(&args, &ranks, [dev.build_module::<Linear<890, 890>, f32>()])?,
        (_, ..4_100_000) => {
            average(&args, &ranks, [dev.build_module::<Linear<2000, 2000>, f32>()])?
        }
        (_, ..10_000_000) => {
            average(&args, &ranks, [dev.build_module::<Linear<2047, 2048>, f32>()])?
        }
        _ => average(&args, &ranks, [dev.build_module::<Linear<5000, 5000>, f32>()])?,
    };
    let before = ranks.traffic();
    if ranks.is_first() {
        let rounds = (args.rounds + 1) as f64;
        let (bytes, messages) = (before.bytes as f64 / rounds, before.messages as f64 / rounds);
        let waited = before.waited.as_secs_f64() * 1e3 / rounds;
        writeln!(
            std::io::stdout(),
            "{{\"ranks\":{},\"elements\":{elements},\"bucket\":{},\"ms\":{:.4},\
             \"bytes\":{bytes:.0},\"messages\":{messages:.1},\"waited_ms\":{waited:.4}}}",
            ranks.size(),
            args.bucket,
            fastest(times),
        )?;
    }
    Ok(())
}

fn fastest(times: Vec<f64>) -> f64 {
    times.into_iter().fold(f64::NAN, f64::min)
}

fn together<Opt: TunableOptimizer<Dtype = f32, Device = Cpu>>(
    args: &Args,
    ranks: &Ranks<Mpi>,
    inner: Opt,
) -> Result<DataParallel<Opt, Mpi>, tlr::Error> {
    let compression = if args.bf16 { Compression::Bf16 } else { Compression::None };
    DataParallel::new(inner, ranks.clone()).compression(compression).bucket(args.bucket)
}

/// The number of elements, and milliseconds of the averages of all models, one after the other.
fn average<M, const N: usize>(
    args: &Args,
    ranks: &Ranks<Mpi>,
    models: [M; N],
) -> Result<(usize, Vec<f64>), Box<dyn Error>>
where
    M: TensorCollection<f32, Cpu> + NumParams<f32, Cpu> + ZeroGrads<f32, Cpu> + Clone,
{
    let mut all = Vec::new();
    for model in models {
        let optimizer = together(args, ranks, Still(std::marker::PhantomData))?;
        all.push((model.alloc_grads(), model, optimizer));
    }
    let mut times = Vec::new();
    for round in 0..=args.rounds {
        ranks.wait_for_all()?;
        let begun = Instant::now();
        for (gradients, model, optimizer) in &mut all {
            optimizer.update_owned(model, gradients)?;
        }
        // The first one makes its buffers.
        if round > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok((all.iter().map(|(_, model, _)| model.num_trainable_params()).sum(), times))
}

/// The same of whole steps, forward and backward.
fn step(
    args: &Args,
    ranks: &Ranks<Mpi>,
    dev: &Cpu,
    examples: usize,
) -> Result<(usize, Vec<f64>), Box<dyn Error>> {
    type Net = Mlp<784, 1000, 10, f32, Cpu>;
    let mut model = Net::build(dev);
    let sgd = Sgd::new(&model, SgdConfig { lr: 1e-3, ..Default::default() });
    let optimizer = together(args, ranks, sgd)?;
    let mut opt = Newton::new(&model, optimizer, NewtonConfig::default().ramp(false))?;
    let x: Tensor<(usize, Const<784>), f32, _> = dev.sample_normal_like(&(examples, Const));
    let labels =
        (0..examples).flat_map(|row| (0..10).map(move |c| f32::from(u8::from(row % 10 == c))));
    let y = dev.tensor_from_vec(labels.collect(), (examples, Const::<10>));
    let mut gradients = model.alloc_grads();
    let mut times = Vec::new();
    for round in 0..=args.rounds {
        ranks.wait_for_all()?;
        let begun = Instant::now();
        let loss = cross_entropy_with_logits_loss(model.forward_mut(x.trace(gradients)), y.clone());
        let value = loss.array();
        gradients = loss.backward();
        opt.step_owned(&mut model, &mut gradients, value)?;
        model.zero_grads(&mut gradients);
        if round > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok((model.num_trainable_params(), times))
}
