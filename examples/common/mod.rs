//! What the examples have in common: their flags, progress, files and last words.

mod config;
mod flags;
pub(crate) mod follow;
mod record;
mod signals;

pub(crate) use flags::Training;

use clap::Parser;
use config::Given;
use std::{error::Error, io::Write, process::ExitCode};
use tlr_models::report::OutFolder;

/// A run as it was asked for, and the folder that is its own.
pub(crate) struct Job<'a> {
    training: &'a Training,
    given: Given,
    out: OutFolder,
}

/// Parses the command line, with other defaults for some flags, claims the folder, and does `work`
/// on the threads that were asked for. Errors go to stderr.
pub(crate) fn run<A: Parser + Sync>(
    defaults: &[(&'static str, &'static str)],
    training: impl Fn(&A) -> &Training,
    work: impl FnOnce(&A, &Job<'_>) -> Result<ExitCode, Box<dyn Error>> + Send,
) -> ExitCode {
    let command = defaults.iter().fold(A::command(), |command, &(flag, value)| {
        command.mut_arg(flag, |arg| arg.default_value(value))
    });
    let ended = config::parse::<A>(command).and_then(|(args, given)| {
        let training = training(&args);
        let job = Job { training, given, out: OutFolder::claim(&training.out)? };
        // As one of the threads: from outside, the others would have to be waited for, asleep, in
        // every layer.
        let threads = training.threads.map_or(0, usize::from);
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(threads.install(|| work(&args, &job).map_err(|error| error.to_string()))?)
    });
    ended.unwrap_or_else(|error| {
        warn(format_args!("error: {error}"));
        ExitCode::FAILURE
    })
}

/// A line on stderr. If nobody can read it, nobody can be told.
pub(crate) fn warn(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
