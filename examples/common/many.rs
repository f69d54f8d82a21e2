//! Makes many runs, several at a time, and shows their progress.

use super::threads;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Write};

/// How many runs at a time: as many as were asked for and are of use, or one for each core.
pub(crate) fn jobs(asked: Option<usize>) -> io::Result<usize> {
    match asked.map(|asked| threads::capped(asked, "--jobs")) {
        Some((jobs, note)) => {
            note.into_iter().try_for_each(|note| writeln!(io::stderr(), "{note}"))?;
            Ok(jobs)
        }
        None => Ok(std::thread::available_parallelism()?.get()),
    }
}

/// Shown on a terminal only.
pub(crate) fn progress_bar(runs: u64) -> ProgressBar {
    let style = "{elapsed_precise} {bar:30.cyan/dim} {pos}/{len} runs, about {eta} left {wide_msg}";
    let bar = ProgressBar::new(runs);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Prints a line on stdout. If its reader has gone, the runs go on all the same.
pub(crate) fn say(bar: &ProgressBar, line: &str) -> io::Result<()> {
    match bar.suspend(|| writeln!(io::stdout(), "{line}")) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}
