//! What the examples have in common: their flags, progress, files and last words.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use std::{
    error::Error,
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};
use tlr_models::{
    report::{self, Curves, EpochTable, Rate},
    train::{
        self, Base, Event, Mode, Network, Options, Persistence, Rule, Run, Shape, Source,
        TrainError,
    },
};

/// Points of the training loss in the picture, an epoch.
const POINTS: usize = 20;

/// How to train.
#[derive(clap::Args)]
pub(crate) struct Training {
    /// Starting learning rate: the aligned rule finds one by itself, in its first steps
    #[arg(long, default_value_t = 1e-6, allow_negative_numbers = true)]
    pub(crate) rate: f64,
    /// Start from the rate as it is given
    #[arg(long)]
    pub(crate) no_ramp: bool,
    /// Examples in a batch
    #[arg(long, default_value_t = 128)]
    pub(crate) batch_size: usize,
    /// Passes over the training set
    #[arg(long, default_value_t = 10)]
    pub(crate) epochs: usize,
    /// Base optimizer (momentum is 0.9)
    #[arg(long, value_enum, default_value_t = Base::Sgd)]
    pub(crate) optimizer: Base,
    /// One rate, or one a layer
    #[arg(long, value_enum, default_value_t = Mode::Global)]
    pub(crate) mode: Mode,
    /// How the rate moves
    #[arg(long, value_enum, default_value_t = Rule::Aligned)]
    pub(crate) rule: Rule,
    /// γ of the Newton rules, in (0, 1]
    #[arg(long, default_value_t = 0.33, allow_negative_numbers = true)]
    pub(crate) damping: f64,
    /// η of the first-order rules
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    pub(crate) meta_rate: f64,
    /// p: fraction of an epoch between two adaptations, in (0, 1]
    #[arg(long, default_value_t = 0.2, allow_negative_numbers = true)]
    pub(crate) window_fraction: f64,
    /// Added to the gradient as so many times the weights
    #[arg(long, default_value_t = 0.0)]
    pub(crate) weight_decay: f64,
    /// What the rate is multiplied by
    #[arg(long, value_enum, default_value_t = Shape::Constant)]
    pub(crate) schedule: Shape,
    /// Never roll back
    #[arg(long)]
    pub(crate) no_safeguard: bool,
    /// Learn the rate from a sketch of so many bins, 16384 say, and not from snapshots; never roll back
    #[arg(long, value_name = "BINS")]
    pub(crate) sketch: Option<usize>,
    /// Keep the last window's direction in bfloat16, and not the snapshot before it
    #[arg(long)]
    pub(crate) bf16_directions: bool,
    /// Of the weights, the order of the examples, and whatever else is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Use the first N examples for training, and at most N for testing
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Threads of the layers [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Where history.csv, epochs.csv, run.json and curves.svg go
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
    /// End with one JSON object on a line of its own
    #[arg(long)]
    pub(crate) json: bool,
    /// Save the run in this file, after every epoch and on Ctrl-C
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint, if there is one yet
    #[arg(long, requires = "checkpoint")]
    pub(crate) resume: bool,
}

/// Parses the command line, with other defaults for some flags, and runs. Errors go to stderr.
pub(crate) fn run<A: Parser>(
    defaults: &[(&'static str, &'static str)],
    run: impl FnOnce(&A) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let command = defaults.iter().fold(A::command(), |command, &(flag, value)| {
        command.mut_arg(flag, |arg| arg.default_value(value))
    });
    let args = A::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Training {
    /// As training takes them.
    pub(crate) fn options(&self) -> Options {
        Options {
            optimizer: self.optimizer,
            mode: self.mode,
            rule: self.rule,
            rate: self.rate,
            ramp: !self.no_ramp,
            batch_size: self.batch_size,
            window_fraction: self.window_fraction,
            damping: self.damping,
            meta_rate: self.meta_rate,
            weight_decay: self.weight_decay,
            schedule: self.schedule,
            safeguard: !self.no_safeguard,
            sketch: self.sketch,
            bf16_directions: self.bf16_directions,
            epochs: self.epochs,
            seed: self.seed,
        }
    }

    /// Does `work` on the threads that were asked for, as one of them: from outside, the others would have to be waited for, asleep,
    /// in every layer.
    pub(crate) fn on_threads(
        &self,
        work: impl FnOnce() -> Result<(), Box<dyn Error>> + Send,
    ) -> Result<(), Box<dyn Error>> {
        let threads =
            rayon::ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(0)).build()?;
        Ok(threads.install(|| work().map_err(|error| error.to_string()))?)
    }

    /// `n`, or as many as `--limit` allows.
    pub(crate) fn limited(&self, n: usize) -> usize {
        self.limit.map_or(n, |limit| limit.min(n).max(1))
    }
}

/// Trains an `M` on the images of `source`, shows how it goes, and leaves tables and a picture. `data` names the
/// images.
#[allow(dead_code)] // Translations are trained otherwise.
pub(crate) fn train<M: Network>(
    args: &Training,
    data: &str,
    source: &dyn Source,
) -> Result<(), Box<dyn Error>> {
    follow(args, data, "test images", |options, persistence, observer| {
        Ok(Done::from(train::train::<M>(source, options, persistence, observer)?))
    })
}

/// What training came to.
pub(crate) struct Done {
    /// Epochs and decisions.
    pub(crate) run: Run,
    /// Printed after them.
    pub(crate) words: String,
    /// For the line of JSON.
    pub(crate) figures: Map<String, Value>,
}

impl From<Run> for Done {
    fn from(run: Run) -> Self {
        Self { run, words: String::new(), figures: Map::new() }
    }
}

/// Trains, shows how it goes, and leaves tables and a picture. `data` names what is trained on, and `tested` what the
/// accuracy is a part of.
pub(crate) fn follow(
    args: &Training,
    data: &str,
    tested: &str,
    train: impl FnOnce(
        &Options,
        &Persistence<'_>,
        &mut dyn FnMut(Event<'_>),
    ) -> Result<Done, TrainError>,
) -> Result<(), Box<dyn Error>> {
    let options = args.options();
    let checkpoint = args.checkpoint.as_deref();
    if checkpoint.is_some() {
        stop_on_ctrl_c()?;
    }
    let persistence = Persistence { checkpoint, resume: args.resume, stop: Some(&STOP) };
    let mut losses = Losses::default();
    let bar = progress_bar();
    let mut table = None;
    let mut shown = Ok(());
    let say = |bar: &ProgressBar, words: String| {
        bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{words}");
        });
    };
    let done = train(&options, &persistence, &mut |event| match event {
        Event::Step { epoch, batch, batches, loss, rates } => {
            losses.push(epoch as f64 + (batch + 1) as f64 / batches as f64, loss, batches);
            if bar.length() == Some(0) {
                bar.set_length((options.epochs * batches) as u64);
            }
            bar.inc(1);
            bar.set_message(format!("loss {loss:.4}  rate {}", report::rates(&rates)));
        }
        Event::Epoch(epoch) => {
            let heading = table.is_none();
            let table = table.get_or_insert_with(|| EpochTable::of(epoch));
            let written = bar.suspend(|| {
                let mut out = std::io::stdout().lock();
                if heading {
                    writeln!(out, "{}", table.heading())?;
                }
                writeln!(out, "{}", table.row(epoch))
            });
            if shown.is_ok() {
                shown = written;
            }
        }
        Event::Resumed { step: Some(step) } => say(&bar, format!("resumed after step {step}")),
        Event::Resumed { step: None } => say(&bar, "no checkpoint yet: from the beginning".into()),
        Event::NotSaved(error) => say(&bar, format!("warning: not saved: {error}")),
    });
    bar.finish_and_clear();
    if let (Err(stopped @ TrainError::Stopped { .. }), Some(file)) = (&done, checkpoint) {
        let file = file.display();
        let words =
            format!("{stopped} and saved in {file}; the same command with --resume goes on");
        say(&bar, words);
        return Ok(());
    }
    let Done { run, words, figures } = done?;
    shown?;

