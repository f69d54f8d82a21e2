//! Trains the paper's perceptron (784-1000-10) with a learning rate that learns itself.
//!
//! ```text
//! cargo run --release --example mnist          # digits that the program draws, no data needed
//! cargo run --release --features download --example mnist -- --download   # the real ones
//! cargo run --release --example mnist -- --data DIR --rate 1e-9 --mode per-layer
//! ```

mod common;

use clap::Parser;
use common::{
    device::{on_device, Place},
    Job, Training,
};
use std::{error::Error, path::PathBuf, process::ExitCode};
use tlr_models::{
    data::{digits, mnist, Dataset},
    train::{InMemory, Net, Share},
};

/// Images the program draws if there are no others.
const DRAWN: (usize, usize) = (20_000, 4_000);

/// What to try first.
const EXAMPLES: &str = "\
Examples:
  Digits that the program draws itself:
    mnist
  MNIST's digits, from its four files:
    mnist --data DIR
  From a rate far too large, a rate a layer:
    mnist --rate 100 --no-ramp --mode per-layer
  A run to stop with Ctrl-C and start again:
    mnist --checkpoint run.safetensors --resume";

/// Train a small network to tell handwritten digits apart, with a learning rate that learns itself.
#[derive(Parser)]
#[command(name = "mnist", after_help = EXAMPLES)]
struct Args {
    /// Folder with the four MNIST files, plain or gzipped; without it, digits are drawn
    #[arg(long, value_name = "DIR", env = "TLR_DATA", help_heading = "Data")]
    data: Option<PathBuf>,
    /// Fetch MNIST first, into --data or the user's cache (built with `--features download`)
    #[arg(long, help_heading = "Data")]
    download: bool,
    /// Where to fetch it from: the address of the folder that holds its four files, ending in .gz
    #[arg(long, value_name = "URL", help_heading = "Data", requires = "download")]
    #[cfg_attr(not(feature = "download"), allow(dead_code))]
    mirror: Option<String>,
    #[command(flatten)]
    training: Training,
}

fn main() -> ExitCode {
    common::run(&[("out", "out/mnist")], |args: &Args| &args.training, run)
}

fn run(args: &Args, job: &Job<'_>) -> Result<ExitCode, Box<dyn Error>> {
    let training = &args.training;
    let (name, data) = load(args, job)?;
    let source = InMemory::new(&data, training.batch_size, training.seed, None)?;
    let source = source.share(Share::of_rank(job.ranks()));
    let model = "Perceptron 784-1000-10";
    on_device!(job.place(), D, E => job.train::<Net<D, E>>(&name, model, &source))
}

/// The data set's name, for the picture, and its images.
fn load(args: &Args, job: &Job<'_>) -> Result<(String, Dataset), Box<dyn Error>> {
    let dir = match args.download {
        true => Some(job.first_one_first(|| fetch(args))?),
        false => args.data.clone(),
    };
    let (name, mut data) = match dir {
        Some(dir) => ("MNIST".to_owned(), mnist::load(&dir)?),
        None => {
            let (train, test) = DRAWN;
            let data = digits::draw(
                args.training.seed,
                args.training.limited(train),
                args.training.limited(test),
            )?;
            ("Drawn digits".to_owned(), data)
        }
    };
    if let Some(limit) = args.training.limit {
        data = Dataset::new(data.train.take(limit)?, data.test.take(limit)?)?;
    }
    Ok((name, data))
}

/// Fetches MNIST, and says where it is.
#[cfg(feature = "download")]
fn fetch(args: &Args) -> Result<PathBuf, Box<dyn Error>> {
    use indicatif::{ProgressBar, ProgressStyle};

    let dir = match &args.data {
        Some(dir) => dir.clone(),
        None => dirs::cache_dir().ok_or("no cache folder: give one by --data")?.join("tlr/mnist"),
    };
    let bar = if args.training.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let bar = bar.with_style(
        ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mirror = args.mirror.as_deref().unwrap_or(mnist::DEFAULT_BASE_URL);
    mnist::download(&dir, mirror, &mut |file, done, total| {
        bar.set_message(file.to_owned());
        bar.set_length(total.unwrap_or(done));
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(dir)
}

/// A TLS stack takes long to compile, and few runs need one.
#[cfg(not(feature = "download"))]
fn fetch(_: &Args) -> Result<PathBuf, Box<dyn Error>> {
    Err("this program cannot download; \
         `cargo run --release --features download --example mnist -- --download` can"
        .into())
}
