//! What the examples have in common: their flags, progress, files and last words.

mod config;
mod flags;
pub(crate) mod follow;
pub(crate) mod numbers;
mod record;
mod shown;
mod signals;
mod stderr;
mod threads;

pub(crate) use flags::Training;
pub(crate) use stderr::warn;

use clap::Parser;
use config::Given;
use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use std::{error::Error, process::ExitCode};
use tlr_models::report::OutFolder;

/// A run as it was asked for, and the folder that is its own.
pub(crate) struct Job<'a> {
    training: &'a Training,
    given: Given,
    out: OutFolder,
}

impl Job<'_> {
    /// The number of threads that was asked for, or as many as are of use, which is noted.
    pub(crate) fn capped(&self, asked: usize, flag: &str) -> usize {
        let (threads, note) = threads::capped(asked, flag);
        if let Some(note) = note {
            self.note(format_args!("{note}"));
        }
        threads
    }

    /// Prints a line on stderr that tells of nothing bad.
    pub(crate) fn note(&self, line: std::fmt::Arguments<'_>) {
        if !self.training.quiet {
            warn(line);
        }
    }

    /// A progress bar, which is shown on a terminal only.
    pub(crate) fn progress_bar(&self) -> ProgressBar {
        if self.training.quiet {
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
        let job = Job { training, given, out: OutFolder::claim(&training.out)? };
        // This thread becomes one of the pool. From outside the pool it would fall asleep and wait
        // for the others in every layer.
        let threads = training.threads.map_or(0, |asked| job.capped(asked, "--threads"));
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(threads.install(|| work(&args, &job).map_err(|error| error.to_string()))?)
    });
    ended.unwrap_or_else(|error| {
        warn(format_args!("error: {error}"));
        ExitCode::FAILURE
    })
}
