//! A whole training step with a learned rate, against the same step without: turn by turn, medians
//! of the ratios.
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo bench --bench overhead
//! RAYON_NUM_THREADS=1 cargo bench --bench overhead -- --model resnet50 --rounds 5
//! ```

use clap::{Parser, ValueEnum};
use dfdx::{losses::cross_entropy_with_logits_loss, optim::SgdConfig, prelude::*};
use std::{error::Error, fmt, io::Write, time::Instant};
use tlr::{optim, Family, Newton, NewtonConfig, PerLayer, TunableOptimizer, Window};
use tlr_models::{
    resnet::{ResNet50, Wrn16x1},
    train::Network,
    Mlp,
};

#[derive(Parser)]
struct Args {
    /// Of each, in turns
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// What is trained
    #[arg(long, value_enum, default_value_t = Model::Mlp)]
    model: Model,
    /// Only the optimizers alone, for benches/step.py
    #[arg(long)]
    alone: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// The perceptron 784-1000-10 on 128 digits
    Mlp,
    /// WRN-16-1 on 128 images of 32 × 32
    Wrn16x1,
    /// ResNet-50 on two images of 224 × 224
    Resnet50,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // As one of the threads that the layers share their work out to.
    Ok(rayon::scope(|_| compare(&args).map_err(|error| error.to_string()))?)
}

fn compare(args: &Args) -> Outcome {
    // A window of 90 steps would take minutes with images: K is 4 there, and the more so 1.
    match args.model {
        Model::Mlp => {
            let windows = &[Bare(1), Bare(94), ByDefault(94), ByDefault(20)];
            measure::<Mlp<784, 1000, 10, f32, Cpu>>(args, [128, 1, 28, 28], windows)
        }
        Model::Wrn16x1 => {
            measure::<Wrn16x1<10, f32, Cpu>>(args, [128, 3, 32, 32], &[Bare(1), Bare(4)])
        }
        Model::Resnet50 => {
            measure::<ResNet50<1000, f32, Cpu>>(args, [2, 3, 224, 224], &[Bare(1), Bare(4)])
        }
    }
}

type Outcome = Result<(), Box<dyn Error>>;

/// How many steps a window has, and what is done besides its end.
#[derive(Clone, Copy)]
enum Windows {
    /// Nothing: no ramp, no rate that rises or settles.
    Bare(usize),
    /// As by default. The ramp is over when time is taken.
    ByDefault(usize),
}

use Windows::{Bare, ByDefault};

impl Windows {
    fn steps(self) -> usize {
        let (Bare(steps) | ByDefault(steps)) = self;
        steps
    }

    fn config(self) -> Result<NewtonConfig, tlr::Error> {
        let config = NewtonConfig::default().window(Window::steps(self.steps())?);
        Ok(match self {
            // Rates that would climb are undone at different steps by different code.
            Bare(_) => config.ramp(false).settle(false).climb(None).max_factor(1.000001),
            ByDefault(_) => config,
        })
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bare(steps) => write!(f, "K = {steps}"),
            ByDefault(steps) => write!(f, "K = {steps}, all defaults"),
        }
    }
}

/// One who trains a model of his own.
struct Contender {
    name: String,
    /// What it is compared with.
    against: usize,
    step: Box<dyn FnMut() -> Outcome>,
    milliseconds: Vec<f64>,
}

