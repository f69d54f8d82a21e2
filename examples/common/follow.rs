//! Training, as the user sees it.

use super::{record::Record, signals::Stop, warn, Job};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};
use tlr_models::{
    report::{self, EpochTable, ReportError},
    train::{self, Event, Facts, Network, Options, Persistence, Run, Source, TrainError, Verdict},
};

/// What training came to.
pub(crate) struct Done {
    /// Epochs and decisions.
    pub(crate) run: Run,
    /// Printed after them.
    pub(crate) words: String,
    /// For the line of JSON.
    pub(crate) figures: Map<String, Value>,
}

impl From<Run> for Done {
    fn from(run: Run) -> Self {
        Self { run, words: String::new(), figures: Map::new() }
    }
}

impl Job<'_> {
    /// Trains an `M` on the images of `source`. `data` names the images.
    #[allow(dead_code)] // Translations are trained otherwise.
    pub(crate) fn train<M: Network>(
        &self,
        data: &str,
        source: &dyn Source,
    ) -> Result<ExitCode, Box<dyn Error>> {
        self.follow(data, &source.data()?, "test images", |options, persistence, observer| {
            Ok(Done::from(train::train::<M>(source, options, persistence, observer)?))
        })
    }

    /// Trains, shows how it goes, and writes tables and a picture after every epoch. `data` names what
    /// is trained on, `facts` tell it from others, and `tested` is what the accuracy is a part of.
    pub(crate) fn follow(
        &self,
        data: &str,
        facts: &Facts,
        tested: &str,
        train: impl FnOnce(
            &Options,
            &Persistence<'_>,
            &mut dyn FnMut(Event<'_>),
        ) -> Result<Done, TrainError>,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let fingerprint = facts.fingerprint();
        self.given.check_data(&fingerprint)?;
        let options = self.training.options();
        let stop = Stop::listen()?;
        let settings = self.given.facts();
        let persistence = Persistence {
            checkpoint: self.training.checkpoint.as_deref(),
            resume: self.training.resume,
            stop: Some(stop.asked()),
            settings: Some(&settings),
        };
        let mut record = Record::new(self, data, fingerprint);
        let mut shown = Shown::new(&options);
        let done = train(&options, &persistence, &mut |event| {
            shown.tell(&event);
            match event {
                Event::Step { epoch, batch, batches, loss, .. } => {
                    record.step(epoch, batch, batches, loss);
                }
                Event::Decision(decision) => record.decision(decision),
                Event::Epoch(epoch) => record.epoch(epoch),
                Event::Resumed { .. } | Event::NotSaved(_) => {}
            }
            if shown.is_new(&event) {
                shown.written(record.write(&record.json("running", Map::new())));
            }
        });
        shown.bar.finish_and_clear();
        let out = self.out.path().display();
        let record_end = |why: &TrainError| {
            if let Err(error) = record.write(&record.json(&why.to_string(), Map::new())) {
                warn(format_args!("warning: {error}"));
            }
        };
        let Done { run, words, figures } = match done {
            Ok(done) => done,
            Err(stopped @ TrainError::Stopped { .. }) => {
                record_end(&stopped);
                let saved = match &self.training.checkpoint {
                    Some(file) => format!(
                        " and saved in {}; the same command with --resume goes on",
                        file.display()
                    ),
                    None => "; without --checkpoint it cannot go on".to_owned(),
                };
                warn(format_args!("{stopped}{saved}; what was done is in {out}"));
                return Ok(stop.status());
            }
            Err(error) if shown.started => {
                record_end(&error);
                return Err(format!("{error}; what was done before is in {out}").into());
            }
            // Nothing was done, and what an earlier run has left there stays.
            Err(error) => return Err(error.into()),
        };

        let verdict = train::judge(&options, &run);
        let mut all = Map::from_iter([
            ("parameters".to_owned(), run.parameters.into()),
            ("verdict".to_owned(), verdict.to_string().into()),
        ]);
        all.extend(figures);
        let json = record.json("finished", all);
        let written = record.write(&json);
        let judged = match &verdict {
            Verdict::Learned => "learned",
            Verdict::TooShort { .. } => "too short to tell",
            _ => "did not learn",
        };
        let (summary, seconds) = (summary(tested, &run), run.seconds);
        shown.line(&format!(
            "\n{words}{data}: {judged}, {summary} in {seconds:.1} s; curves in {}",
            self.out.file("curves.svg").display()
        ));
        if self.training.json {
            shown.line(&json.to_string());
        }
        written?;
        match verdict {
            Verdict::Learned => {}
            Verdict::TooShort { .. } => warn(format_args!("note: {verdict}")),
            verdict => return Err(verdict.to_string().into()),
        }
        shown.failed.map_or(Ok(ExitCode::SUCCESS), |error| Err(error.into()))
    }
}

