//! The results of a run so far, and the files that hold them.

use super::{
    config::{Given, VERSION},
    run_json::RunJson,
    Job,
};
use serde_json::{Map, Value};
use std::fs;
use tlr::{Adaptation, Outcome};
use tlr_models::{
    report::{self, Curves, Epoch, EventFile, Rate, ReportError},
    train::{self, Event, Options, Rule},
    weights,
};

/// How many points an epoch has in the picture of the training loss.
const POINTS: usize = 20;

/// Up to this many rates are drawn at every change; of more, there is one point an epoch.
const FEW_RATES: usize = 4;

/// The file of the best weights, beside the tables.
pub(super) const BEST: &str = "best.safetensors";
/// The picture of losses and rates.
pub(super) const CURVES: &str = "curves.svg";
/// TensorBoard knows event files by `tfevents`.
const EVENTS: &str = "events.out.tfevents.tlr";
/// All files that a run writes to its folder, or takes away from it.
pub(super) const FILES: [&str; 6] = ["run.json", "epochs.csv", "history.csv", CURVES, BEST, EVENTS];

/// The events of a run that have come so far, of which its files are made.
pub(super) struct RunFiles<'a> {
    job: &'a Job<'a>,
    /// The data's name, and what identifies it.
    data: (&'a str, String),
    epochs: Vec<Epoch>,
    history: Vec<Adaptation>,
    losses: Losses,
    /// The rates in force, over the epochs that have passed.
    rates: Vec<Rate>,
    /// The event file for --tensorboard.
    events: Option<EventFile>,
    /// The number of steps in an epoch.
    batches: usize,
}

impl<'a> RunFiles<'a> {
    pub(super) fn new(job: &'a Job<'a>, data: &'a str, fingerprint: String) -> Self {
        let events = job.training.tensorboard.then(|| EventFile::new(job.out.file(EVENTS)));
        Self {
            job,
            events,
            data: (data, fingerprint),
            epochs: Vec::new(),
            history: Vec::new(),
            losses: Losses::default(),
            rates: Vec::new(),
            batches: 1,
        }
    }

    /// Notes an [`Event::Step`].
    pub(super) fn step(&mut self, event: &Event<'_>) {
        let Event::Step { epoch, batch, batches, loss, rates, schedule } = event else { return };
        self.batches = *batches;
        let (step, ends) = ((epoch * batches + batch + 1) as u64, batch + 1 == *batches);
        let passed = step as f64 / *batches as f64;
        let mean = self.losses.push(passed, *loss, *batches);
        if let (Some(events), Some(mean)) = (&mut self.events, mean) {
            events.scalar("loss/train", step, mean);
        }
        if ends || (mean.is_some() && rates.len() <= FEW_RATES) {
            for (group, learned) in rates {
                self.rate(group, step, learned * schedule);
            }
        }
    }

    /// Notes a rate that was in force at this step.
    fn rate(&mut self, group: &str, step: u64, rate: f64) {
        let point = (step as f64 / self.batches as f64, rate);
        match self.rates.iter_mut().find(|rate| rate.name == group) {
            Some(rate) => rate.points.push(point),
            None => self.rates.push(Rate { name: group.to_owned(), points: vec![point] }),
        }
        if let Some(events) = &mut self.events {
            events.scalar(&format!("rate/{group}"), step, rate);
        }
    }

    pub(super) fn decision(&mut self, decision: &Adaptation) {
        if let Some(events) = &mut self.events {
            let Adaptation { layer, step, .. } = decision;
            let rate = format!("learned_rate/{layer}");
            let is_first = !self.history.iter().any(|before| before.layer == *layer);
            if is_first && decision.outcome != Outcome::Ramped {
                events.scalar(&rate, 0, decision.from);
            }
            events.scalar(&rate, *step, decision.to);
            if let Some(products) = &decision.products {
                events.scalar(&format!("cosine/{layer}"), *step, products.cosine());
            }
        }
        self.history.push(decision.clone());
    }

    pub(super) fn epoch(&mut self, epoch: &Epoch) {
        if let Some(events) = &mut self.events {
            let step = (epoch.epoch * self.batches) as u64;
            events.scalar("loss/test", step, epoch.test_loss);
            events.scalar("accuracy/test", step, epoch.test_accuracy);
            let rollbacks = train::rollback_steps(&self.history).len();
            events.scalar("rollbacks", step, rollbacks as f64);
        }
        self.epochs.push(epoch.clone());
    }

