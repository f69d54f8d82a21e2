//! Trains the paper's perceptron (784-1000-10) with a learning rate that learns itself.
//!
//! ```text
//! cargo run --release --example mnist                      # digits the program draws, no data needed
//! cargo run --release --example mnist -- --download        # the real ones
//! cargo run --release --example mnist -- --data DIR --rate 1e-9 --mode per-layer
//! ```

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tlr_models::{
    data::{digits, mnist, Dataset},
    report::{self, Curves, Rate},
    train::{self, Base, Event, Mode, Options, Rule, Run},
};

/// Images the program draws where there are no others.
const DRAWN: (usize, usize) = (20_000, 4_000);
/// Points of the training loss in the picture, an epoch.
const POINTS: usize = 20;

/// Train the paper's perceptron on digits, from any learning rate.
#[derive(Parser)]
#[command(name = "mnist")]
struct Args {
    /// Starting learning rate
    #[arg(long, default_value_t = 1e-6, allow_negative_numbers = true)]
    rate: f64,
    /// Images in a batch
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    /// Passes over the training images
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Base optimizer (momentum is 0.9)
    #[arg(long, value_enum, default_value_t = Base::Sgd)]
    optimizer: Base,
    /// One rate, or one a layer
    #[arg(long, value_enum, default_value_t = Mode::Global)]
    mode: Mode,
    /// How the rate moves
    #[arg(long, value_enum, default_value_t = Rule::Aligned)]
    rule: Rule,
    /// γ of the Newton rules, in (0, 1]
    #[arg(long, default_value_t = 0.33, allow_negative_numbers = true)]
    damping: f64,
    /// η of the first-order rules
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    meta_rate: f64,
    /// p: fraction of an epoch between two adaptations, in (0, 1]
    #[arg(long, default_value_t = 0.2, allow_negative_numbers = true)]
    window_fraction: f64,
    /// Never roll back
    #[arg(long)]
    no_safeguard: bool,
    /// Of the weights, the order of the images, and the drawn digits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Use the first N images for training, and at most N for testing
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Threads of the matrix products [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Folder with the four MNIST files, plain or gzipped
    #[arg(long, value_name = "DIR", env = "TLR_DATA")]
    data: Option<PathBuf>,
    /// Fetch MNIST first, into --data or the user's cache
    #[arg(long)]
    download: bool,
    /// Where history.csv, epochs.csv and curves.svg go
    #[arg(long, value_name = "DIR", default_value = "out/mnist")]
    out: PathBuf,
    /// End with one JSON object on a line of its own
    #[arg(long)]
    json: bool,
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
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let (name, data) = load(args)?;
    let options = options(args);
    let mut losses = Losses::default();
    let bar = progress_bar();
    let run = train::train(&data, &options, &mut |event| match event {
        Event::Step { epoch, batch, batches, loss, rates } => {
            losses.push(epoch as f64 + (batch + 1) as f64 / batches as f64, loss, batches);
            if bar.length() == Some(0) {
                bar.set_length((options.epochs * batches) as u64);
            }
            bar.inc(1);
            bar.set_message(format!("loss {loss:.4}  rate {}", report::rates(&rates)));
        }
        Event::Epoch(epoch) => {
            bar.set_prefix(format!("accuracy {:.2}%", 100.0 * epoch.test_accuracy));
        }
    });
    bar.finish_and_clear();
    let run = run?;

    std::fs::create_dir_all(&args.out)
        .map_err(|error| format!("cannot make {}: {error}", args.out.display()))?;
    report::write_epochs_csv(&args.out.join("epochs.csv"), &run.epochs)?;
    report::write_history_csv(&args.out.join("history.csv"), &run.history, run.batches_per_epoch)?;
    let picture = args.out.join("curves.svg");
    curves(args, &name, &run, losses).write_svg(&picture)?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", report::table(&run.epochs))?;
    writeln!(
        out,
        "{name}: {} in {:.1} s; curves in {}",
        summary(&run),
        run.seconds,
        picture.display()
    )?;
    if args.json {
        writeln!(out, "{}", json(args, &name, &run))?;
    }
    Ok(())
}

/// The data set's name, for the picture, and its images.
fn load(args: &Args) -> Result<(String, Dataset), Box<dyn Error>> {
    let dir = match (&args.data, args.download) {
        (Some(dir), _) => Some(dir.clone()),
        (None, true) => {
            Some(dirs::cache_dir().ok_or("no cache folder: give one by --data")?.join("tlr/mnist"))
        }
        (None, false) => None,
    };
    let (name, mut data) = match dir {
        Some(dir) => {
            if args.download {
                download(&dir)?;
            }
            ("MNIST".to_owned(), mnist::load(&dir)?)
        }
        None => {
            let (train, test) = DRAWN;
            let limited = |n: usize| args.limit.map_or(n, |limit| limit.min(n).max(1));
            let data = digits::draw(args.seed, limited(train), limited(test))?;
            ("Drawn digits".to_owned(), data)
        }
    };
    if let Some(limit) = args.limit {
        data = Dataset::new(data.train.take(limit)?, data.test.take(limit)?)?;
    }
    Ok((name, data))
}

fn download(dir: &Path) -> Result<(), Box<dyn Error>> {
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    mnist::download(dir, mnist::DEFAULT_BASE_URL, &mut |file, done, total| {
        bar.set_message(file.to_owned());
        bar.set_length(total.unwrap_or(done));
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(())
}

fn options(args: &Args) -> Options {
    Options {
        optimizer: args.optimizer,
        mode: args.mode,
        rule: args.rule,
        rate: args.rate,
        batch_size: args.batch_size,
        window_fraction: args.window_fraction,
        damping: args.damping,
        meta_rate: args.meta_rate,
        safeguard: !args.no_safeguard,
        epochs: args.epochs,
        seed: args.seed,
    }
}

/// Shown on a terminal only.
fn progress_bar() -> ProgressBar {
    let style = "{elapsed:>4} {bar:24.cyan/dim} {percent:>3}%  {msg}  {prefix}";
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Means of the training loss over a few steps each.
#[derive(Default)]
struct Losses {
    points: Vec<(f64, f64)>,
    sum: f64,
    count: usize,
}

impl Losses {
    fn push(&mut self, epoch: f64, loss: f64, batches: usize) {
        self.sum += loss;
        self.count += 1;
        if self.count >= batches.div_ceil(POINTS) {
            self.points.push((epoch, self.sum / self.count as f64));
            (self.sum, self.count) = (0.0, 0);
        }
    }
}

fn curves(args: &Args, name: &str, run: &Run, losses: Losses) -> Curves {
    let epoch = |step: u64| step as f64 / run.batches_per_epoch as f64;
    let mut rates: Vec<Rate> = Vec::new();
    for decision in &run.history {
        let point = (epoch(decision.step), decision.to);
        match rates.iter_mut().find(|rate| rate.name == *decision.layer) {
            Some(rate) => rate.points.push(point),
            None => rates.push(Rate {
                name: decision.layer.to_string(),
                points: vec![(0.0, decision.from), point],
            }),
        }
    }
    Curves {
        title: format!(
            "{name}: {} from {:e}, {} rate, batch {}",
            train::name(&args.optimizer),
            args.rate,
            train::name(&args.rule),
            args.batch_size
        ),
        train_loss: losses.points,
        test_loss: run.epochs.iter().map(|epoch| (epoch.epoch as f64, epoch.test_loss)).collect(),
        rates,
        rollbacks: train::rollback_steps(&run.history).into_iter().map(epoch).collect(),
    }
}

fn summary(run: &Run) -> String {
    match run.epochs.last() {
        Some(last) => format!(
            "{:.2}% of the test images after {} epochs, at a rate of {}",
            100.0 * last.test_accuracy,
            run.epochs.len(),
            report::rates(&last.rates),
        ),
        None => "no epoch".to_owned(),
    }
}

fn json(args: &Args, name: &str, run: &Run) -> serde_json::Value {
    let last = run.epochs.last();
    let rates: serde_json::Map<_, _> = last
        .iter()
        .flat_map(|epoch| &epoch.rates)
        .map(|(name, rate)| (name.clone(), (*rate).into()))
        .collect();
    serde_json::json!({
        "data": name,
        "optimizer": train::name(&args.optimizer),
        "mode": train::name(&args.mode),
        "rule": train::name(&args.rule),
        "rate": args.rate,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "epochs": run.epochs.len(),
        "train_loss": last.map(|epoch| epoch.train_loss),
        "test_loss": last.map(|epoch| epoch.test_loss),
        "test_accuracy": last.map(|epoch| epoch.test_accuracy),
        "rates": rates,
        "rollbacks": train::rollback_steps(&run.history).len(),
        "seconds": run.seconds,
        "parameters": run.parameters,
    })
}
