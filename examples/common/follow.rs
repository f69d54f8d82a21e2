//! Follows a training: shows its progress, and writes its record.

use super::{
    device::Place,
    record::{RunFiles, BEST, CURVES, FILES},
    shown::Shown,
    signals::Stop,
    warn, Job,
};
use indicatif::HumanCount;
use serde_json::{Map, Value};
use std::{error::Error, path::Path, process::ExitCode};
use tlr_models::{
    report::{self, count, number},
    train::{
        self, Event, Facts, Mode, Network, Options, Persistence, Rule, Run, Source, TrainError,
        Verdict,
    },
};

/// What is trained, and on what, in words.
pub(crate) struct Subject<'a> {
    /// The data's name, for the picture and the last line.
    pub(crate) data: &'a str,
    /// The model's name.
    pub(crate) model: &'a str,
    /// What there is to train and to test on.
    pub(crate) amounts: String,
    /// Examples to train on.
    pub(crate) examples: usize,
    /// What the accuracy is a part of.
    pub(crate) tested: &'a str,
}

/// The result of training.
pub(crate) struct Done {
    /// The epochs and the decisions on rates.
    pub(crate) run: Run,
    /// Lines that are printed after the table of epochs.
    pub(crate) words: String,
    /// Figures for the line of JSON.
    pub(crate) figures: Map<String, Value>,
}

impl From<Run> for Done {
    fn from(run: Run) -> Self {
        Self { run, words: String::new(), figures: Map::new() }
    }
}