fn summary(tested: &str, run: &Run) -> String {
    match run.epochs.last() {
        Some(last) => format!(
            "{:.2}% of the {tested} after {} epochs, at a rate of {}",
            100.0 * last.test_accuracy,
            run.epochs.len(),
            report::rates(&last.rates),
        ),
        None => "no epoch".to_owned(),
    }
}

/// What the user sees on the way.
struct Shown {
    bar: ProgressBar,
    table: Option<EpochTable>,
    epochs: usize,
    /// Steps that were made before the run went on, and are told again.
    again: usize,
    /// Steps told.
    steps: usize,
    /// Whether anything was done that is worth a file.
    started: bool,
    /// Whether the files could not be written the last time.
    unwritten: bool,
    /// Why lines are no longer shown.
    failed: Option<io::Error>,
}

impl Shown {
    fn new(options: &Options) -> Self {
        Self {
            bar: progress_bar(),
            table: None,
            epochs: options.epochs,
            again: 0,
            steps: 0,
            started: false,
            unwritten: false,
            failed: None,
        }
    }

    fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Step { batches, loss, rates, .. } => {
                self.steps += 1;
                if self.bar.length() == Some(0) {
                    self.bar.set_length((self.epochs * batches) as u64);
                }
                self.bar.inc(1);
                self.bar.set_message(format!("loss {loss:.4}  rate {}", report::rates(rates)));
            }
            Event::Epoch(epoch) => {
                if self.table.is_none() {
                    let table = EpochTable::of(epoch);
                    self.line(&table.heading());
                    self.table = Some(table);
                }
                if let Some(row) = self.table.as_ref().map(|table| table.row(epoch)) {
                    self.line(&row);
                }
            }
            Event::Resumed { step } => {
                self.again = step.unwrap_or(0);
                match step {
                    Some(step) => self.say(&format!("resumed after step {step}")),
                    None => self.say("no checkpoint yet: from the beginning"),
                }
            }
            Event::NotSaved(error) => self.say(&format!("warning: not saved: {error}")),
            Event::Decision(_) => {}
        }
    }

    /// Whether files are to be written: at the first step, and after every epoch that is not told again.
    fn is_new(&mut self, event: &Event<'_>) -> bool {
        match event {
            Event::Step { .. } => {
                self.steps > self.again && !std::mem::replace(&mut self.started, true)
            }
            Event::Epoch(_) => self.steps > self.again,
            _ => false,
        }
    }

    /// Tells once that files cannot be written, and once more that they can.
    fn written(&mut self, written: Result<(), ReportError>) {
        let failed = written.as_ref().err();
        match (failed, std::mem::replace(&mut self.unwritten, failed.is_some())) {
            (Some(error), false) => {
                self.say(&format!("warning: {error}; trying again after each epoch"));
            }
            (None, true) => self.say("the files are written again"),
            _ => {}
        }
    }

    /// A line on stdout. Who has closed it has read enough, and the run goes on.
    fn line(&mut self, line: &str) {
        if self.failed.is_none() {
            let shown = self.bar.suspend(|| writeln!(io::stdout().lock(), "{line}"));
            self.failed = shown.err().filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        }
    }

    /// A line on stderr.
    fn say(&self, line: &str) {
        self.bar.suspend(|| warn(format_args!("{line}")));
    }
}

/// Shown on a terminal only.
pub(crate) fn progress_bar() -> ProgressBar {
    let style = "{elapsed:>4} {bar:24.cyan/dim} {percent:>3}%  {msg}";
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