    let failed = |error| format!("cannot write to {}: {error}", args.out.display());
    std::fs::create_dir_all(&args.out).map_err(failed)?;
    report::write_epochs_csv(&args.out.join("epochs.csv"), &run.epochs)?;
    report::write_history_csv(&args.out.join("history.csv"), &run.history, run.batches_per_epoch)?;
    let picture = args.out.join("curves.svg");
    curves(args, data, &run, losses).write_svg(&picture)?;
    let mut json = json(args, data, &run);
    json.extend(figures);
    let json = Value::Object(json);
    std::fs::write(args.out.join("run.json"), format!("{json:#}\n")).map_err(failed)?;

    let mut out = std::io::stdout().lock();
    write!(out, "\n{words}")?;
    writeln!(
        out,
        "{data}: {} in {:.1} s; curves in {}",
        summary(tested, &run),
        run.seconds,
        picture.display()
    )?;
    if args.json {
        writeln!(out, "{json}")?;
    }
    Ok(())
}

/// Whether the run is to end.
static STOP: AtomicBool = AtomicBool::new(false);

/// Ctrl-C ends the run after the step it is in; a second one ends it at once.
fn stop_on_ctrl_c() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        let _ = writeln!(std::io::stderr(), "\nstopping after this step; again to stop at once");
    })
}

/// Shown on a terminal only.
pub(crate) fn progress_bar() -> ProgressBar {
    let style = "{elapsed:>4} {bar:24.cyan/dim} {percent:>3}%  {msg}";
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Means of the training loss over a few steps each.
#[derive(Default)]
pub(crate) struct Losses {
    /// Epochs passed, and loss.
    pub(crate) points: Vec<(f64, f64)>,
    sum: f64,
    count: usize,
}

impl Losses {
    pub(crate) fn push(&mut self, epoch: f64, loss: f64, batches: usize) {
        self.sum += loss;
        self.count += 1;
        if self.count >= batches.div_ceil(POINTS) {
            self.points.push((epoch, self.sum / self.count as f64));
            (self.sum, self.count) = (0.0, 0);
        }
    }
}

fn curves(args: &Training, name: &str, run: &Run, losses: Losses) -> Curves {
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

fn summary(tested: &str, run: &Run) -> String {
    match run.epochs.last() {
        Some(last) => format!(
            "{:.2}% of the {tested} after {} epochs, at a rate of {}",
            100.0 * last.test_accuracy,
            run.epochs.len(),
            report::rates(&last.rates),
        ),
        None => "no epoch".to_owned(),
    }
}

fn json(args: &Training, name: &str, run: &Run) -> Map<String, Value> {
    let last = run.epochs.last();
    let rates: Map<_, _> = last
        .iter()
        .flat_map(|epoch| &epoch.rates)
        .map(|(name, rate)| (name.clone(), (*rate).into()))
        .collect();
    let json = serde_json::json!({
        "data": name,
        "optimizer": train::name(&args.optimizer),
        "mode": train::name(&args.mode),
        "rule": train::name(&args.rule),
        "schedule": train::name(&args.schedule),
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
    });
    match json {
        Value::Object(json) => json,
        _ => Map::new(),
    }
}
