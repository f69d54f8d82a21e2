//! What a run has come to so far, and the files that tell it.

use super::{
    config::{Given, VERSION},
    Job,
};
use serde_json::{Map, Value};
use tlr::Adaptation;
use tlr_models::{
    report::{self, Curves, Epoch, EventFile, Rate, ReportError},
    train,
};

/// Points of the training loss in the picture, an epoch.
const POINTS: usize = 20;

/// TensorBoard knows event files by `tfevents`.
const EVENTS: &str = "events.out.tfevents.tlr";

/// What was told of a run.
pub(super) struct Record<'a> {
    job: &'a Job<'a>,
    /// The data's name, and what tells it from others.
    data: (&'a str, String),
    epochs: Vec<Epoch>,
    history: Vec<Adaptation>,
    losses: Losses,
    /// For --tensorboard.
    events: Option<EventFile>,
    /// Steps in an epoch.
    batches: usize,
}

impl<'a> Record<'a> {
    pub(super) fn new(job: &'a Job<'a>, data: &'a str, fingerprint: String) -> Self {
        let events = job.training.tensorboard.then(|| EventFile::new(job.out.file(EVENTS)));
        Self {
            job,
            events,
            data: (data, fingerprint),
            epochs: Vec::new(),
            history: Vec::new(),
            losses: Losses::default(),
            batches: 1,
        }
    }

    pub(super) fn step(&mut self, epoch: usize, batch: usize, batches: usize, loss: f64) {
        self.batches = batches;
        let passed = epoch as f64 + (batch + 1) as f64 / batches as f64;
        let mean = self.losses.push(passed, loss, batches);
        if let (Some(events), Some(mean)) = (&mut self.events, mean) {
            events.scalar("loss/train", (epoch * batches + batch + 1) as u64, mean);
        }
    }

    pub(super) fn decision(&mut self, decision: &Adaptation) {
        if let Some(events) = &mut self.events {
            let Adaptation { layer, step, .. } = decision;
            let rate = format!("rate/{layer}");
            if !self.history.iter().any(|before| before.layer == *layer) {
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
            // Those that nobody decides on, too.
            for (layer, rate) in &epoch.rates {
                events.scalar(&format!("rate/{layer}"), step, *rate);
            }
        }
        self.epochs.push(epoch.clone());
    }

    /// Writes all files anew, each as a whole: one that cannot be written keeps no other from it.
    pub(super) fn write(&mut self, json: &Value) -> Result<(), ReportError> {
        let out = &self.job.out;
        let written = [
            report::write(&out.file("run.json"), format!("{json:#}\n")),
            report::write_epochs_csv(&out.file("epochs.csv"), &self.epochs),
            report::write_history_csv(&out.file("history.csv"), &self.history, self.batches),
            self.curves().write_svg(&out.file("curves.svg")),
            self.events.as_mut().map_or(Ok(()), EventFile::write),
        ];
        written.into_iter().collect()
    }

    fn curves(&self) -> Curves {
        let args = self.job.training;
        let epoch = |step: u64| step as f64 / self.batches as f64;
        let mut rates: Vec<Rate> = Vec::new();
        for decision in &self.history {
            let point = (epoch(decision.step), decision.to);
            match rates.iter_mut().find(|rate| rate.name == *decision.layer) {
                Some(rate) => rate.points.push(point),
                None => rates.push(Rate {
                    name: decision.layer.to_string(),
                    points: vec![(0.0, decision.from), point],
                }),
            }
        }
        let test_loss = self.epochs.iter().map(|epoch| (epoch.epoch as f64, epoch.test_loss));
        Curves {
            title: format!(
                "{}: {} from {:e}, {} rate, batch {}",
                self.data.0,
                train::name(&args.optimizer),
                args.rate,
                train::name(&args.rule),
                args.batch_size
            ),
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
        let rates: Map<_, _> = last
            .iter()
            .flat_map(|epoch| &epoch.rates)
            .map(|(name, rate)| (name.clone(), (*rate).into()))
            .collect();
        let mut json = serde_json::json!({
            "ended": ended,
            "program": program,
            "version": VERSION,
            "settings": settings,
            "data": self.data.0,
            "fingerprint": self.data.1,
            "optimizer": train::name(&args.optimizer),
            "mode": train::name(&args.mode),
            "rule": train::name(&args.rule),
            "schedule": train::name(&args.options().schedule),
            "rate": args.rate,
            "batch_size": args.batch_size,
            "seed": args.seed,
            "epochs": self.epochs.len(),
            "train_loss": last.map(|epoch| epoch.train_loss),
            "test_loss": last.map(|epoch| epoch.test_loss),
            "test_accuracy": last.map(|epoch| epoch.test_accuracy),
            "rates": rates,
            "rollbacks": train::rollback_steps(&self.history).len(),
            "seconds": self.epochs.iter().map(|epoch| epoch.seconds).sum::<f64>(),
        });
        if let Value::Object(json) = &mut json {
            json.extend(figures);
        }
        json
    }
}

/// Means of the training loss over a few steps each.
#[derive(Default)]
struct Losses {
    /// Epochs passed, and loss.
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
