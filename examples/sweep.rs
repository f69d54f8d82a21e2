//! Trains the paper's perceptron over a grid of starting rates, batch sizes, rules, …
//!
//! ```text
//! cargo run --release --example sweep -- --data DIR --rate 1,1e-3,1e-6 --batch-size 64,512
//! ```
//!
//! Stop it whenever you like: started again with the same `--out`, it goes on where it was.

#[path = "common/device.rs"]
mod device;
#[path = "common/many.rs"]
mod many;
#[path = "common/numbers.rs"]
mod numbers;
#[path = "common/ranks.rs"]
mod ranks;
#[path = "common/threads.rs"]
mod threads;

use clap::{CommandFactory, FromArgMatches, Parser};
use device::{on_device, Device, Place, Precision};
use many::{progress_bar, say};
use numbers::whole;
use std::{error::Error, io::Write, path::PathBuf, process::ExitCode, time::Duration};
use tlr_models::{
    data::{digits, mnist, Dataset},
    report::{self, Compared, Comparison, HeatCell, HeatMap, HeatPanel},
    sweep::{self, EpochRecord, Grid, SweepRecord, SweepResults},
    train::{self, AnyRanks, Base, Mode, Net, Rule},
};

/// How many images the program draws if it is given none.
const DRAWN: (usize, usize) = (20_000, 4_000);

/// The longest that ranks wait for each other: one may make a longer run than another.
const A_RUN: Duration = Duration::from_secs(24 * 3600);

/// What to try first.
const EXAMPLES: &str = "\
Examples:
  From four starting rates:
    sweep
  Each of 3 rates with each of 2 batch sizes:
    sweep --rate 1,1e-3,1e-6 --batch-size 64,512
  Two rules side by side:
    sweep --rule aligned,constant --out DIR";

/// Train mnist's network once for each combination of the values given, on all cores at a time.
///
/// Flags that take X,... or N,... take several values with commas between them. Started again with
/// the same --out, a sweep does what is not done yet.
#[derive(Parser)]
#[command(name = "sweep", version, after_help = EXAMPLES)]
struct Args {
    /// Folder with the four MNIST files, plain or gzipped; without it, digits are drawn
    #[arg(long, value_name = "DIR", env = "TLR_DATA", help_heading = "Data")]
    data: Option<PathBuf>,
    /// Use only the first N images to train on, and at most N to test on
    #[arg(long, value_name = "N", help_heading = "Data", value_parser = whole::<usize>(1))]
    limit: Option<usize>,

    /// How many times all images are gone through
    #[arg(long, value_name = "N", help_heading = "Training", value_parser = whole::<usize>(1))]
    #[arg(default_value = "20")]
    epochs: usize,
    /// Images in a step
    #[arg(long, value_name = "N,...", help_heading = "Training", value_delimiter = ',')]
    #[arg(value_parser = whole::<usize>(1), default_value = "128")]
    batch_size: Vec<usize>,
    /// What computes. Give each device an --out of its own: times and the last digits differ
    #[arg(long, value_enum, help_heading = "Training", default_value_t = Device::Cpu)]
    device: Device,
    /// The numbers to train in
    #[arg(long, value_enum, help_heading = "Training", default_value_t = Precision::F32)]
    precision: Precision,
    /// Optimizers whose learning rate is learned
    #[arg(long, value_enum, help_heading = "Training", value_delimiter = ',')]
    #[arg(default_value = "sgd")]
    optimizer: Vec<Base>,
    /// Each draws other first weights and another order of the images
    #[arg(long, value_name = "N,...", help_heading = "Training", value_delimiter = ',')]
    #[arg(value_parser = whole::<u64>(0), default_value = "0")]
    seed: Vec<u64>,
    /// Runs at a time [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Training", value_parser = whole::<usize>(1))]
    jobs: Option<usize>,

    /// Learning rates to start from
    #[arg(long, value_name = "X,...", help_heading = "Learned rate", value_delimiter = ',')]
    #[arg(default_value = "1,1e-3,1e-6,1e-9")]
    rate: Vec<f64>,
    /// One learning rate for the whole model, or one for each layer
    #[arg(long, value_enum, help_heading = "Learned rate", value_delimiter = ',')]
    #[arg(default_value = "global")]
    mode: Vec<Mode>,
    /// How a new learning rate is found from what the last steps did
    #[arg(long, value_enum, help_heading = "Learned rate", value_delimiter = ',')]
    #[arg(default_value = "aligned")]
    rule: Vec<Rule>,
    /// How often the rate is changed: 0.2 is after every fifth of an epoch, but not within 20
    /// steps. Above 0, at most 1 (p in the paper)
    #[arg(long, value_name = "X,...", help_heading = "Learned rate", value_delimiter = ',')]
    #[arg(default_value = "0.2")]
    window_fraction: Vec<f64>,
    /// How far `aligned` and `paper` go at a time, as a part of the way to the rate that looks
    /// best. Above 0, at most 1 (γ in the paper)
    #[arg(long, value_name = "X,...", help_heading = "Learned rate", value_delimiter = ',')]
    #[arg(default_value = "0.33")]
    damping: Vec<f64>,
    /// How far `additive` and `multiplicative` go at a time. Above 0 (η in the paper)
    #[arg(long, value_name = "X,...", help_heading = "Learned rate", value_delimiter = ',')]
    #[arg(default_value = "0.01")]
    meta_rate: Vec<f64>,
    /// Never undo the last steps and cut the rate, as is done where the loss rises
    #[arg(long, help_heading = "Learned rate")]
    no_safeguard: bool,

