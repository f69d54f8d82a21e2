//! Makes the evidence, as HTML pages: the paper's figures and tables, and `tlr` without a number
//! given beside its peers and a search by hand, over small tasks.
//!
//! ```text
//! cargo run --release --features lab --example reproduce -- list
//! cargo run --release --features lab --example reproduce -- fig2 --data DIR
//! cargo run --release --features lab --example reproduce -- all --scale paper --data DIR
//! cargo run --release --features lab --example reproduce -- run --data DIR
//! cargo run --release --features lab --example reproduce -- report
//! ```
//!
//! Stop it whenever you like: started again with the same `--out`, it goes on where it was.

#[path = "common/device.rs"]
mod device;
#[path = "common/many.rs"]
mod many;
#[path = "common/numbers.rs"]
mod numbers;
#[path = "common/threads.rs"]
mod threads;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use device::{Device, Precision};
use indicatif::ProgressBar;
use many::{progress_bar, say};
use numbers::whole;
use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};
use tlr_models::{
    lab::{
        self, Cell, Contender, Exhibit, Findings, Folders, Part, Place, Ready, Record, Results,
        Scale, Task,
    },
    report,
    sweep::Ended,
};

/// Make the paper's figures and tables, or train every contender on every task, and write a page.
#[derive(Parser)]
#[command(name = "reproduce", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Figure 1: rates over the length of a window and over the damping
    Fig1(Runs),
    /// Figure 2: losses and rates from nine starting rates
    Fig2(Runs),
    /// Table 1: learned rates and hypergradients, on MNIST and on CIFAR
    Table1(Runs),
    /// Figure 3: all optimizers on CIFAR with a wide residual network
    Fig3(Runs),
    /// Figure 4: optimizers on a folder of pictures with ResNet-50
    Fig4(Runs),
    /// Figure 5: a transformer with SGD and Adam, each with a learned rate and without
    Fig5(Runs),
    /// What the library has beside the paper's rule, each part on and off
    Ablations(Runs),
    /// Optimizers that find their own rate, and a search by hand, on MNIST
    Peers(Runs),
    /// All of the above
    All(Runs),
    /// Every contender on every task of the laboratory
    Run(Choice),
    /// Write report.html beside the results of `run`, or of the other parts
    Report {
        /// Folder with the results
        #[arg(long = "in", value_name = "DIR", default_value = "out/lab")]
        folder: PathBuf,
        /// Whose results
        #[arg(long, value_enum, default_value_t = Scale::Small)]
        scale: Scale,
    },
    /// Name the tasks and the contenders of `run`
    List,
}

#[derive(clap::Args)]
struct Choice {
    /// Names or beginnings of names of tasks [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Names or beginnings of names of contenders [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    contenders: Vec<String>,
    #[command(flatten)]
    runs: Runs,
}

#[derive(clap::Args)]
struct Runs {
    /// Each draws other first weights and another order of the examples [default: 0, and 0,1,2 of
    /// `run`]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = whole::<u64>(0))]
    seeds: Vec<u64>,
    /// How much is trained
    #[arg(long, value_enum, default_value_t = Scale::Small)]
    scale: Scale,
    /// Folder with mnist, cifar10, cifar100, multi30k and imagenet in it, as far as they are at
    /// hand. Data are drawn in place of others; two tasks of `run` are left out without theirs
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What computes. A GPU trains images and sentences by this library's trainer; the rest is
    /// named and left out
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// Folder for the results; what it has is not done again [default: out/paper, and out/lab of
    /// `run`; out/paper-cuda and out/lab-cuda on a GPU]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Runs at a time, each on one thread [default: one a core, and one on a GPU]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1))]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let names: Vec<_> =
        Args::command().get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let with_signs = |all: clap::Command, name| all.mut_subcommand(name, numbers::with_signs);
    let matches = names.into_iter().fold(Args::command(), with_signs).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(&args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Fig1(args) => paper(Some(Part::Fig1), args),
        Command::Fig2(args) => paper(Some(Part::Fig2), args),
        Command::Table1(args) => paper(Some(Part::Table1), args),
        Command::Fig3(args) => paper(Some(Part::Fig3), args),
        Command::Fig4(args) => paper(Some(Part::Fig4), args),
        Command::Fig5(args) => paper(Some(Part::Fig5), args),
        Command::Ablations(args) => paper(Some(Part::Ablations), args),
        Command::Peers(args) => paper(Some(Part::Peers), args),
        Command::All(args) => paper(None, args),
        Command::Run(args) => laboratory(args),
        Command::Report { folder, scale } => write_page(folder, *scale),
        Command::List => list(),
    }
}

