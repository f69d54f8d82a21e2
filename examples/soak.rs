//! Trains for long under faults, and once more undisturbed: broken batches, exploding batches,
//! kills, interrupts and a disk that is full, all at random. Linux, because of the disk.
//!
//! ```text
//! cargo run --release --example soak -- --data DIR --epochs 500 --out out/soak
//! ```

#[path = "common/device.rs"]
mod device;
#[path = "common/numbers.rs"]
mod numbers;

use clap::{CommandFactory, FromArgMatches, Parser};
use device::{on_device, Device, Place, Precision};
use numbers::whole;
use rand::{rngs::StdRng, Rng, SeedableRng};
use std::{
    error::Error,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    sync::{atomic::AtomicBool, Arc},
    thread,
    time::{Duration, Instant},
};
use tlr_models::{
    data::{digits, mnist, Dataset},
    train::{
        self, rollback_steps, Event, Facts, InMemory, Mode, Net, Options, Persistence, Source,
        TrainError, Visit,
    },
};

/// Train the paper's perceptron under faults, and undisturbed.
#[derive(Parser)]
#[command(name = "soak", version)]
struct Args {
    /// Folder with the four MNIST files; without it, digits are drawn
    #[arg(long, value_name = "DIR", env = "TLR_DATA")]
    data: Option<PathBuf>,
    /// Passes over the training set, of either run
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1), default_value = "500")]
    epochs: usize,
    /// One batch in N is broken, and another one explodes
    #[arg(long, value_name = "N", value_parser = whole::<u64>(2), default_value = "500")]
    every: u64,
    /// Seconds between kills, at most
    #[arg(long, value_name = "N", value_parser = whole::<u64>(1), default_value = "60")]
    patience: u64,
    /// Seed of the random faults
    #[arg(long, value_name = "N", value_parser = whole::<u64>(0), default_value = "0")]
    seed: u64,
    /// What computes
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// The numbers to train in
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// Where checkpoints and the report go
    #[arg(long, value_name = "DIR", default_value = "out/soak")]
    out: PathBuf,
    /// Train, rather than watch and disturb one that does
    #[arg(long, hide = true)]
    worker: bool,
    /// With broken and exploding batches
    #[arg(long, hide = true)]
    faults: bool,
}

fn main() -> ExitCode {
    let matches = numbers::with_signs(Args::command()).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = if args.worker { work(&args) } else { watch(&args) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

// ---- The one that trains ----

/// Images of which some batches are spoilt: which ones depends on their number and the seed alone.
struct Spoilt<S> {
    inner: S,
    every: u64,
    seed: u64,
}

impl<S: Source> Source for Spoilt<S> {
    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }

    fn classes(&self) -> usize {
        self.inner.classes()
    }

    fn train_len(&self) -> usize {
        self.inner.train_len()
    }

    fn test_len(&self) -> usize {
        self.inner.test_len()
    }

    fn batches_per_epoch(&self) -> usize {
        self.inner.batches_per_epoch()
    }

    fn settings(&self) -> Facts {
        self.inner.settings().with("--every", self.every)
    }

    fn data(&self) -> Result<Facts, TrainError> {
        self.inner.data()
    }

    fn epoch(&self, epoch: usize, skip: usize, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        let mut step = (epoch * self.batches_per_epoch() + skip) as u64;
        let mut spoilt = Vec::new();
        let key = StdRng::seed_from_u64(self.seed).r#gen::<u64>();
        self.inner.epoch(epoch, skip, &mut |pixels, labels| {
            // One generator a step, so that a resumed run meets the same faults.
            let mut random = StdRng::seed_from_u64(key ^ step);
            step += 1;
            let factor = match random.gen_range(0..self.every) {
                0 => f32::NAN,
                1 => 1e4,
                _ => return visit(pixels, labels),
            };
            spoilt.clear();
            spoilt.extend(pixels.iter().map(|pixel| pixel * factor));
            visit(&spoilt, labels)
        })
    }

    fn test(&self, visit: &mut Visit<'_>) -> Result<(), TrainError> {
        self.inner.test(visit)
    }
}

fn work(args: &Args) -> Result<(), Box<dyn Error>> {
    let place = args.device.find(args.precision)?;
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let data = load(args)?;
    let options = Options { epochs: args.epochs, mode: Mode::PerLayer, ..Options::default() };
    let file = checkpoint(&args.out, args.faults);
    let persistence = Persistence {
        checkpoint: Some(&file),
        resume: true,
        stop: Some(&stop),
        ..Persistence::default()
    };
    let inner = InMemory::new(&data, options.batch_size, options.seed, None)?;
    let listen = &mut |event: Event<'_>| {
        if let Event::NotSaved(_) = event {
            let log = File::options().create(true).append(true).open(args.out.join("not-saved"));
            let _ = log.and_then(|mut log| writeln!(log, "1"));
        }
    };
    let run = if args.faults {
        let source = Spoilt { inner, every: args.every, seed: args.seed };
        on_device!(place, D, E => {
            train::train::<Net<D, E>>(&source, &options, &persistence, listen)
        })
    } else {
        on_device!(place, D, E => {
            train::train::<Net<D, E>>(&inner, &options, &persistence, listen)
        })
    };
    let run = match run {
        Err(TrainError::Stopped { .. }) => return Ok(()),
        run => run?,
    };
    // The mean of the last ten epochs: one alone is noise.
    let last: Vec<_> = run.epochs.iter().rev().take(10).collect();
    let mean = |of: fn(&tlr_models::report::Epoch) -> f64| {
        last.iter().map(|epoch| of(epoch)).sum::<f64>() / last.len() as f64
    };
    let result = serde_json::json!({
        "accuracy": mean(|epoch| epoch.test_accuracy),
        "test_loss": mean(|epoch| epoch.test_loss),
        "rollbacks": rollback_steps(&run.history).len(),
        "steps": run.epochs.len() * run.batches_per_epoch,
    });
    fs::write(file.with_extension("json"), result.to_string())?;
    Ok(())
}