impl Job<'_> {
    /// Trains an `M` on the images of `source`. `data` names the images, and `model` what is
    /// trained.
    #[allow(dead_code)] // The example `translate` does not use it.
    pub(crate) fn train<M: Network>(
        &self,
        data: &str,
        model: &str,
        source: &dyn Source,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let [channels, rows, columns] = source.shape();
        let colour = if channels == 1 { "grey" } else { "coloured" };
        let amounts = format!(
            "{} to train on and {} to test on, {colour}, {rows} by {columns} pixels, in {}",
            count(source.train_len(), "image"),
            HumanCount(source.test_len() as u64),
            count(source.classes(), "class"),
        );
        let examples = source.train_len();
        let subject = Subject { data, model, amounts, examples, tested: "test images" };
        self.follow(&subject, &source.data()?, |options, persistence, observer| {
            Ok(Done::from(train::train::<M>(source, options, persistence, observer)?))
        })
    }

    /// Whether a run writes a file of its own at this path.
    fn writes(&self, file: &Path) -> bool {
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        let folder = folder.unwrap_or(Path::new(".")).canonicalize();
        let is_here =
            self.out.path().canonicalize().is_ok_and(|out| folder.is_ok_and(|f| f == out));
        is_here && file.file_name().is_some_and(|name| FILES.iter().any(|own| name == *own))
    }

    /// Trains, shows how it goes, and writes tables and a picture after every epoch. `facts`
    /// identify the data.
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
        self.given.check_data(subject.data, &fingerprint)?;
        let options = self.training.options();
        if let Some(file) = self.training.checkpoint.as_deref().filter(|file| self.writes(file)) {
            let file = file.display();
            return Err(
                format!("--checkpoint {file} is a file that the run writes by itself").into()
            );
        }
        let stop = Stop::listen()?;
        let settings = self.given.facts().with("the data", subject.data);
        let best = self.out.file(BEST);
        let persistence = Persistence {
            best: Some(&best),
            checkpoint: self.training.checkpoint.as_deref(),
            resume: self.training.resume,
            stop: Some(stop.asked()),
            settings: Some(&settings),
            ranks: Some(&self.ranks),
        };
        if !self.ranks.is_first() {
            // The first rank shows progress, and writes the files.
            return match train(&options, &persistence, &mut |_| ()) {
                Ok(_) => Ok(ExitCode::SUCCESS),
                Err(TrainError::Stopped { .. }) => Ok(stop.status()),
                Err(error) => Err(error.into()),
            };
        }
        let mut record = RunFiles::new(self, subject.data, fingerprint);
        let mut elsewhere = false;
        let mut shown = Shown::new(&options, self.training.quiet, self.progress_bar());
        let done = train(&options, &persistence, &mut |event| {
            if let Event::Begun { parameters, batches, window } = event {
                shown.line(&self.opening(subject, &options, [parameters, batches, window]));
            }
            // Epochs of an earlier part of the run, which had another folder.
            if matches!(event, Event::Epoch(_)) && !shown.record_new(&event) && !best.exists() {
                elsewhere = true;
            }
            shown.tell(&event);
            match event {
                Event::Step { .. } => record.step(&event),
                Event::Decision(decision) => record.decision(decision),
                Event::Epoch(epoch) => record.epoch(epoch),
                Event::Begun { .. } | Event::Resumed { .. } | Event::NotSaved(_) => {}
            }
            if shown.record_new(&event) {
                record.forget_others();
                let json = record.json("running", Map::new());
                shown.written(record.write(&json));
            }
        });
        shown.bar.finish_and_clear();
        let out = self.out.path().display();
        let mut record_end = |why: &str| {
            let json = record.json(why, Map::new());
            if let Err(error) = record.write(&json) {
                warn(format_args!("warning: {error}"));
            }
        };
        let Done { run, words, figures } = match done {
            Ok(done) => done,
            Err(stopped @ TrainError::Stopped { .. }) => {
                record_end(&stopped.to_string());
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
                let error = train::explained(&options, &error);
                record_end(&error);
                return Err(format!("{error}; what was done before is in {out}").into());
            }
            // Nothing was trained, so what an earlier run has left in the folder stays.
            Err(error) => return Err(train::explained(&options, &error).into()),
        };

        if elsewhere {
            shown.note("note: best.safetensors is the best since the run has been resumed here");
        }
        let verdict = train::judge(&options, &run);
        let mut all = Map::from_iter([
            ("parameters".to_owned(), run.parameters.into()),
            ("verdict".to_owned(), verdict.to_string().into()),
        ]);
        let bleu = figures.get("bleu").and_then(Value::as_f64);
        let bleu = bleu.map_or(String::new(), |bleu| format!("BLEU {bleu:.2}, "));
        all.extend(figures);
        let json = record.json("finished", all);
        let written = record.write(&json);
        let judged = match &verdict {
            Verdict::Learned => "learned",
            Verdict::TooShort { .. } => "too short to tell",
            _ => "did not learn",
        };
        let summary = summary(subject.tested, &options, &run);
        shown.line(format!("\n{words}").trim_end());
        let last = format!(
            "{}: {judged}, {bleu}{summary}; curves in {}",
            subject.data,
            self.out.file(CURVES).display()
        );
        if self.training.json {
            shown.line(&last);
            shown.last(&json.to_string());
        } else {
            shown.last(&last);
        }
        written?;
        // A later epoch may have made up for it.
        let lacking = shown.not_saved_last || !best.exists();
        if let Some(error) = shown.not_saved.as_ref().filter(|_| lacking) {
            return Err(format!("not saved: {error}").into());
        }
        match verdict {
            Verdict::Learned => {}
            Verdict::TooShort { .. } => shown.note(&format!("note: {verdict}")),
            verdict => return Err(verdict.to_string().into()),
        }
        shown.failed.map_or(Ok(ExitCode::SUCCESS), |error| Err(error.into()))
    }

    /// What is about to be done; of the three figures the last are the steps of an epoch and of a
    /// window.
    fn opening(
        &self,
        subject: &Subject<'_>,
        options: &Options,
        [parameters, batches, window]: [usize; 3],
    ) -> String {
        let Subject { data, model, amounts, examples, .. } = subject;
        let every = match window {
            1 => "every step".to_owned(),
            window => format!("every {}", count(window, "step")),
        };
        let rate = match (options.rule, options.mode) {
            (Rule::Constant, _) => format!("a constant rate of {}", number(options.rate)),
            (_, Mode::Global) => format!("one rate, looked at {every}"),
            (_, Mode::PerLayer) => format!("a rate a layer, looked at {every}"),
        };
        let device = match self.place() {
            Place::Cpu => "",
            #[cfg(feature = "cuda")]
            Place::Cuda => "on the GPU with ",
            #[cfg(feature = "cuda")]
            Place::CudaHalf => "on the GPU in f16 with ",
        };
        format!(
            "{data}: {amounts}\n\
             {model}: {}, {device}{}{}\n\
             {} of {}, each with {}; {rate}\n\
             Results in {}\n",
            count(parameters, "parameter"),
            count(rayon::current_num_threads(), "thread"),
            match self.ranks.size() {
                1 => String::new(),
                ranks => format!(" on each of {ranks} ranks"),
            },
            count(options.epochs, "epoch"),
            count(batches, "step"),
            count(options.batch_size.min(*examples), "example"),
            self.out.path().display()
        )
    }
}

fn summary(tested: &str, options: &Options, run: &Run) -> String {
    let Some(last) = run.epochs.last() else { return "no epoch".to_owned() };
    let rates = match (options.rule, &last.rates[..]) {
        (Rule::Constant, _) => "constant rate",
        (_, [_]) => "learned rate",
        _ => "learned rates",
    };
    // The learned rate, which is of use elsewhere; the schedule may have lowered the one in force.
    let schedule = match last.schedule {
        1.0 => String::new(),
        share => format!(" (at the end times {share:.1e} by the schedule)"),
    };
    format!(
        "{:.2}% of the {tested} after {} in {:.1} s; {rates} {}{schedule}",
        100.0 * last.test_accuracy,
        count(run.epochs.len(), "epoch"),
        run.seconds,
        report::rates(&last.rates),
    )
}