fn list() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    writeln!(out, "Tasks:")?;
    for Task { name, about, needs, .. } in lab::tasks() {
        let needs = needs.map(|folder| format!(" (needs {folder})")).unwrap_or_default();
        writeln!(out, "  {name:16} {about}{needs}")?;
    }
    writeln!(out, "\nContenders, and how many settings have to be chosen:")?;
    for Contender { name, settings, .. } in lab::contenders() {
        writeln!(out, "  {name:28} {settings}")?;
    }
    Ok(())
}

/// Those whose names begin with one of `wanted`; all if nothing is wanted.
fn chosen<T>(
    all: Vec<T>,
    wanted: &[String],
    what: &str,
    name: impl Fn(&T) -> &str,
) -> Result<Vec<T>, String> {
    let begins = |one: &T, word: &String| name(one).starts_with(word.as_str());
    if let Some(word) = wanted.iter().find(|word| !all.iter().any(|one| begins(one, word))) {
        return Err(format!("no {what} begins with {word}: `reproduce list` names them"));
    }
    let wanted = |one: &T| wanted.is_empty() || wanted.iter().any(|word| begins(one, word));
    Ok(all.into_iter().filter(wanted).collect())
}

/// The figures and tables of one part, or of all.
fn paper(part: Option<Part>, args: &Runs) -> Result<(), Box<dyn Error>> {
    let all = lab::exhibits(args.scale);
    let wanted: Vec<&Exhibit> =
        all.iter().filter(|one| part.is_none_or(|part| one.part == part)).collect();
    let place = place(args)?;
    let out = args.out.clone().unwrap_or_else(|| usual("out/paper", place));
    let folders = folders(args, &out)?;
    let mut results = Results::open(&out, args.scale)?;
    let seeds = seeds(args, &[0]);
    let page = |results: &Results| {
        report::write(&results.folder().file("report.html"), lab::paper_html(&all, results))
    };
    let mut failed = 0;
    for (n, exhibit) in wanted.iter().enumerate() {
        let heading = format!("{} ({} of {})", exhibit.title, n + 1, wanted.len());
        say(&ProgressBar::hidden(), &heading)?;
        let open = open(&exhibit.tasks, &folders, args.scale, place)?;
        let contenders = able(exhibit.contenders(), place)?;
        let cells = cells(&open, &contenders, &seeds);
        failed += make(&cells, args, place, &mut results)?;
        page(&results)?;
    }
    end(failed, &out)
}

/// Every contender on every task.
fn laboratory(args: &Choice) -> Result<(), Box<dyn Error>> {
    let tasks = chosen(lab::tasks(), &args.tasks, "task", |task| task.name)?;
    let contenders =
        chosen(lab::contenders(), &args.contenders, "contender", |one| one.name.as_str())?;
    let place = place(&args.runs)?;
    let out = args.runs.out.clone().unwrap_or_else(|| usual("out/lab", place));
    let folders = folders(&args.runs, &out)?;
    let mut results = Results::open(&out, args.runs.scale)?;
    let open = open(&tasks, &folders, args.runs.scale, place)?;
    let seeds = seeds(&args.runs, &[0, 1, 2]);
    let contenders = able(contenders.iter().collect(), place)?;
    let cells = cells(&open, &contenders, &seeds);
    let failed = make(&cells, &args.runs, place, &mut results)?;
    let page = results.folder().file("report.html");
    report::write(&page, lab::html(&Findings::of(&results)))?;
    end(failed, &out)
}

/// The folders of data. A mistyped `--data` is an error: drawn data would take their place.
fn folders(args: &Runs, out: &Path) -> Result<Folders, String> {
    match &args.data {
        Some(data) if !data.is_dir() => {
            Err(format!("--data: there is no folder {}", data.display()))
        }
        data => Ok(data.as_ref().map(Folders::below).unwrap_or_default().scratch(out)),
    }
}

fn seeds(args: &Runs, usual: &[u64]) -> Vec<u64> {
    match &*args.seeds {
        [] => usual.into(),
        asked => asked.into(),
    }
}

/// Where runs are made.
fn place(args: &Runs) -> Result<Place, String> {
    Ok(match args.device.find(Precision::F32)? {
        device::Place::Cpu => Place::Cpu,
        #[cfg(feature = "cuda")]
        device::Place::Cuda | device::Place::CudaHalf => Place::Gpu,
    })
}

/// The folder for results where none is given: one for each device, as times and the last digits
/// differ.
fn usual(folder: &str, place: Place) -> PathBuf {
    match place {
        Place::Cpu => folder.into(),
        #[cfg(feature = "cuda")]
        Place::Gpu => format!("{folder}-cuda").into(),
    }
}

