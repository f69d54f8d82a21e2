//! Trains a wide residual network on small pictures with a learning rate that learns itself.
//!
//! ```text
//! cargo run --release --example cifar        # pictures that the program draws, no data needed
//! cargo run --release --example cifar -- --data DIR --epochs 10 --batch-size 128 \
//!   --weight-decay 5e-4
//! cargo run --release --example cifar -- --data DIR --classes 100 --depth 28 --width 10
//! ```

mod common;

use clap::Parser;
use common::{
    device::{on_device, Place},
    numbers::whole,
    Job, Training,
};
use std::{error::Error, path::PathBuf, process::ExitCode};
use tlr_models::{
    data::{cifar, shapes, Augment, Dataset},
    resnet::{Wrn10x1, Wrn16x1},
    train::{InMemory, Network, Number, Share, TrainsIn},
};

/// How many images the program draws if it is given none.
const DRAWN: (usize, usize) = (4_000, 1_000);

/// What to try first.
const EXAMPLES: &str = "\
Examples:
  Pictures that the program draws itself:
    cifar
  CIFAR-10, from its binary files:
    cifar --data DIR --batch-size 128 --epochs 10
  CIFAR-100 with a large network (built with --release):
    cifar --data DIR --classes 100 --depth 28 --width 10";

/// Train a wide residual network on small pictures, with a learning rate that learns itself.
#[derive(Parser)]
#[command(name = "cifar", after_help = EXAMPLES)]
struct Args {
    /// Folder with CIFAR's binary files, plain or gzipped; without it, pictures are drawn
    #[arg(long, value_name = "DIR", env = "TLR_CIFAR", help_heading = "Data")]
    data: Option<PathBuf>,
    /// CIFAR-10 or CIFAR-100
    #[arg(long, value_name = "N", help_heading = "Data", value_parser = whole::<usize>(1))]
    #[arg(default_value = "10")]
    classes: usize,
    /// Leave the training images as they are, instead of cropping and mirroring them at random
    #[arg(long, help_heading = "Data")]
    no_augment: bool,
    /// Layers with weights: 10, 16 or 28
    #[arg(long, value_name = "N", help_heading = "Model", value_parser = whole::<usize>(1))]
    #[arg(default_value = "10")]
    depth: usize,
    /// Times as many channels as the narrowest: 1 with 10 layers; 1, 2, 4 or 8 with 16; 10 with 28
    #[arg(long, value_name = "N", help_heading = "Model", value_parser = whole::<usize>(1))]
    #[arg(default_value = "1")]
    width: usize,
    #[command(flatten)]
    training: Training,
}

fn main() -> ExitCode {
    let defaults = [("out", "out/cifar"), ("rate", "1e-3"), ("epochs", "6"), ("batch_size", "32")];
    common::run(&defaults, |args: &Args| &args.training, run)
}

fn run(args: &Args, job: &Job<'_>) -> Result<ExitCode, Box<dyn Error>> {
    if ![10, 100].contains(&args.classes) {
        let classes = args.classes;
        return Err(format!("there is CIFAR-10 and CIFAR-100, no CIFAR-{classes}").into());
    }
    on_device!(job.place(), D, E => of_size::<D, E>(args, job))
}

/// Each network is compiled on its own, which takes its time: for 100 classes there are only those
/// that are published. Without --release the larger ones would take hours to run.
fn of_size<D: TrainsIn<E>, E: Number>(
    args: &Args,
    job: &Job<'_>,
) -> Result<ExitCode, Box<dyn Error>> {
    #[cfg(not(debug_assertions))]
    use tlr_models::resnet::{Wrn16x2, Wrn16x4, Wrn16x8, Wrn28x10};
    match (args.depth, args.width, args.classes) {
        (10, 1, 10) => train::<Wrn10x1<10, E, D>>(args, job),
        (16, 1, 10) => train::<Wrn16x1<10, E, D>>(args, job),
        #[cfg(not(debug_assertions))]
        (16, 2, 10) => train::<Wrn16x2<10, E, D>>(args, job),
        #[cfg(not(debug_assertions))]
        (16, 4, 10) => train::<Wrn16x4<10, E, D>>(args, job),
        #[cfg(not(debug_assertions))]
        (16, 8, 10) => train::<Wrn16x8<10, E, D>>(args, job),
        #[cfg(not(debug_assertions))]
        (28, 10, 10) => train::<Wrn28x10<10, E, D>>(args, job),
        #[cfg(not(debug_assertions))]
        (16, 4, 100) => train::<Wrn16x4<100, E, D>>(args, job),
        #[cfg(not(debug_assertions))]
        (28, 10, 100) => train::<Wrn28x10<100, E, D>>(args, job),
        _ if cfg!(debug_assertions) => {
            Err(missing(args, "10-1 and 16-1 for 10 classes, and larger ones with --release"))
        }
        (_, _, 10) => Err(missing(args, "10-1, 16-1, 16-2, 16-4, 16-8 and 28-10")),
        _ => Err(missing(args, "16-4 and 28-10")),
    }
}

fn missing(args: &Args, there_are: &str) -> Box<dyn Error> {
    let Args { depth, width, classes, .. } = args;
    let model = format!(
        "no WRN-{depth}-{width} for {classes} classes is compiled in: there are {there_are}"
    );
    format!("{model}; others are `tlr_models::resnet::WideResNet` with other numbers").into()
}

fn train<M: Network>(args: &Args, job: &Job<'_>) -> Result<ExitCode, Box<dyn Error>> {
    let training = &args.training;
    let (name, data) = load(args)?;
    let model = format!("WRN-{}-{}", args.depth, args.width);
    let name = format!("{name}, {model}");
    let augment = (!args.no_augment).then(|| Augment::new(training.seed));
    let source = InMemory::new(&data, training.batch_size, training.seed, augment)?.drop_last();
    let source = source.share(Share::of_rank(job.ranks()));
    job.train::<M>(&name, &format!("Wide residual network {model}"), &source)
}

/// The data set's name, for the picture, and its images. Says what a folder lacks.
fn load(args: &Args) -> Result<(String, Dataset), Box<dyn Error>> {
    let (name, data) = match &args.data {
        Some(dir) => {
            let loaded = match args.classes {
                100 => cifar::load100(dir)?,
                _ => cifar::load10(dir)?,
            };
            for file in &loaded.short {
                common::warn(format_args!("warning: {file}"));
            }
            (format!("CIFAR-{}", args.classes), loaded.data)
        }
        None => {
            let limited = |n| args.training.limited(n);
            let (train, test) = (limited(DRAWN.0), limited(DRAWN.1));
            ("Drawn shapes".to_owned(), shapes::draw(args.training.seed, train, test, 10)?)
        }
    };
    let data = match args.training.limit {
        Some(limit) => Dataset::new(data.train.take(limit)?, data.test.take(limit)?)?,
        None => data,
    };
    Ok((name, data))
}