fn load(args: &Args) -> Result<Dataset, Box<dyn Error>> {
    Ok(match &args.data {
        Some(dir) => mnist::load(dir)?,
        None => digits::draw(0, 10_000, 2_000)?,
    })
}

fn checkpoint(out: &Path, faults: bool) -> PathBuf {
    out.join(if faults { "disturbed.safetensors" } else { "undisturbed.safetensors" })
}

// ---- The one that disturbs it ----

#[derive(Default)]
struct Disturbed {
    kills: usize,
    interrupts: usize,
    full_disks: usize,
}

/// An error if a run has failed: without it the other one would go on for hours in vain.
fn has_ended_well(run: &str, ended: std::process::ExitStatus) -> Result<(), String> {
    match ended.success() {
        true => Ok(()),
        false => Err(format!("the {run} run has failed: {ended}")),
    }
}

fn watch(args: &Args) -> Result<(), Box<dyn Error>> {
    if args.out.exists() {
        return Err(format!("{} is there already", args.out.display()).into());
    }
    // Before a folder is there that would be in the way of the next try.
    args.device.find(args.precision)?;
    fs::create_dir_all(&args.out)?;
    let start = Instant::now();
    let mut calm = Memory::default();
    let child = worker(args, false, false)?;
    let ended = calm.follow(child, &checkpoint(&args.out, false), Duration::MAX)?.wait()?;
    has_ended_well("undisturbed", ended)?;
    let calm_seconds = start.elapsed().as_secs();

    let start = Instant::now();
    let (disturbed, memory) = disturb(args)?;
    let seconds = start.elapsed().as_secs();
    let not_saved = fs::read_to_string(args.out.join("not-saved")).unwrap_or_default();
    let read = |faults| -> Result<serde_json::Value, Box<dyn Error>> {
        let file = checkpoint(&args.out, faults).with_extension("json");
        let text = fs::read_to_string(&file);
        let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok(serde_json::from_str(&text)?)
    };
    let (with, without) = (read(true)?, read(false)?);
    let mut report = String::from("| | undisturbed | disturbed |\n| --- | --- | --- |\n");
    let mut row = |name: &str, a: String, b: String| {
        report += &format!("| {name} | {a} | {b} |\n");
    };
    let percent = |value: &serde_json::Value| {
        format!("{:.2} %", 100.0 * value["accuracy"].as_f64().unwrap_or(f64::NAN))
    };
    let loss = |value: &serde_json::Value| {
        format!("{:.4}", value["test_loss"].as_f64().unwrap_or(f64::NAN))
    };
    row("epochs", args.epochs.to_string(), args.epochs.to_string());
    row("steps", without["steps"].to_string(), with["steps"].to_string());
    row("accuracy, mean of the last ten epochs", percent(&without), percent(&with));
    row("test loss", loss(&without), loss(&with));
    row("rollbacks", without["rollbacks"].to_string(), with["rollbacks"].to_string());
    row("killed", "0".into(), disturbed.kills.to_string());
    row("interrupted", "0".into(), disturbed.interrupts.to_string());
    row("times the disk was full", "0".into(), disturbed.full_disks.to_string());
    row("saves that failed", "0".into(), not_saved.lines().count().to_string());
    row("minutes", (calm_seconds / 60).to_string(), (seconds / 60).to_string());
    row("memory, MB: first and last tenth", calm.summary(), memory.summary());
    // What grows: losses and decisions are recorded.
    row("checkpoint, MB: first and last", calm.saved(), memory.saved());
    fs::write(args.out.join("soak.md"), &report)?;
    write!(std::io::stdout(), "{report}")?;
    Ok(())
}