fn measure<M: Network<Number = f32, Device = Cpu>>(
    args: &Args,
    shape: [usize; 4],
    windows: &[Windows],
) -> Outcome {
    let steps = windows.iter().map(|windows| windows.steps()).max().unwrap_or(1);
    let windows = if args.alone { &[] } else { windows };
    let dev = Cpu::seed_from_u64(0);
    dev.enable_cache();
    let model = M::try_build(&dev)?;
    let cfg = SgdConfig { lr: 1e-3, ..Default::default() };
    let mut contenders = Vec::new();
    around(
        "dfdx's Sgd",
        &model,
        dfdx::optim::Sgd::new(&model, cfg),
        shape,
        windows,
        &mut contenders,
    )?;
    around("tlr's Sgd", &model, optim::Sgd::new(&model, cfg), shape, windows, &mut contenders)?;

    for round in 0..=args.rounds {
        for contender in &mut contenders {
            let start = Instant::now();
            for _ in 0..steps {
                (contender.step)()?;
            }
            // The first is for memory and caches.
            if round > 0 {
                let seconds = start.elapsed().as_secs_f64();
                contender.milliseconds.push(1e3 * seconds / steps as f64);
            }
        }
    }

    let mut out = std::io::stdout();
    writeln!(out, "| | ms a step | ratio to it alone |")?;
    writeln!(out, "| --- | ---: | ---: |")?;
    for contender in &contenders {
        let alone = contenders.get(contender.against).map(|other| &other.milliseconds);
        let ratios = contender.milliseconds.iter().zip(alone.into_iter().flatten());
        let ratio = median(ratios.map(|(own, alone)| own / alone).collect());
        let own = median(contender.milliseconds.clone());
        writeln!(out, "| {} | {own:.3} | {ratio:.3} |", contender.name)?;
    }
    Ok(())
}

/// An optimizer alone, and with learned rates.
fn around<M, Opt>(
    name: &str,
    model: &M,
    optimizer: Opt,
    shape: [usize; 4],
    windows: &[Windows],
    contenders: &mut Vec<Contender>,
) -> Outcome
where
    M: Network<Number = f32, Device = Cpu>,
    Opt: Family<Model = M, Dtype = f32, Device = Cpu> + Clone + 'static,
{
    let against = contenders.len();
    let mut add = |name: String, step| {
        contenders.push(Contender { name, against, step, milliseconds: Vec::new() });
    };
    let mut plain = optimizer.clone();
    add(
        format!("{name} alone"),
        training(model, shape, move |model: &mut M, gradients: &mut _, _| {
            plain.update_owned(model, gradients).map_err(|error| format!("{error:?}").into())
        }),
    );
    for &window in windows {
        let config = window.config()?;
        let newton = Newton::new(model, optimizer.clone(), config)?;
        add(format!("{name}, one rate, {window}"), training(model, shape, learning(newton)));
        let newton = Newton::new(model, PerLayer::new(model, optimizer.clone()), config)?;
        add(format!("{name}, a rate a layer, {window}"), training(model, shape, learning(newton)));
    }
    Ok(())
}

fn learning<Opt: TunableOptimizer<Dtype = f32, Device = Cpu>>(
    mut newton: Newton<Opt>,
) -> impl FnMut(&mut Opt::Model, &mut Gradients<f32, Cpu>, f32) -> Outcome {
    move |model, gradients, loss| {
        newton.step_owned(model, gradients, loss)?;
        newton.take_history();
        Ok(())
    }
}

/// Steps on one batch: where training goes is not the question.
fn training<M: Network<Number = f32, Device = Cpu>>(
    model: &M,
    shape: [usize; 4],
    mut update: impl FnMut(&mut M, &mut Gradients<f32, Cpu>, f32) -> Outcome + 'static,
) -> Box<dyn FnMut() -> Outcome> {
    let mut model = model.clone();
    let dev = Cpu::default();
    dev.enable_cache();
    let pixels: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 0.1).sin()).collect();
    let mut labels: Tensor<(usize, usize), f32, _> = dev.zeros_like(&(shape[0], M::CLASSES));
    for row in 0..shape[0] {
        labels[[row, row % M::CLASSES]] = 1.0;
    }
    let mut gradients = Some(model.alloc_grads());
    Box::new(move || {
        let own = gradients.take().unwrap_or_else(|| model.alloc_grads());
        let logits = model.train_logits(&dev, (&pixels, shape), own)?;
        let loss = cross_entropy_with_logits_loss(logits, labels.clone());
        let value = loss.array();
        let mut own = loss.backward();
        update(&mut model, &mut own, value)?;
        model.zero_grads(&mut own);
        gradients = Some(own);
        Ok(())
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
