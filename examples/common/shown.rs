//! What the user sees while a run goes on.

use super::warn;
use console::Term;
use indicatif::{HumanDuration, ProgressBar};
use std::{
    io::{self, Write},
    time::Duration,
};
use tlr_models::{
    report::{self, Epoch, EpochTable, ReportError},
    train::{Event, Options, ScheduleKind},
};

/// How many of the latest epochs the time left is estimated by.
const LATEST: usize = 3;

/// Columns that a narrow bar takes beside the message: `100%  59m left  `, and one to spare.
const BESIDE: usize = 18;

/// What stands in the bar. Where there is no room for the rate it is left out: a number without its
/// end is another number.
pub(super) fn message(loss: f64, rates: &[(impl AsRef<str>, f64)], room: Option<usize>) -> String {
    let loss = format!("loss {loss:.4}");
    let message = format!("{loss}  rate {}", report::rates(rates));
    match room {
        Some(room) if message.len() > room => loss,
        _ => message,
    }
}

/// The width of the terminal, if stdout is one.
fn columns() -> Option<usize> {
    Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// What the user sees while a run goes on.
pub(super) struct Shown {
    pub(super) bar: ProgressBar,
    /// Whether only the last line is shown, and what goes wrong.
    quiet: bool,
    /// Whether a schedule multiplies the rates.
    scheduled: bool,
    table: Option<EpochTable>,
    /// Whether the terminal has no room for its rows.
    narrow: bool,
    /// The durations of the epochs so far, in seconds.
    took: Vec<f64>,
    epochs: usize,
    /// Steps that were made before the run was resumed, and whose events are repeated.
    again: usize,
    /// The number of steps whose events have come.
    steps: usize,
    /// Whether anything was done that is worth a file.
    pub(super) started: bool,
    /// Whether the files could not be written the last time.
    unwritten: bool,
    /// What could not be saved, and whether that was in the latest epoch.
    pub(super) not_saved: Option<String>,
    pub(super) not_saved_last: bool,
    /// Why lines are no longer shown.
    pub(super) failed: Option<io::Error>,
}

impl Shown {
    pub(super) fn new(options: &Options, quiet: bool, bar: ProgressBar) -> Self {
        Self {
            bar,
            quiet,
            scheduled: options.schedule != ScheduleKind::Constant,
            table: None,
            narrow: false,
            took: Vec::new(),
            epochs: options.epochs,
            again: 0,
            steps: 0,
            started: false,
            unwritten: false,
            not_saved: None,
            not_saved_last: false,
            failed: None,
        }
    }

    pub(super) fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { batch, batches, loss, rates, schedule, .. } => {
                self.steps += 1;
                self.not_saved_last &= *batch > 0;
                if self.bar.length().is_none() {
                    self.bar.set_length(self.epochs.saturating_mul(*batches) as u64);
                }
                self.bar.inc(1);
                if self.steps == self.again {
                    // Steps that are repeated take no time, so the estimate leaves them out.
                    self.bar.reset_eta();
                }
                let rates: Vec<_> =
                    rates.iter().map(|(name, rate)| (name, rate * schedule)).collect();
                let room = Term::stderr().size_checked();
                let room = room.map(|(_, columns)| usize::from(columns).saturating_sub(BESIDE));
                self.bar.set_message(message(*loss, &rates, room));
            }
            Event::Epoch(epoch) => {
                if self.table.is_none() {
                    let table = match self.scheduled {
                        true => EpochTable::scheduled(epoch),
                        false => EpochTable::of(epoch),
                    };
                    let heading = format!("{}  time left", table.heading());
                    self.narrow = columns().is_some_and(|columns| columns < heading.len());
                    if !self.narrow {
                        self.line(&heading);
                    }
                    self.table = Some(table);
                }
                let left = self.left(epoch);
                let row = self.table.as_ref().map(|table| match self.narrow {
                    true if left == "-" => table.narrow(epoch),
                    true => format!("{}  {left} left", table.narrow(epoch)),
                    false => format!("{}  {left:>9}", table.row(epoch)),
                });
                if let Some(row) = row {
                    self.line(&row);
                }
            }
            Event::Resumed { step } => {
                self.again = step.unwrap_or(0);
                match step {
                    Some(step) => self.note(&format!("resumed after step {step}")),
                    None => self.note("no checkpoint yet: from the beginning"),
                }
            }
            Event::NotSaved(error) => {
                self.say(&format!("warning: not saved: {error}"));
                (self.not_saved, self.not_saved_last) = (Some(error.to_string()), true);
            }
            Event::Begun { .. } | Event::Decision(_) => {}
        }
    }

    /// Whether this event is a time to write files: the first step, which is noted, and each epoch
    /// told for the first time. A resumed run tells earlier ones again.
    pub(super) fn record_new(&mut self, event: &Event<'_>) -> bool {
        match event {
            Event::Step { .. } => {
                self.steps > self.again && !std::mem::replace(&mut self.started, true)
            }
            Event::Epoch(_) => self.steps > self.again,
            _ => false,
        }
    }

    /// Tells once that files cannot be written, and once more that they can.
    pub(super) fn written(&mut self, written: Result<(), ReportError>) {
        let failed = written.as_ref().err();
        match (failed, std::mem::replace(&mut self.unwritten, failed.is_some())) {
            (Some(error), false) => {
                self.say(&format!("warning: {error}; trying again after each epoch"));
            }
            (None, true) => self.note("the files are written again"),
            _ => {}
        }
    }

    /// How long the rest will take, if an epoch takes what the latest took.
    fn left(&mut self, epoch: &Epoch) -> String {
        self.took.push(epoch.seconds);
        let latest = &self.took[self.took.len().saturating_sub(LATEST)..];
        let mean = latest.iter().sum::<f64>() / latest.len() as f64;
        let seconds = mean * self.epochs.saturating_sub(epoch.epoch) as f64;
        match Duration::try_from_secs_f64(seconds) {
            Ok(left) if !left.is_zero() => format!("{:#}", HumanDuration(left)),
            _ => "-".to_owned(),
        }
    }

    /// A line on stdout, unless only the last one is wanted.
    pub(super) fn line(&mut self, line: &str) {
        if !self.quiet {
            self.last(line);
        }
    }

    /// Prints a line on stdout. If its reader has gone, the run goes on all the same.
    pub(super) fn last(&mut self, line: &str) {
        if self.failed.is_none() {
            let shown = self.bar.suspend(|| writeln!(io::stdout().lock(), "{line}"));
            self.failed = shown.err().filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        }
    }

    /// Prints a line on stderr that is no warning.
    pub(super) fn note(&self, line: &str) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// Prints a line on stderr.
    fn say(&self, line: &str) {
        self.bar.suspend(|| warn(format_args!("{line}")));
    }
}
