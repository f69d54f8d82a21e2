//! Trains the paper's perceptron over a grid of starting rates, batch sizes, rules, …
//!
//! ```text
//! cargo run --release --example sweep -- --data DIR --rate 1,1e-3,1e-6 --batch-size 64,512
//! ```
//!
//! Stop it whenever you like: started again with the same `--out`, it goes on where it was.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::{error::Error, io::Write, path::PathBuf, process::ExitCode};
use tlr_models::{
    data::{digits, mnist, Dataset},
    sweep::{self, Grid, Results},
    train::{Base, Mode, Rule},
};

/// Images the program draws where there are no others.
const DRAWN: (usize, usize) = (20_000, 4_000);

/// Train the paper's perceptron over a grid; every list is separated by commas.
#[derive(Parser)]
#[command(name = "sweep", allow_negative_numbers = true)]
struct Args {
    /// Starting learning rates
    #[arg(long, value_delimiter = ',', default_value = "1,1e-3,1e-6,1e-9")]
    rate: Vec<f64>,
    /// Images in a batch
    #[arg(long, value_delimiter = ',', default_value = "128")]
    batch_size: Vec<usize>,
    /// Base optimizers (momentum is 0.9)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sgd")]
    optimizer: Vec<Base>,
    /// One rate, or one a layer
    #[arg(long, value_enum, value_delimiter = ',', default_value = "global")]
    mode: Vec<Mode>,
    /// How the rate moves
    #[arg(long, value_enum, value_delimiter = ',', default_value = "aligned")]
    rule: Vec<Rule>,
    /// p: fractions of an epoch between two adaptations, in (0, 1]
    #[arg(long, value_delimiter = ',', default_value = "0.2")]
    window_fraction: Vec<f64>,
    /// γ of the Newton rules, in (0, 1]
    #[arg(long, value_delimiter = ',', default_value = "0.33")]
    damping: Vec<f64>,
    /// η of the first-order rules
    #[arg(long, value_delimiter = ',', default_value = "0.01")]
    meta_rate: Vec<f64>,
    /// Of the weights and the order of the images
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seed: Vec<u64>,
    /// Passes over the training images
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Never roll back
    #[arg(long)]
    no_safeguard: bool,
    /// Use the first N images for training, and at most N for testing
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Runs at a time [default: one a core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Folder with the four MNIST files, plain or gzipped; without it, digits are drawn
    #[arg(long, value_name = "DIR", env = "TLR_DATA")]
    data: Option<PathBuf>,
    /// Where results.csv, the table and the pictures go
    #[arg(long, value_name = "DIR", default_value = "out/sweep")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let (name, data) = load(args)?;
    let grid = Grid {
        optimizers: args.optimizer.clone(),
        modes: args.mode.clone(),
        rules: args.rule.clone(),
        rates: args.rate.clone(),
        batch_sizes: args.batch_size.clone(),
        window_fractions: args.window_fraction.clone(),
        dampings: args.damping.clone(),
        meta_rates: args.meta_rate.clone(),
        seeds: args.seed.clone(),
        safeguard: !args.no_safeguard,
        epochs: args.epochs,
    };
    let cells = grid.cells();
    let mut results = Results::open(&args.out, &format!("{name} {}", data.train.len()))?;
    let done = cells.iter().filter(|cell| results.of(cell).is_some()).count();
    let jobs = match args.jobs {
        Some(jobs) => jobs,
        None => std::thread::available_parallelism()?.get(),
    };

    let bar = progress_bar((cells.len() - done) as u64);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} runs, {done} of them done before", cells.len())?;
    sweep::run(&data, &cells, jobs, &mut results, &mut |record| {
        let line = sweep::line(record);
        if bar.is_hidden() {
            let _ = writeln!(out, "{line}");
        } else {
            bar.println(line);
        }
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// The data set's name and its images.
fn load(args: &Args) -> Result<(&'static str, Dataset), Box<dyn Error>> {
    let (name, data) = match &args.data {
        Some(dir) => ("MNIST", mnist::load(dir)?),
        None => ("drawn digits", digits::draw(0, DRAWN.0, DRAWN.1)?),
    };
    Ok(match args.limit {
        Some(limit) => (name, Dataset::new(data.train.take(limit)?, data.test.take(limit)?)?),
        None => (name, data),
    })
}

/// Shown on a terminal only.
fn progress_bar(runs: u64) -> ProgressBar {
    let style = "{elapsed_precise} {bar:30.cyan/dim} {pos}/{len} runs, about {eta} left";
    let bar = ProgressBar::new(runs);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
