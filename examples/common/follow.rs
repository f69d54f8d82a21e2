//! Training, as the user sees it.

use super::{record::Record, shown::Shown, signals::Stop, warn, Job};
use indicatif::HumanCount;
use serde_json::{Map, Value};
use std::{error::Error, process::ExitCode};
use tlr_models::{
    report,
    train::{
        self, Event, Facts, Mode, Network, Options, Persistence, Rule, Run, Source, TrainError,
        Verdict,
    },
};

/// What is trained on what, in words.
pub(crate) struct Subject<'a> {
    /// The data's name, for the picture and the last line.
    pub(crate) data: &'a str,
    /// The model's name.
    pub(crate) model: &'a str,
    /// What there is to train and to test on.
    pub(crate) amounts: String,
    /// What the accuracy is a part of.
    pub(crate) tested: &'a str,
}

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
    /// Trains an `M` on the images of `source`. `data` names the images, and `model` what is trained.
    #[allow(dead_code)] // Translations are trained otherwise.
    pub(crate) fn train<M: Network>(
        &self,
        data: &str,
        model: &str,
        source: &dyn Source,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let [channels, rows, columns] = source.shape();
        let colour = if channels == 1 { "grey" } else { "coloured" };
        let amounts = format!(
            "{} images to train on and {} to test on, {colour}, {rows} by {columns} pixels, in {} classes",
            HumanCount(source.train_len() as u64),
            HumanCount(source.test_len() as u64),
            source.classes(),
        );
        let subject = Subject { data, model, amounts, tested: "test images" };
        self.follow(&subject, &source.data()?, |options, persistence, observer| {
            Ok(Done::from(train::train::<M>(source, options, persistence, observer)?))
        })
    }

    /// Trains, shows how it goes, and writes tables and a picture after every epoch. `facts` tell the
    /// data from others.
    pub(crate) fn follow(
        &self,
        subject: &Subject<'_>,
        facts: &Facts,
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
        let best = self.out.file("best.safetensors");
        let persistence = Persistence {
            best: Some(&best),
            checkpoint: self.training.checkpoint.as_deref(),
            resume: self.training.resume,
            stop: Some(stop.asked()),
            settings: Some(&settings),
        };
        let mut record = Record::new(self, subject.data, fingerprint);
        let mut shown = Shown::new(&options, self.training.quiet, self.progress_bar());
        let done = train(&options, &persistence, &mut |event| {
            if let Event::Begun { parameters, batches, window } = event {
                shown.line(&self.opening(subject, &options, [parameters, batches, window]));
            }
            shown.tell(&event);
            match event {
                Event::Step { epoch, batch, batches, loss, .. } => {
                    record.step(epoch, batch, batches, loss);
                }
                Event::Decision(decision) => record.decision(decision),
                Event::Epoch(epoch) => record.epoch(epoch),
                Event::Begun { .. } | Event::Resumed { .. } | Event::NotSaved(_) => {}
            }
            if shown.is_new(&event) {
                let json = record.json("running", Map::new());
                shown.written(record.write(&json));
            }
        });
        shown.bar.finish_and_clear();
        let out = self.out.path().display();
        let mut record_end = |why: &TrainError| {
            let json = record.json(&why.to_string(), Map::new());
            if let Err(error) = record.write(&json) {
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
        let (summary, seconds) = (summary(subject.tested, &run), run.seconds);
        shown.line(format!("\n{words}").trim_end());
        let last = format!(
            "{}: {judged}, {summary} in {seconds:.1} s; curves in {}",
            subject.data,
            self.out.file("curves.svg").display()
        );
        if self.training.json {
            shown.line(&last);
            shown.last(&json.to_string());
        } else {
            shown.last(&last);
        }
        written?;
        match verdict {
            Verdict::Learned => {}
            Verdict::TooShort { .. } => shown.note(&format!("note: {verdict}")),
            verdict => return Err(verdict.to_string().into()),
        }
        shown.failed.map_or(Ok(ExitCode::SUCCESS), |error| Err(error.into()))
    }

    /// What is about to be done; of the three figures the last are the steps of an epoch and of a window.
    fn opening(
        &self,
        subject: &Subject<'_>,
        options: &Options,
        [parameters, batches, window]: [usize; 3],
    ) -> String {
        let Subject { data, model, amounts, .. } = subject;
        let parameters = HumanCount(parameters as u64);
        let (epochs, threads) = (options.epochs, rayon::current_num_threads());
        let [epochs, threads] = [(epochs, "epoch"), (threads, "thread")].map(|(n, what)| match n {
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        });
        let rate = match (options.rule, options.mode) {
            (Rule::Constant, _) => format!("a constant rate of {:e}", options.rate),
            (_, Mode::Global) => format!("one rate, looked at every {window} steps"),
            (_, Mode::PerLayer) => format!("a rate a layer, looked at every {window} steps"),
        };
        format!(
            "{data}: {amounts}\n\
             {model}: {parameters} parameters, {threads}\n\
             {epochs} of {batches} steps, each with {} examples; {rate}\n\
             Results in {}\n",
            options.batch_size,
            self.out.path().display()
        )
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
