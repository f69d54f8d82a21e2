//! Trains the paper's perceptron (784-1000-10) with a learning rate that learns itself.
//!
//! ```text
//! cargo run --release --example mnist                      # digits the program draws, no data needed
//! cargo run --release --features download --example mnist -- --download   # the real ones
//! cargo run --release --example mnist -- --data DIR --rate 1e-9 --mode per-layer
//! ```

mod common;

use clap::Parser;
use common::{Job, Training};
use std::{error::Error, path::PathBuf, process::ExitCode};
use tlr_models::{
    data::{digits, mnist, Dataset},
    train::{InMemory, Net},
};

/// Images the program draws where there are no others.
const DRAWN: (usize, usize) = (20_000, 4_000);

/// Train the paper's perceptron on digits, from any learning rate.
#[derive(Parser)]
#[command(name = "mnist", allow_negative_numbers = true)]
struct Args {
    #[command(flatten)]
    training: Training,
    /// Folder with the four MNIST files, plain or gzipped
    #[arg(long, value_name = "DIR", env = "TLR_DATA")]
    data: Option<PathBuf>,
    /// Fetch MNIST first, into --data or the user's cache (built with `--features download`)
    #[arg(long)]
    download: bool,
    /// Where to fetch it from: the address of the folder that holds its four files, ending in .gz
    #[arg(long, value_name = "URL", requires = "download")]
    #[cfg_attr(not(feature = "download"), allow(dead_code))]
    mirror: Option<String>,
}

fn main() -> ExitCode {
    common::run(&[("out", "out/mnist")], |args: &Args| &args.training, run)
}

fn run(args: &Args, job: &Job<'_>) -> Result<ExitCode, Box<dyn Error>> {
    let training = &args.training;
    let (name, data) = load(args)?;
    let source = InMemory::new(&data, training.batch_size, training.seed, None)?;
    job.train::<Net>(&name, &source)
}

/// The data set's name, for the picture, and its images.
fn load(args: &Args) -> Result<(String, Dataset), Box<dyn Error>> {
    let dir = if args.download { Some(fetch(args)?) } else { args.data.clone() };
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
    let bar = ProgressBar::new(0).with_style(
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
