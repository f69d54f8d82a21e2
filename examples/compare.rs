//! Compares runs of `translate`, or of the other examples: a table, and the curves of each method's best run.
//!
//! ```text
//! cargo run --release --features text --example translate -- --data DIR --out runs/adam-newton
//! cargo run --release --features text --example translate -- --data DIR --out runs/adam-1e-3 --rule constant --rate 1e-3
//! cargo run --release --example compare -- runs/* --out results/translation
//! ```
//!
//! A method is an optimizer with a rule and a mode; its best run has the lowest test loss of any epoch.

use clap::Parser;
use serde_json::Value;
use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tlr_models::report::{self, Compared, Comparison, Epoch};

/// Compare training runs: a table, and the curves of each method's best run.
#[derive(Parser)]
#[command(name = "compare")]
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
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A run, read from its folder.
struct Run {
    name: String,
    /// What `run.json` says.
    said: Value,
    epochs: Vec<Epoch>,
    last: Epoch,
    /// Of lowest test loss.
    best: Epoch,
}

impl Run {
    fn read(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let path = dir.join("run.json");
        let failed = |error: &dyn Error| format!("cannot read {}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let said = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        let epochs = report::read_epochs_csv(&dir.join("epochs.csv"))?;
        let none = || format!("{} has no epochs", dir.display());
        let best = epochs.iter().min_by(|a, b| a.test_loss.total_cmp(&b.test_loss));
        let (last, best) = (epochs.last().ok_or_else(none)?, best.ok_or_else(none)?);
        Ok(Self { name, said, last: last.clone(), best: best.clone(), epochs })
    }

    fn text(&self, key: &str) -> &str {
        self.said.get(key).and_then(Value::as_str).unwrap_or("–")
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.said.get(key).and_then(Value::as_f64)
    }

    fn rate(&self) -> f64 {
        self.number("rate").unwrap_or(f64::NAN)
    }

    /// Whatever the rate it started from.
    fn method(&self) -> String {
        let optimizer = self.text("optimizer");
        match (self.text("rule"), self.text("mode")) {
            ("constant", _) => optimizer.to_owned(),
            ("aligned", "global") => format!("Newton around {optimizer}"),
            (rule, mode) => format!("{rule} {mode} around {optimizer}"),
        }
    }
}

fn compare(args: &Args) -> Result<(), Box<dyn Error>> {
    let runs = args.runs.iter().map(|dir| Run::read(dir)).collect::<Result<Vec<_>, _>>()?;
    let data = runs.first().map_or("–", |run| run.text("data"));
    if let Some(other) = runs.iter().find(|run| run.text("data") != data) {
        let (name, found) = (&other.name, other.text("data"));
        return Err(format!("{name} was trained on {found}, and the first run on {data}").into());
    }
    let mut best: Vec<&Run> = Vec::new();
    for run in &runs {
        match best.iter_mut().find(|other| other.method() == run.method()) {
            Some(other) if run.best.test_loss < other.best.test_loss => *other = run,
            Some(_) => {}
            None => best.push(run),
        }
    }
    let table = table(&runs, &best);
    let comparison =
        Comparison { title: data.to_owned(), runs: best.iter().map(|run| compared(run)).collect() };

    let failed = |error| format!("cannot write to {}: {error}", args.out.display());
    fs::create_dir_all(&args.out).map_err(failed)?;
    for run in &runs {
        report::write_epochs_csv(&args.out.join(format!("{}.csv", run.name)), &run.epochs)?;
    }
    fs::write(args.out.join("table.md"), &table).map_err(failed)?;
    comparison.write_svg(&args.out.join("losses.svg"))?;
    writeln!(std::io::stdout(), "{table}\ntable and curves in {}", args.out.display())?;
    Ok(())
}

/// A row a run, the best of each method in bold.
fn table(runs: &[Run], best: &[&Run]) -> String {
    let mut text = "| method | starting rate | last rate | training loss | validation loss | lowest (epoch) | \
                    token accuracy | BLEU | rollbacks | seconds |\n|"
        .to_owned();
    text += &" --- |".repeat(10);
    for run in runs {
        let bold = if best.iter().any(|best| std::ptr::eq(*best, run)) { "**" } else { "" };
        let Run { last, best, epochs, .. } = run;
        let bleu = run.number("bleu").map_or("–".to_owned(), |bleu| format!("{bleu:.2}"));
        let rollbacks: usize = epochs.iter().map(|epoch| epoch.rollbacks).sum();
        let seconds: f64 = epochs.iter().map(|epoch| epoch.seconds).sum();
        text += &format!(
            "\n| {bold}{}{bold} | {:e} | {} | {:.3} | {:.3} | {:.3} ({}) | {:.1} % | {bleu} | {rollbacks} | {seconds:.0} |",
            run.method(),
            run.rate(),
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
    // One line a run: with a rate a layer, that of the first.
    let first = |epoch: &Epoch| epoch.rates.first().map_or(f64::NAN, |(_, rate)| *rate);
    let mut rate: Vec<(f64, f64)> = points(first);
    rate.insert(0, (0.0, run.rate()));
    Compared {
        name: format!("{} from {:e}", run.method(), run.rate()),
        train_loss: points(|epoch| epoch.train_loss),
        loss: points(|epoch| epoch.test_loss),
        rate,
    }
}
