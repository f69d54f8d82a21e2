//! What the examples have in common: their flags, progress, files and last words.

mod config;
pub(crate) mod device;
mod flags;
pub(crate) mod follow;
pub(crate) mod numbers;
mod ranks;
mod record;
mod run_json;
mod shown;
mod signals;
mod stderr;
mod threads;

pub(crate) use flags::Training;
pub(crate) use stderr::warn;

use clap::Parser;
use config::Given;
use console::Term;
use device::Place;
use indicatif::{ProgressBar, ProgressStyle};
use std::{error::Error, process::ExitCode};
use tlr_models::{report::OutFolder, train::AnyRanks};

/// A run as it was asked for, and the folder that is its own.
pub(crate) struct Job<'a> {
    training: &'a Training,
    given: Given,
    out: OutFolder,
    ranks: AnyRanks,
    place: Place,
}

impl Job<'_> {
    /// The number of threads that was asked for, or as many as are of use, which is noted.
    #[allow(dead_code)] // Only one example has threads of another kind.
    pub(crate) fn capped(&self, asked: usize, flag: &str) -> usize {
        let (threads, note) = threads::capped(asked, flag);
        if let Some(note) = note {
            self.note(format_args!("{note}"));
        }
        threads
    }

    /// Prints a line on stderr that is no warning.
    pub(crate) fn note(&self, line: std::fmt::Arguments<'_>) {
        if !self.training.quiet && self.ranks.is_first() {
            warn(line);
        }
    }

    /// The device that trains.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// The ranks that train together.
    #[allow(dead_code)] // Not every example shares its work out.
    pub(crate) fn ranks(&self) -> &AnyRanks {
        &self.ranks
    }

    /// Does the work of the first rank before that of the others: they find what it has fetched.
    #[allow(dead_code)]
    pub(crate) fn first_one_first<T>(
        &self,
        work: impl FnOnce() -> Result<T, Box<dyn Error>>,
    ) -> Result<T, Box<dyn Error>> {
        if !self.ranks.is_first() {
            self.ranks.confirm(None)?;
            return work();
        }
        let done = work();
        let told = self.ranks.confirm(done.as_ref().err().map(ToString::to_string).as_deref());
        let done = done?;
        told?;
        Ok(done)
    }

    /// A progress bar, which is shown on a terminal only.
    pub(crate) fn progress_bar(&self) -> ProgressBar {
        if self.training.quiet || !self.ranks.is_first() {
            return ProgressBar::hidden();
        }
        let columns = Term::stderr().size_checked().map(|(_, columns)| columns);
        let style = match columns {
            // A narrow terminal has room for one short line.
            Some(..80) => "{percent:>3}%  {eta:>4} left  {wide_msg}",
            _ => "{elapsed:>4} {bar:24.cyan/dim} {percent:>3}%  {eta:>4} left  {msg}",
        };
        let bar = ProgressBar::no_length();
        match ProgressStyle::with_template(style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// Parses the command line, with other defaults for some flags, claims the folder, and does `work`
/// on the threads that were asked for. Errors go to stderr.
pub(crate) fn run<A: Parser + Sync>(
    defaults: &[(&'static str, &'static str)],
    training: impl Fn(&A) -> &Training,
    work: impl FnOnce(&A, &Job<'_>) -> Result<ExitCode, Box<dyn Error>> + Send,
) -> ExitCode {
    let command = numbers::with_signs(A::command().version(config::VERSION));
    let command = defaults.iter().fold(command, |command, &(flag, value)| {
        command.mut_arg(flag, |arg| arg.default_value(value))
    });
    let ended = config::parse::<A>(command).and_then(|(args, given)| {
        let training = training(&args);
        let asked = training.threads;
        let (threads, note) = asked.map_or((0, None), |asked| threads::capped(asked, "--threads"));
        // This thread becomes one of the pool. From outside the pool it would fall asleep and wait
        // for the others in every layer.
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(threads.install(|| together(&args, training, given, note, work)))
    });
    ended.unwrap_or_else(|error| {
        tell_error(None, &*error);
        ExitCode::FAILURE
    })
}

/// The work of this process, as one of those that the run was started with.
fn together<A>(
    args: &A,
    training: &Training,
    given: Given,
    note: Option<String>,
    work: impl FnOnce(&A, &Job<'_>) -> Result<ExitCode, Box<dyn Error>>,
) -> ExitCode {
    let ranks = match ranks::all() {
        Ok(ranks) => ranks,
        Err(error) => {
            tell_error(None, &*error);
            return ExitCode::FAILURE;
        }
    };
    let found = training.device.find(training.precision).map_err(Box::from);
    let done = found.and_then(|place| Ok((place, ranks::claim(&training.out, &ranks)?)));
    let from = given.data_from.clone();
    let done = done.and_then(|(place, out)| {
        let job = Job { training, given, out, ranks: ranks.clone(), place };
        if let Some(note) = note {
            job.note(format_args!("{note}"));
        }
        let told = |error: Box<dyn Error>| match &from {
            // Nobody has typed it.
            Some(variable) => format!("{error} (--data is from the variable {variable})").into(),
            None => error,
        };
        work(args, &job).map_err(told)
    });
    done.unwrap_or_else(|error| {
        tell_error(Some(&ranks), &*error);
        // A rank that waits for this one gets the error. If all have failed, none waits.
        ranks.leave(&error.to_string());
        ExitCode::FAILURE
    })
}

/// An error on stderr, with the rank that it is of if there are several.
fn tell_error(ranks: Option<&AnyRanks>, error: &dyn Error) {
    match ranks.filter(|ranks| ranks.size() > 1) {
        Some(ranks) => warn(format_args!("rank {}: error: {error}", ranks.rank())),
        None => warn(format_args!("error: {error}")),
    }
}