/// The contenders that can learn at a place, with a note on those that cannot.
fn able(all: Vec<&Contender>, place: Place) -> io::Result<Vec<&Contender>> {
    let (able, left): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| place == Place::Cpu || one.on_gpu());
    if !left.is_empty() {
        let names: Vec<_> = left.iter().map(|one| one.name.as_str()).collect();
        let names = names.join(", ");
        writeln!(io::stderr(), "left out, because only the CPU trains by them: {names}")?;
    }
    Ok(able)
}

/// A task and its data.
type Opened<'a> = (&'a Task, Box<dyn Ready>);

/// The tasks with their data, and a note on each whose data are not there.
fn open<'a>(
    tasks: &'a [Task],
    folders: &Folders,
    scale: Scale,
    place: Place,
) -> Result<Vec<Opened<'a>>, Box<dyn Error>> {
    let mut open = Vec::new();
    for task in tasks {
        if place != Place::Cpu && !task.on_gpu {
            writeln!(io::stderr(), "{} is left out: only the CPU trains its model", task.name)?;
            continue;
        }
        match task.open_at(folders, scale, place)? {
            Some(ready) => open.push((task, ready)),
            None => writeln!(
                io::stderr(),
                "{} is left out: there is no folder {} in --data",
                task.name,
                task.needs.unwrap_or_default()
            )?,
        }
    }
    Ok(open)
}

/// The seed is outermost: a program that stops early has whole tables.
fn cells<'a>(open: &'a [Opened<'_>], contenders: &[&'a Contender], seeds: &[u64]) -> Vec<Cell<'a>> {
    let mut cells = Vec::new();
    for &seed in seeds {
        for (task, ready) in open {
            let of_task = contenders.iter().map(|&contender| (contender, &**ready));
            cells.extend(of_task.map(|(contender, ready)| Cell { task, ready, contender, seed }));
        }
    }
    cells
}

/// Makes the runs that are not done yet, and returns how many have failed.
fn make(
    cells: &[Cell<'_>],
    args: &Runs,
    place: Place,
    results: &mut Results,
) -> Result<usize, Box<dyn Error>> {
    let jobs = match place {
        Place::Cpu => many::jobs(args.jobs)?,
        // They would wait for each other.
        #[cfg(feature = "cuda")]
        Place::Gpu => args.jobs.unwrap_or(1),
    };
    let done = cells.iter().filter(|cell| results.of(cell).is_some()).count();
    let bar = progress_bar((cells.len() - done) as u64);
    say(&bar, &format!("runs: {}, done before: {done}", cells.len()))?;
    let mut said = Ok(());
    let watch = |cell: &Cell<'_>, step: usize, loss: f64| {
        let steps = cell.ready.budget().steps();
        bar.set_message(format!("{cell:?}: step {step} of {steps}, loss {loss:.3}"));
    };
    let failed = lab::run_cells(cells, jobs, results, &watch, &mut |record| {
        if said.is_ok() {
            said = say(&bar, &line(record));
        }
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    said?;
    Ok(failed)
}

fn end(failed: usize, out: &Path) -> Result<(), Box<dyn Error>> {
    if failed > 0 {
        let failed = report::count(failed, "failed run");
        return Err(format!("{failed}; the same command runs what failed again").into());
    }
    let out = out.display();
    Ok(say(&ProgressBar::hidden(), &format!("results in {out}, and what they say in report.html"))?)
}

/// Writes the page of the results in a folder: that of the paper's parts if they are of these, and
/// that of the laboratory otherwise.
fn write_page(folder: &Path, scale: Scale) -> Result<(), Box<dyn Error>> {
    let nothing = || format!("there are no results of this scale in {}", folder.display());
    if !folder.join("runs.csv").is_file() {
        return Err(nothing().into());
    }
    let results = Results::open(folder, scale)?;
    let first = results.records().next().ok_or_else(nothing)?;
    let exhibits = lab::exhibits(scale);
    let mut of_the_paper = exhibits.iter().flat_map(|exhibit| &exhibit.tasks);
    let html = if of_the_paper.any(|task| task.name == first.task) {
        lab::paper_html(&exhibits, &results)
    } else {
        lab::html(&Findings::of(&results))
    };
    let page = results.folder().file("report.html");
    report::write(&page, html)?;
    Ok(writeln!(io::stdout(), "{}", page.display())?)
}

/// A run in a line.
fn line(record: &Record) -> String {
    let Record { task, contender, seed, seconds, .. } = record;
    let came = match (record.ended, record.loss, record.accuracy) {
        (Ended::Failed, ..) => format!("failed: {}", record.error),
        (_, Some(loss), Some(accuracy)) => format!("loss {loss:.4}, {:.1} %", 100.0 * accuracy),
        (_, Some(loss), None) => format!("loss {loss:.4}"),
        (..) => format!("diverged: {}", record.error),
    };
    format!("{task} {contender} {seed}: {came}, {seconds:.1} s")
}