    /// Folder for results.csv, the table and the pictures
    #[arg(long, value_name = "DIR", help_heading = "Output", default_value = "out/sweep")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let matches = numbers::with_signs(Args::command()).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = ranks::all().and_then(|ranks| {
        // A rank that waits for this one is told.
        run(&args, &ranks).inspect_err(|error| ranks.leave(&error.to_string()))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, ranks: &AnyRanks) -> Result<(), Box<dyn Error>> {
    let place = args.device.find(args.precision)?;
    let (name, data) = load(args)?;
    // Runs in other numbers are other runs.
    let name = match args.precision {
        Precision::F32 => name.to_owned(),
        Precision::F16 => format!("{name} in f16"),
    };
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
    let ranks = ranks.clone().time_out(A_RUN);
    if ranks.size() > 1 && !ranks.is_first() {
        // The first rank shows the runs, and writes the files.
        ranks.confirm(None)?;
        let (jobs, tell) = (many::jobs(args.jobs)?, &mut |_: &_| ());
        on_device!(place, D, E => {
            sweep::run_together::<Net<D, E>>(&data, &cells, jobs, None, &ranks, tell)?;
        });
        return Ok(());
    }
    let opened = SweepResults::open(&args.out, &name, &data);
    let told = ranks.confirm(opened.as_ref().err().map(ToString::to_string).as_deref());
    let mut results = opened?;
    told?;
    let done = cells.iter().filter(|cell| results.of(cell).is_some()).count();
    let bar = progress_bar((cells.len() - done) as u64);
    let jobs = many::jobs(args.jobs)?;
    say(&bar, &format!("runs: {}, done before: {done}", cells.len()))?;
    let mut said = Ok(());
    let mut tell = |record: &SweepRecord| {
        if said.is_ok() {
            said = say(&bar, &sweep::line(record));
        }
        bar.inc(1);
    };
    let failed = on_device!(place, D, E => match ranks.size() {
        1 => sweep::run::<Net<D, E>>(&data, &cells, jobs, &mut results, &mut tell)?,
        _ => {
            let results = Some(&mut results);
            sweep::run_together::<Net<D, E>>(&data, &cells, jobs, results, &ranks, &mut tell)?
        }
    });
    bar.finish_and_clear();

    let records: Vec<_> = cells.iter().filter_map(|cell| results.of(cell)).collect();
    let table = table(&records);
    let out = results.folder();
    report::write(&out.file("table.md"), &table)?;

    let draw = |name: &str, svg: String| report::write(&out.file(name), svg);
    let (size, rate) =
        (|r: &SweepRecord| r.batch_size.to_string(), |r: &SweepRecord| format!("{:e}", r.rate));
    let map = heat_map(&records, "batch size", size, "starting rate", rate);
    draw("heatmap.svg", map.to_svg())?;
    // Figures 1 and 2 of the paper: over starting rates, and over p and γ.
    let rates = comparison(&results, &records, "starting rate", start);
    draw("rates.svg", rates.to_svg())?;
    if args.window_fraction.len() * args.damping.len() > 1 {
        let p = |r: &SweepRecord| r.window_fraction.to_string();
        let map = heat_map(&records, "γ", |r| r.damping.to_string(), "p, fraction of an epoch", p);
        draw("heatmap-window.svg", map.to_svg())?;
        let windows = comparison(&results, &records, "window and damping", |r| {
            format!("p {}, γ {}", r.window_fraction, r.damping)
        });
        draw("windows.svg", windows.to_svg())?;
    }
    let folder = args.out.display();
    say(&bar, &format!("\n{table}\nresults, table and pictures in {folder}"))?;
    match failed {
        0 => Ok(said?),
        _ => Err(format!(
            "{} failed, not in the table; the same command runs what failed again",
            report::count(failed, "run")
        )
        .into()),
    }
}

/// The runs that differ in rate, batch, window and seed only.
fn series(record: &SweepRecord) -> String {
    let eta = match record.rule {
        Rule::Additive | Rule::Multiplicative => format!(" {:e}", record.meta_rate),
        _ => String::new(),
    };
    let mode = match (record.rule, record.mode) {
        (Rule::Constant, _) => String::new(),
        (_, mode) => format!(" {}", train::name(&mode)),
    };
    format!("{}{mode} {}{eta}", train::name(&record.optimizer), train::name(&record.rule))
}

