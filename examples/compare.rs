//! Compares runs of `translate`, or of the other examples: a table, and the curves of each method's
//! best run.
//!
//! ```text
//! cargo run --release --features text --example translate -- --data DIR --out runs/adam-newton
//! cargo run --release --features text --example translate -- --data DIR --out runs/adam-1e-3 \
//!   --rule constant --rate 1e-3
//! cargo run --release --example compare -- runs/* --out results/translation
//! ```
//!
//! A method is an optimizer with a rule and a mode; its best run has the lowest test loss of any
//! epoch.

#[path = "common/run_json.rs"]
mod run_json;

use clap::Parser;
use run_json::{RunJson, OF_EXAMPLES, OF_TOKENS};
use serde_json::Value;
use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    process::ExitCode,
};
use tlr_models::{
    report::{self, Compared, Comparison, Epoch, OutFolder},
    train::Facts,
};

/// What to try first.
const EXAMPLES: &str = "\
Examples:
  Two runs, by the folders that they were given as --out:
    compare out/first out/second
  All runs of a folder, with the results elsewhere:
    compare runs/* --out results";

/// Compare training runs: a table, and the curves of each method's best run.
#[derive(Parser)]
#[command(name = "compare", version, after_help = EXAMPLES)]
struct Args {
    /// What the runs were given as --out
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Where table.md, losses.svg and each run's epochs go
    #[arg(long, value_name = "DIR", default_value = "out/compare")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A run, read from its folder.
struct Run {
    /// The end of its path, as long as it takes to differ from those of all other runs.
    name: String,
    /// Its run.json.
    said: RunJson,
    /// The starting rate, unless it was looked for.
    rate: Option<f64>,
    bleu: Option<f64>,
    epochs: Vec<Epoch>,
    last: Epoch,
    /// The epoch of lowest test loss.
    best: Epoch,
}

impl Run {
    /// `None` for a run that has no epoch yet.
    fn read(dir: &Path, name: String) -> Result<Option<Self>, Box<dyn Error>> {
        let said = RunJson::read(&dir.join("run.json"))?;
        let ramped = said.rule == "aligned" && said.settings.get("no-ramp") == Some(&false.into());
        let epochs = report::read_epochs_csv(&dir.join("epochs.csv"))?;
        let best = epochs.iter().min_by(|a, b| a.test_loss.total_cmp(&b.test_loss));
        let (Some(last), Some(best)) = (epochs.last(), best) else { return Ok(None) };
        Ok(Some(Self {
            name,
            rate: Some(said.rate).filter(|_| !ramped),
            bleu: said.figures.get("bleu").and_then(Value::as_f64),
            said,
            last: last.clone(),
            best: best.clone(),
            epochs,
        }))
    }

    /// Why its losses are not to be compared with those of `first`.
    fn differs(&self, first: &Self) -> Option<String> {
        let (name, other) = (&self.name, &first.name);
        let (own, others) = (&self.said, &first.said);
        let changes = |names: &[&str]| {
            let of = |run: &RunJson| {
                let values = names.iter().filter_map(|name| Some((name, run.settings.get(*name)?)));
                values.fold(Facts::default(), |facts, (name, value)| {
                    facts.with(&format!("--{name}"), value)
                })
            };
            of(others).changes(&of(own))
        };
        if own.data != others.data {
            return Some(format!(
                "{name} was trained on {}, and {other} on {}",
                own.data, others.data
            ));
        }
        if let Some(tokens) = changes(&OF_TOKENS) {
            return Some(format!("{name} has other tokens than {other}: {tokens}"));
        }
        (own.fingerprint != others.fingerprint).then(|| {
            let changed = "its files have changed".to_owned();
            let why = changes(&OF_EXAMPLES).map_or(changed, |changes| changes.to_string());
            format!("{name} was trained or tested on other data than {other}: {why}")
        })
    }

    /// The method in words, without the starting rate.
    fn method(&self) -> String {
        let RunJson { optimizer, rule, mode, .. } = &self.said;
        match (rule.as_str(), mode.as_str()) {
            ("constant", _) => optimizer.clone(),
            ("aligned", "global") => format!("Newton around {optimizer}"),
            (rule, mode) => format!("{rule} {mode} around {optimizer}"),
        }
    }
}

/// For each path its end that no other has: `newton`, or `a/newton` beside `b/newton`. One that is
/// itself the end of another has all of its folders. No name begins at the root: files of these
/// names lie in `--out`.
fn names(paths: &[PathBuf]) -> Result<Vec<String>, String> {
    let parts = |path: &Path| -> Vec<String> {
        // A path that does not exist is an error when it is read.
        let path = fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let path = path.unwrap_or_default();
        let word = |part: Component<'_>| match part {
            Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
            // A drive: `C`.
            Component::Prefix(drive) => {
                let drive = drive.as_os_str().to_string_lossy().into_owned();
                Some(drive.chars().filter(|letter| letter.is_alphanumeric()).collect())
            }
            _ => None,
        };
        path.components().filter_map(word).collect()
    };
    let all: Vec<Vec<String>> = paths.iter().map(|path| parts(path)).collect();
    let name = |(place, own): (usize, &Vec<String>)| {
        let others = || all.iter().enumerate().filter(|(other, _)| *other != place);
        let ends = (1..=own.len()).map(|length| &own[own.len() - length..]);
        let mut free = ends.filter(|end| others().all(|(_, other)| !other.ends_with(end)));
        match free.next() {
            Some(end) => Ok(end.join("/")),
            None if others().any(|(_, other)| other == own) => {
                Err(format!("{} was given twice", paths[place].display()))
            }
            None => Ok(own.join("/")),
        }
    };
    all.iter().enumerate().map(name).collect()
}

fn compare(args: &Args) -> Result<(), Box<dyn Error>> {
    let names = names(&args.runs)?;
    let mut runs = Vec::new();
    for (dir, name) in args.runs.iter().zip(names) {
        match Run::read(dir, name)? {
            Some(run) => runs.push(run),
            // If nobody reads stderr, that is no error.
            None => {
                let _ =
                    writeln!(io::stderr(), "warning: {} has no epochs: left out", dir.display());
            }
        }
    }
    let first = runs.first().ok_or("no run has epochs")?;
    if let Some(why) = runs.iter().find_map(|run| run.differs(first)) {
        return Err(why.into());
    }
    let mut best: Vec<&Run> = Vec::new();
    for run in &runs {
        match best.iter_mut().find(|other| other.method() == run.method()) {
            // A loss that is no number is above all others.
            Some(other) if run.best.test_loss.total_cmp(&other.best.test_loss).is_lt() => {
                *other = run;
            }
            Some(_) => {}
            None => best.push(run),
        }
    }
    let table = table(&runs, &best);
    let best = best.iter().map(|run| compared(run));
    let comparison = Comparison { title: first.said.data.clone(), runs: best.collect() };

    let out = OutFolder::claim(&args.out)?;
    for run in &runs {
        let path = out.file(&format!("{}.csv", run.name));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        }
        report::write_epochs_csv(&path, &run.epochs)?;
    }
    report::write(&out.file("table.md"), &table)?;
    report::write(&out.file("losses.svg"), comparison.to_svg())?;
    match writeln!(io::stdout(), "{table}\ntable and curves in {}", args.out.display()) {
        // If the reader of stdout has gone, that is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The table: a row for each run, the best of each method in bold.
fn table(runs: &[Run], best: &[&Run]) -> String {
    // Only translations have a BLEU, and an accuracy of tokens.
    let translated = runs.iter().any(|run| run.bleu.is_some());
    let accuracy = if translated { "token accuracy | BLEU" } else { "accuracy" };
    let mut text = format!(
        "| run | method | starting rate | learned rate | training loss | validation loss | lowest \
         (epoch) | {accuracy} | rollbacks | seconds |\n|"
    );
    text += &" --- |".repeat(if translated { 11 } else { 10 });
    for run in runs {
        let bold = if best.iter().any(|best| std::ptr::eq(*best, run)) { "**" } else { "" };
        let Run { last, best, epochs, .. } = run;
        let ended = match &*run.said.ended {
            "finished" => String::new(),
            why => format!(" ({why})"),
        };
        let bleu = match run.bleu {
            Some(bleu) => format!(" {bleu:.2} |"),
            None if translated => " – |".to_owned(),
            None => String::new(),
        };
        let rollbacks: usize = epochs.iter().map(|epoch| epoch.rollbacks).sum();
        let seconds: f64 = epochs.iter().map(|epoch| epoch.seconds).sum();
        text += &format!(
            "\n| {}{ended} | {bold}{}{bold} | {} | {} | {:.3} | {:.3} | {:.3} ({}) | {:.1} % |\
             {bleu} {rollbacks} | {seconds:.0} |",
            run.name.replace('|', "\\|"),
            run.method(),
            run.rate.map_or("found".to_owned(), |rate| format!("{rate:e}")),
            report::rates(&last.rates),
            last.train_loss,
            last.test_loss,
            best.test_loss,
            best.epoch,
            100.0 * last.test_accuracy,
        );
    }
    text + "\n"
}

fn compared(run: &Run) -> Compared {
    let points = |of: fn(&Epoch) -> f64| {
        run.epochs.iter().map(|epoch| (epoch.epoch as f64, of(epoch))).collect()
    };
    // One line a run, of the rate in force: with a rate a layer, that of the first.
    let first =
        |epoch: &Epoch| epoch.rates.first().map_or(f64::NAN, |(_, rate)| rate * epoch.schedule);
    let mut rate: Vec<(f64, f64)> = points(first);
    if let Some(start) = run.rate {
        rate.insert(0, (0.0, start));
    }
    let from = run.rate.map_or(String::new(), |rate| format!(" from {rate:e}"));
    Compared {
        name: run.method() + &from,
        train_loss: points(|epoch| epoch.train_loss),
        loss: points(|epoch| epoch.test_loss),
        rate,
    }
}