/// A process that trains, with room on its disk or without.
fn worker(args: &Args, faults: bool, full: bool) -> Result<Child, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let mut command = if full {
        // The disk is full to a process that may write files of 16 kB.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\""]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.args(["--worker", "--epochs", &args.epochs.to_string()]);
    command.args(["--every", &args.every.to_string(), "--seed", &args.seed.to_string()]);
    command.arg("--out").arg(&args.out);
    let (device, precision) = (train::name(&args.device), train::name(&args.precision));
    command.args(["--device", &device, "--precision", &precision]);
    if let Some(data) = &args.data {
        command.arg("--data").arg(data);
    }
    if faults {
        command.arg("--faults");
    }
    Ok(command.spawn()?)
}

/// Kills, interrupts and fills the disk until the run is done.
fn disturb(args: &Args) -> Result<(Disturbed, Memory), Box<dyn Error>> {
    let mut random = StdRng::seed_from_u64(args.seed);
    let mut done = Disturbed::default();
    let mut memory = Memory::default();
    let file = checkpoint(&args.out, true);
    loop {
        let full = random.gen_bool(0.3);
        if full {
            done.full_disks += 1;
        }
        let wait = Duration::from_millis(random.gen_range(1000..1000 * args.patience.max(2)));
        let mut child = memory.follow(worker(args, true, full)?, &file, wait)?;
        if let Some(status) = child.try_wait()? {
            // Without room it may end without having written its results: once more.
            if !status.success() && full {
                continue;
            }
            if !status.success() {
                return Err(format!("the run itself failed: {status}").into());
            }
            return Ok((done, memory));
        }
        if random.gen_bool(0.3) {
            done.interrupts += 1;
            Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
        } else {
            done.kills += 1;
            child.kill()?;
        }
        child.wait()?;
    }
}

/// Memory and checkpoint in MB, sampled every second.
#[derive(Default)]
struct Memory {
    resident: Vec<f64>,
    checkpoint: Vec<f64>,
}

impl Memory {
    /// Watches a process until it ends, or for the given time.
    fn follow(
        &mut self,
        mut child: Child,
        file: &Path,
        wait: Duration,
    ) -> Result<Child, Box<dyn Error>> {
        let start = Instant::now();
        let mut own = Vec::new();
        while child.try_wait()?.is_none() && start.elapsed() < wait {
            let left = wait.saturating_sub(start.elapsed());
            thread::sleep(left.min(Duration::from_secs(1)));
            let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
            let resident = status.ok().and_then(|status| {
                let line = status.lines().find(|line| line.starts_with("VmRSS"))?;
                line.split_whitespace().nth(1)?.parse::<f64>().ok()
            });
            own.extend(resident.map(|kilobytes| kilobytes / 1e3));
            self.checkpoint.extend(fs::metadata(file).ok().map(|file| file.len() as f64 / 1e6));
        }
        // Not while it reads its data.
        self.resident.extend(own.into_iter().skip(3));
        Ok(child)
    }

    fn summary(&self) -> String {
        let tenth = (self.resident.len() / 10).max(1);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
        let first = mean(self.resident.get(..tenth).unwrap_or(&[]));
        let last =
            mean(self.resident.get(self.resident.len().saturating_sub(tenth)..).unwrap_or(&[]));
        format!("{first:.0}, {last:.0}")
    }
    fn saved(&self) -> String {
        let of = |size: Option<&f64>| size.map_or("-".to_owned(), |size| format!("{size:.1}"));
        format!("{}, {}", of(self.checkpoint.first()), of(self.checkpoint.last()))
    }
}