/// The values of `of`, each once, in the order in which they come.
fn distinct<T: PartialEq>(records: &[&SweepRecord], of: impl Fn(&SweepRecord) -> T) -> Vec<T> {
    let mut values = Vec::new();
    for value in records.iter().map(|record| of(record)) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Mean ± standard deviation.
fn spread(values: &[f64], digits: usize) -> String {
    let Some(mean) = mean(values) else { return "–".into() };
    if values.len() < 2 {
        return format!("{mean:.digits$}");
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (values.len() - 1) as f64).sqrt();
    format!("{mean:.digits$} ± {deviation:.digits$}")
}

/// Like the paper's Table 1: accuracy and loss by starting rate, mean ± deviation over all else.
fn table(records: &[&SweepRecord]) -> String {
    let rates = distinct(records, |record| record.rate);
    let mut text = String::new();
    for (heading, digits, of) in [
        ("Test accuracy in %", 2, (|r| r.test_accuracy.map(|a| 100.0 * a)) as Figure),
        ("Test loss", 4, |r| r.test_loss),
    ] {
        text += &format!("{heading}, mean ± standard deviation\n\n| |");
        rates.iter().for_each(|rate| text += &format!(" {rate:e} |"));
        text += " all | worst | late rollbacks at most | runs |\n|";
        text += &" --- |".repeat(rates.len() + 5);
        for name in distinct(records, series) {
            let of_series: Vec<_> =
                records.iter().copied().filter(|record| series(record) == name).collect();
            text += &format!("\n| {name} |");
            for rate in &rates {
                let values: Vec<_> =
                    of_series.iter().filter(|r| r.rate == *rate).filter_map(|r| of(r)).collect();
                text += &format!(" {} |", spread(&values, digits));
            }
            let values: Vec<_> = of_series.iter().filter_map(|r| of(r)).collect();
            let worst = if digits == 2 { f64::min } else { f64::max };
            let worst = values.iter().copied().reduce(worst);
            let worst = match worst {
                Some(worst) if values.len() == of_series.len() => format!("{worst:.digits$}"),
                _ => "diverged".into(),
            };
            let late = of_series.iter().map(|r| r.late_rollbacks).max().unwrap_or(0);
            let all = spread(&values, digits);
            text += &format!(" {all} | {worst} | {late} | {} |", of_series.len());
        }
        text += "\n\n";
    }
    text
}

type Figure = fn(&SweepRecord) -> Option<f64>;

/// Test loss over two of the grid's axes, a panel a series; accuracy in the cells.
fn heat_map(
    records: &[&SweepRecord],
    y_label: &str,
    row: impl Fn(&SweepRecord) -> String,
    x_label: &str,
    column: impl Fn(&SweepRecord) -> String,
) -> HeatMap {
    let (rows, columns) = (distinct(records, &row), distinct(records, &column));
    let panel = |name: String| {
        let cell = |y: &String, x: &String| {
            let here = |r: &&&SweepRecord| series(r) == name && row(r) == *y && column(r) == *x;
            let here: Vec<_> = records.iter().filter(here).collect();
            let losses: Vec<_> = here.iter().filter_map(|r| r.test_loss).collect();
            let accuracies: Vec<_> = here.iter().filter_map(|r| r.test_accuracy).collect();
            let (value, accuracy) = (mean(&losses)?, mean(&accuracies)?);
            Some(HeatCell { value, text: format!("{:.2}", 100.0 * accuracy) })
        };
        let cells =
            rows.iter().flat_map(|y| columns.iter().map(move |x| (y, x))).map(|(y, x)| cell(y, x));
        HeatPanel { cells: cells.collect(), name: name.clone() }
    };
    HeatMap {
        title: "Test accuracy in %, coloured by test loss".into(),
        x_label: x_label.into(),
        y_label: y_label.into(),
        panels: distinct(records, series).into_iter().map(panel).collect(),
        columns,
        rows,
    }
}

fn start(record: &SweepRecord) -> String {
    format!("from {:e}", record.rate)
}

/// Test loss and rate over the epochs, a run for each value of `by`: the first that has it.
fn comparison(
    results: &SweepResults,
    records: &[&SweepRecord],
    what: &str,
    by: impl Fn(&SweepRecord) -> String,
) -> Comparison {
    let runs = distinct(records, &by).into_iter().filter_map(|name| {
        let record = records.iter().find(|record| by(record) == name)?;
        let epochs = results.epochs_of(&record.options());
        let points = |of: fn(&EpochRecord) -> f64| {
            epochs.iter().map(|epoch| (epoch.epoch as f64, of(epoch))).collect()
        };
        let mut rate: Vec<_> = points(|epoch| epoch.rate);
        rate.insert(0, (0.0, record.rate));
        Some(Compared { name, loss: points(|epoch| epoch.test_loss), rate, ..Default::default() })
    });
    let title = match records.first() {
        Some(first) => {
            let start = if by(first) == start(first) { String::new() } else { start(first) + ", " };
            format!("By {what}: {}, {start}batch {}", series(first), first.batch_size)
        }
        None => String::new(),
    };
    Comparison { title, runs: runs.collect() }
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
