//! The update at the end of a window: what it costs beside a loop that only moves the same bytes,
//! and beside the same update written with dfdx's tensor operations. And what it costs to take a
//! slope.
//!
//! ```text
//! cargo bench --bench window                               # 1 k to 100 M parameters
//! cargo bench --bench window -- --elements 25000000 --json # one size, for benches/window.py
//! ```

use clap::Parser;
use dfdx::{
    optim::{Optimizer, OptimizerUpdateError},
    prelude::*,
};
use rayon::prelude::*;
use std::{error::Error, hint::black_box, io::Write, marker::PhantomData, time::Instant};
use tlr::{Newton, NewtonConfig, Step, TunableOptimizer, Window};

#[derive(Parser)]
struct Args {
    /// Only this many parameters, in one tensor
    #[arg(long)]
    elements: Option<usize>,
    /// Of each, in turns; the median counts
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Keep the direction in bfloat16, and not the snapshot before the last
    #[arg(long)]
    bf16_directions: bool,
    /// Milliseconds of the update, one line a size
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Outcome = Result<(), Box<dyn Error>>;
type Weights<E, const N: usize> = Tensor<Rank1<N>, E, Cpu>;

/// Leaves the weights where they are, so that nothing but the window's update or the slope is
/// timed.
#[derive(Clone)]
struct Still<E, const N: usize> {
    rate: f64,
    marker: PhantomData<E>,
}

impl<E: Dtype, const N: usize> TunableOptimizer for Still<E, N>
where
    Cpu: Device<E>,
{
    type Model = Weights<E, N>;
    type Dtype = E;
    type Device = Cpu;

    fn rate(&self, _group: usize) -> f64 {
        self.rate
    }

    fn set_rate(&mut self, _group: usize, rate: f64) {
        self.rate = rate;
    }

    fn reset(&mut self, _model: &Weights<E, N>) {}
}

impl<E: Dtype, const N: usize> Optimizer<Weights<E, N>, Cpu, E> for Still<E, N>
where
    Cpu: Device<E>,
{
    fn update(
        &mut self,
        _model: &mut Weights<E, N>,
        _gradients: &Gradients<E, Cpu>,
    ) -> Result<(), OptimizerUpdateError<CpuError>> {
        Ok(())
    }
}

fn main() -> Outcome {
    let args = Args::parse();
    if !args.json {
        let mut out = std::io::stdout();
        writeln!(out, "{} threads", rayon::current_num_threads())?;
        writeln!(
            out,
            "| parameters | | update, ms | loop, ms | ratio | GB/s | dfdx, ms | ratio | slope, ms \
             | of the update |"
        )?;
        writeln!(out, "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    }
    // As one of the threads that share the work, like a training loop.
    Ok(rayon::scope(|_| sizes(&args).map_err(|error| error.to_string()))?)
}

fn sizes(args: &Args) -> Outcome {
    of_size::<1_000>(args)?;
    of_size::<100_000>(args)?;
    of_size::<1_000_000>(args)?;
    of_size::<25_000_000>(args)?;
    of_size::<100_000_000>(args)
}

fn of_size<const N: usize>(args: &Args) -> Outcome {
    if args.elements.is_some_and(|elements| elements != N) {
        return Ok(());
    }
    measure::<f32, N>("f32", args)?;
    measure::<f64, N>("f64", args)
}

fn measure<E: Dtype, const N: usize>(name: &str, args: &Args) -> Outcome
where
    Cpu: Device<E>,
{
    let dev = Cpu::default();
    dev.enable_cache();
    let value = |index: usize| E::from_f64((index % 251) as f64 * 1e-3).unwrap_or_default();
    let weights: Vec<E> = (0..N).map(value).collect();
    let mut model: Weights<E, N> = dev.tensor_from_vec(weights.clone(), (Const,));
    let still = Still { rate: 0.1, marker: PhantomData };
    // Weights that stay where they are look like a rate that is still to climb, whose windows are
    // looked at more closely.
    let ramping = NewtonConfig::default().climb(None).bf16_directions(args.bf16_directions);
    let config = ramping.window(Window::steps(1)?).ramp(false).settle(false).safeguard(None);
    let mut newton = Newton::new(&model, still.clone(), config)?;
    let gradients = Gradients::leaky();
    let mut same = model.clone();
    let mut ours = || -> Outcome {
        newton.update(&mut same, &gradients)?;
        newton.take_history();
        Ok(())
    };

    // A step of the ramp takes a slope, and does nothing else that takes time.
    let mut newton = Newton::new(&model, still, ramping)?;
    let mut gradients = model.alloc_grads();
    let mut slope = || -> Outcome {
        match newton.step_owned(&mut model, &mut gradients, 1.0)? {
            Step::Ramped { .. } => Ok(()),
            step => Err(format!("{step:?} is no step of the ramp").into()),
        }
    };

    // Of weights, snapshot and direction three are read and two written.
    let (mut snapshot, mut direction) = (weights.clone(), weights.clone());
    let mut bytes = || {
        const CHUNK: usize = 1 << 15;
        snapshot
            .par_chunks_mut(CHUNK)
            .zip(direction.par_chunks_mut(CHUNK))
            .zip(weights.par_chunks(CHUNK))
            .for_each(|((snapshot, direction), weights)| {
                for ((b, d), w) in snapshot.iter_mut().zip(direction).zip(weights) {
                    *d = *b - *w - *d;
                    *b = *w;
                }
            });
    };

    let mut dfdx = dfdx_update::<E, N>(&dev);
    let with_dfdx = N <= 25_000_000;

    // Once each, so that all memory is there.
    ours()?;
    ours()?;
    slope()?;
    slope()?;
    bytes();
    if with_dfdx {
        dfdx();
    }
    let calls = (2_000_000 / N).clamp(1, 1000);
    // A ramp that learns nothing ends after 4000 steps.
    let slopes = calls.min(3000 / args.rounds.max(1)).max(1);
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..args.rounds {
        times[0].push(time(calls, &mut ours)?);
        if !args.json {
            times[1].push(time(calls, always(&mut bytes))?);
            times[2].push(if with_dfdx { time(calls, always(&mut dfdx))? } else { f64::NAN });
            times[3].push(time(slopes, &mut slope)?);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let [ours, bytes, dfdx, slope] = times.each_mut().map(median);
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{{\"dtype\":\"{name}\",\"elements\":{N},\"ms\":{ours}}}")?;
    } else {
        let rate = 5.0 * size_of::<E>() as f64 * N as f64 / ours / 1e6;
        let dfdx =
            if with_dfdx { format!("{dfdx:.4} | {:.1}", dfdx / ours) } else { "| ".to_owned() };
        let ratio = ours / bytes;
        writeln!(
            out,
            "| {N} | {name} | {ours:.4} | {bytes:.4} | {ratio:.2} | {rate:.1} | {dfdx} | \
             {slope:.4} | {:.2} |",
            slope / ours
        )?;
    }
    Ok(())
}

/// What cannot fail, for `time`.
fn always(f: &mut impl FnMut()) -> impl FnMut() -> Outcome + '_ {
    || {
        f();
        Ok(())
    }
}

/// Milliseconds of one call.
fn time(calls: usize, mut f: impl FnMut() -> Outcome) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    (0..calls).try_for_each(|_| f())?;
    Ok(start.elapsed().as_secs_f64() * 1e3 / calls as f64)
}

/// u = (b − w)/α, ⟨d,u⟩, ⟨u,u⟩, d ← u, b ← w, with dfdx's tensors.
fn dfdx_update<E: Dtype, const N: usize>(dev: &Cpu) -> impl FnMut()
where
    Cpu: Device<E>,
{
    let weights: Weights<E, N> = dev.zeros();
    let (mut snapshot, mut direction) = (weights.clone(), weights.clone());
    let rate = E::from_f64(0.1).unwrap_or_default();
    move || {
        let now = (snapshot.clone() - weights.clone()) / rate;
        let across = (direction.clone() * now.clone()).sum::<Rank0, _>();
        let own = now.clone().square().sum::<Rank0, _>();
        black_box((across.array(), own.array()));
        direction = now;
        snapshot = weights.clone();
    }
}