    /// Takes away files of an earlier run that this one has not replaced yet, so that they are not
    /// taken for this one's.
    pub(super) fn forget_others(&self) {
        // One that goes on without --tensorboard has an event file of its own there.
        if self.events.is_none() && self.epochs.is_empty() {
            // If there is no such file, there is nothing to take away.
            let _ = fs::remove_file(self.job.out.file(EVENTS));
        }
        let best = self.job.out.file(BEST);
        let Ok(bytes) = fs::read(&best) else { return };
        // A run that goes on has weights of its own there already.
        let loss = weights::note(&bytes, "test_loss").ok().flatten();
        let mut own = self.epochs.iter().map(|epoch| epoch.test_loss.to_string());
        if !loss.is_some_and(|loss| own.any(|own| own == loss)) {
            let _ = fs::remove_file(&best);
        }
    }

    /// Writes all files anew, each as a whole: one that cannot be written keeps no other from it.
    pub(super) fn write(&mut self, json: &Value) -> Result<(), ReportError> {
        let out = &self.job.out;
        // The folder may have been removed. If it cannot be made, writing the files fails.
        let _ = fs::create_dir_all(out.path());
        let [run, epochs, history, curves, ..] = FILES.map(|name| out.file(name));
        let written = [
            report::write(&run, format!("{json:#}\n")),
            report::write_epochs_csv(&epochs, &self.epochs),
            report::write_history_csv(&history, &self.history, self.batches),
            report::write(&curves, self.curves().to_svg()),
            self.events.as_mut().map_or(Ok(()), EventFile::write),
        ];
        written.into_iter().collect()
    }

    fn curves(&self) -> Curves {
        let options = self.job.training.options();
        let epoch = |step: u64| step as f64 / self.batches as f64;
        let test_loss = self.epochs.iter().map(|epoch| (epoch.epoch as f64, epoch.test_loss));
        let mut rates = self.rates.clone();
        for rate in &mut rates {
            // Where the rate is looked for, the one that was given is never in force.
            let first = self.history.iter().find(|decision| *decision.layer == *rate.name);
            let start = match first {
                Some(decision) if decision.outcome == Outcome::Ramped => decision.to,
                Some(decision) => decision.from,
                None => options.rate,
            };
            rate.points.insert(0, (0.0, start));
        }
        Curves {
            title: format!("{}: {}", self.data.0, method(&options)),
            train_loss: self.losses.points.clone(),
            test_loss: test_loss.collect(),
            rates,
            rollbacks: train::rollback_steps(&self.history).into_iter().map(epoch).collect(),
        }
    }

    /// What run.json says: how the run stands, all that was chosen, and `figures`.
    pub(super) fn json(&self, ended: &str, figures: Map<String, Value>) -> Value {
        let args = self.job.training;
        let Given { program, settings, .. } = &self.job.given;
        let last = self.epochs.last();
        let json = RunJson {
            ended: ended.to_owned(),
            program: program.clone(),
            version: VERSION.to_owned(),
            settings: settings.clone(),
            data: self.data.0.to_owned(),
            fingerprint: self.data.1.clone(),
            optimizer: train::name(&args.optimizer),
            mode: train::name(&args.mode),
            rule: train::name(&args.rule),
            schedule: train::name(&args.options().schedule),
            rate: args.rate,
            batch_size: args.batch_size,
            seed: args.seed,
            epochs: self.epochs.len(),
            train_loss: last.map(|epoch| epoch.train_loss),
            test_loss: last.map(|epoch| epoch.test_loss),
            test_accuracy: last.map(|epoch| epoch.test_accuracy),
            rates: last.iter().flat_map(|epoch| epoch.rates.iter().cloned()).collect(),
            schedule_at_end: last.map(|epoch| epoch.schedule),
            rollbacks: train::rollback_steps(&self.history).len(),
            seconds: self.epochs.iter().map(|epoch| epoch.seconds).sum(),
            figures,
        };
        serde_json::json!(json)
    }
}

/// How a run was made, in a few words. A rate is named where it matters.
fn method(options: &Options) -> String {
    let rate = match options.rule {
        Rule::Constant => format!("constant rate {:e}", options.rate),
        Rule::Aligned if options.ramp => "learned rate".to_owned(),
        rule => format!("{} rate from {:e}", train::name(&rule), options.rate),
    };
    let schedule = match train::name(&options.schedule) {
        name if name == "constant" => String::new(),
        name => format!(", {name} schedule"),
    };
    format!("{}, {rate}{schedule}, batch {}", train::name(&options.optimizer), options.batch_size)
}

/// Means of the training loss over a few steps each.
#[derive(Default)]
struct Losses {
    /// The points so far: the epochs that have passed, and the mean loss.
    points: Vec<(f64, f64)>,
    sum: f64,
    count: usize,
}

impl Losses {
    /// The mean that this loss completes, if it does.
    fn push(&mut self, epoch: f64, loss: f64, batches: usize) -> Option<f64> {
        self.sum += loss;
        self.count += 1;
        if self.count < batches.div_ceil(POINTS) {
            return None;
        }
        let mean = self.sum / self.count as f64;
        self.points.push((epoch, mean));
        (self.sum, self.count) = (0.0, 0);
        Some(mean)
    }
}
