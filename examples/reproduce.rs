//! Makes the evidence: `tlr` without a number given beside its peers and a search by hand, over
//! small tasks, as one HTML page.
//!
//! ```text
//! cargo run --release --features lab --example reproduce -- list
//! cargo run --release --features lab --example reproduce -- run --data DIR
//! cargo run --release --features lab --example reproduce -- report
//! ```
//!
//! Stop it whenever you like: started again with the same `--out`, it goes on where it was.

#[path = "common/many.rs"]
mod many;
#[path = "common/numbers.rs"]
mod numbers;
#[path = "common/threads.rs"]
mod threads;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use many::{progress_bar, say};
use numbers::whole;
use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};
use tlr_models::{
    lab::{self, Cell, Contender, Findings, Folders, Ready, Record, Results, Scale, Task},
    report,
    sweep::Ended,
};

/// Train every contender on every task, and write a page about it.
#[derive(Parser)]
#[command(name = "reproduce", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the runs that are not done yet
    Run(Run),
    /// Write report.html beside the results
    Report {
        /// Folder with the results
        #[arg(long = "in", value_name = "DIR", default_value = "out/lab")]
        folder: PathBuf,
        /// Whose results
        #[arg(long, value_enum, default_value_t = Scale::Small)]
        scale: Scale,
    },
    /// Name the tasks and the contenders
    List,
}

#[derive(clap::Args)]
struct Run {
    /// Names or beginnings of names of tasks [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Names or beginnings of names of contenders [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    contenders: Vec<String>,
    /// Each draws other first weights and another order of the examples
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = whole::<u64>(0))]
    #[arg(default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// How much is trained
    #[arg(long, value_enum, default_value_t = Scale::Small)]
    scale: Scale,
    /// Folder with mnist, cifar10 and multi30k in it, as far as they are at hand. Digits are drawn
    /// in place of MNIST; tasks on the others are left out without them
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for the results; what it has is not done again
    #[arg(long, value_name = "DIR", default_value = "out/lab")]
    out: PathBuf,
    /// Runs at a time, each on one thread [default: one a core]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1))]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let command = Args::command().mut_subcommand("run", numbers::with_signs);
    let matches = command.get_matches();
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
        Command::Run(args) => train(args),
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

fn train(args: &Run) -> Result<(), Box<dyn Error>> {
    let tasks = chosen(lab::tasks(), &args.tasks, "task", |task| task.name)?;
    let contenders =
        chosen(lab::contenders(), &args.contenders, "contender", |one| one.name.as_str())?;
    let jobs = many::jobs(args.jobs)?;
    let folders = args.data.as_ref().map(Folders::below).unwrap_or_default();
    let mut results = Results::open(&args.out, args.scale)?;
    let mut open: Vec<(Task, Box<dyn Ready>)> = Vec::new();
    for task in tasks {
        match task.open(&folders, args.scale)? {
            Some(ready) => open.push((task, ready)),
            None => writeln!(
                io::stderr(),
                "{} is left out: there is no folder {} in --data",
                task.name,
                task.needs.unwrap_or_default()
            )?,
        }
    }
    // The seed is outermost: a program that stops early has whole tables.
    let mut cells = Vec::new();
    for &seed in &args.seeds {
        for (task, ready) in &open {
            let of_task = contenders.iter().map(|contender| (contender, &**ready));
            cells.extend(of_task.map(|(contender, ready)| Cell { task, ready, contender, seed }));
        }
    }
    let done = cells.iter().filter(|cell| results.of(cell).is_some()).count();
    let bar = progress_bar((cells.len() - done) as u64);
    say(&bar, &format!("runs: {}, done before: {done}", cells.len()))?;
    let mut said = Ok(());
    let failed = lab::run_cells(&cells, jobs, &mut results, &mut |record| {
        if said.is_ok() {
            said = say(&bar, &line(record));
        }
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    let page = results.folder().file("report.html");
    report::write(&page, lab::html(&Findings::of(&results)))?;
    say(&bar, &format!("results in {}, and what they say in report.html", args.out.display()))?;
    match failed {
        0 => Ok(said?),
        _ => Err(format!(
            "{}; the same command runs what failed again",
            report::count(failed, "failed run")
        )
        .into()),
    }
}

fn write_page(folder: &Path, scale: Scale) -> Result<(), Box<dyn Error>> {
    let results = Results::open(folder, scale)?;
    let page = results.folder().file("report.html");
    report::write(&page, lab::html(&Findings::of(&results)))?;
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
