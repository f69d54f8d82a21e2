//! [`Persistence`]: saves a run, and resumes it.

use super::{AnyRanks, Changes, Facts, Learner, Number, Options, Share, TrainError, TrainsIn};
use crate::{
    report::{Epoch, Held, ReportError},
    weights,
};
use dfdx::nn::TensorCollection;
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use tlr::Checkpoint;

/// How a run outlives its process. By default it does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Persistence<'a> {
    /// Where the run is saved, after every epoch and when it is stopped.
    pub checkpoint: Option<&'a Path>,
    /// Goes on from there. If no file is yet, the run begins.
    pub resume: bool,
    /// Once true, the run ends after the step it is in: [`TrainError::Stopped`].
    pub stop: Option<&'a AtomicBool>,
    /// Where the weights are kept that were best so far: those after the epoch with the least test
    /// loss. When a run goes on, weights that this file does not hold (any more) do not count as
    /// the best so far. Weights of another run are replaced.
    pub best: Option<&'a Path>,
    /// Settings that are not among the [`Options`], those of the model for instance. A checkpoint
    /// with other settings is refused. The setting `the data` is the user's name for the data.
    /// Another name is accepted if the contents are the same; if they are not, the error gives both
    /// names.
    pub settings: Option<&'a Facts>,
    /// The ranks that train together, each with its [share](super::Share) of the batches. Only the
    /// first one reads and writes files. The optimizer has to make its steps on all of them
    /// together, as those of [`learner`](super::learner) do and a peer does not: see
    /// [`Learner::ranks`]. None if this process trains by itself.
    pub ranks: Option<&'a AnyRanks>,
}

/// The name under which a run adds its own state to a checkpoint.
const ATTACHMENT: &str = "run";

/// The name of [`Progress::batches_per_epoch`] among facts.
const BATCHES: &str = "number of batches in an epoch";

/// What the user calls the data, among the settings.
const NAME: &str = "the data";

/// The version of that state. A checkpoint with another one is refused.
const FORMAT: u32 = 5;

/// More numbers than any run draws for dropout. They are drawn again when the run is resumed, which
/// takes up to a minute, and hours with many more.
const MOST_DRAWN: u64 = 1 << 32;

/// The state of a run beside those of its model and optimizer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    format: u32,
    /// All settings.
    settings: Facts,
    /// What identifies the data.
    data: Facts,
    batches_per_epoch: usize,
    /// How many numbers each rank has drawn for dropout.
    drawn: Vec<u64>,
    /// The epochs that are done, their tests included.
    pub(super) epochs: Vec<Epoch>,
    /// The loss of every step.
    pub(super) losses: Vec<f64>,
    /// What the schedule multiplied the learned rates by in every step.
    pub(super) schedule: Vec<f64>,
    /// How many decisions had been made after every step. (Steps here are batches; to the engine, a
    /// batch whose gradients overflow in half precision is none.)
    pub(super) decided: Vec<usize>,
    /// About the epoch that is not done: Σ loss · weight and Σ weight over its batches, and its
    /// seconds so far.
    pub(super) sum: f64,
    pub(super) weights: usize,
    pub(super) seconds: f64,
}

impl Progress {
    pub(super) fn new(
        options: &Options,
        settings: &Facts,
        data: Facts,
        batches_per_epoch: usize,
    ) -> Self {
        Self {
            format: FORMAT,
            settings: options.facts().and(settings),
            data,
            batches_per_epoch,
            drawn: vec![0],
            epochs: Vec::new(),
            losses: Vec::new(),
            schedule: Vec::new(),
            decided: Vec::new(),
            sum: 0.0,
            weights: 0,
            seconds: 0.0,
        }
    }

    /// How many numbers this rank has drawn for dropout. A rank that the saved run did not have
    /// begins with the number of the first rank.
    pub(super) fn drawn(&self, rank: usize) -> u64 {
        self.drawn.get(rank).or(self.drawn.first()).copied().unwrap_or(0)
    }

    /// How many batches of the epoch that is not done have been trained on.
    pub(super) fn batch(&self) -> usize {
        self.losses.len().saturating_sub(self.epochs.len() * self.batches_per_epoch)
    }

    /// How many decisions had been made before the epoch that is not done.
    pub(super) fn decided_before(&self) -> usize {
        let last = (self.epochs.len() * self.batches_per_epoch).checked_sub(1);
        last.and_then(|last| self.decided.get(last)).copied().unwrap_or(0)
    }

    /// Compares all that has to be the same on all ranks.
    pub(super) fn agree(
        &self,
        ranks: &AnyRanks,
        epochs: usize,
        saves: bool,
    ) -> Result<(), tlr::Error> {
        // A folder may have another name on each machine.
        let facts = self.settings.without(NAME).and(&self.data).with("--epochs", epochs);
        let facts = facts.with_flag("--checkpoint", saves);
        ranks.agree(facts.with(BATCHES, self.batches_per_epoch).all())
    }

    /// The state in the checkpoint at `path`.
    fn read(path: &Path, checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let damaged = |what| TrainError::DamagedRun { path: path.to_owned(), what };
        let bytes = checkpoint.attachment(ATTACHMENT).unwrap_or_default();
        let (found, _) = postcard::take_from_bytes::<u32>(bytes)
            .map_err(|_| damaged("it has no progress record"))?;
        if found != FORMAT {
            let path = path.to_owned();
            return Err(TrainError::AnotherFormat { path, found, expected: FORMAT });
        }
        let read: Self = postcard::from_bytes(bytes)
            .map_err(|_| damaged("its progress record cannot be read"))?;
        match read.contradiction() {
            Some(what) => Err(damaged(what)),
            None => Ok(read),
        }
    }

    /// The contradiction in these figures, if there is one: no run can have left them.
    fn contradiction(&self) -> Option<&'static str> {
        let (steps, done) = (self.losses.len(), self.epochs.len());
        let tested = done.checked_mul(self.batches_per_epoch);
        if self.schedule.len() != steps || self.decided.len() != steps {
            Some("the number of its losses is not that of its steps")
        } else if !self.decided.is_sorted() {
            Some("decisions are gone that had been made before")
        } else if tested.is_none_or(|tested| tested > steps) {
            Some("it has more epochs than its steps make")
        } else if self.batch() > self.batches_per_epoch {
            Some("it has more steps than its epochs hold")
        } else if self.drawn.iter().any(|drawn| *drawn > MOST_DRAWN) {
            Some("it has drawn more random numbers than any run does")
        } else if self.drawn.is_empty() {
            Some("no rank has drawn random numbers")
        } else {
            None
        }
    }

    /// In what a run with these figures differs from the run `new`.
    fn changes(&self, new: &Self) -> Option<Changes> {
        let batches = |run: &Self| Facts::default().with(BATCHES, run.batches_per_epoch);
        // Different settings often mean different data. So the settings are reported first.
        let changes = self.settings.without(NAME).changes(&new.settings.without(NAME));
        let name = |run: &Self| {
            run.settings
                .get(NAME)
                .map_or(Facts::default(), |name| Facts::default().with(NAME, name))
        };
        let named = || name(self).changes(&name(new));
        let changes = changes
            .or_else(|| self.data.changes(&new.data).map(|changes| named().unwrap_or(changes)));
        changes.or_else(|| batches(self).changes(&batches(new)))
    }
}

impl Persistence<'_> {
    /// Takes model and optimizer to where the checkpoint is, if there is one. Returns the progress
    /// so far, and what keeps other runs from writing the checkpoint until it is dropped.
    pub(super) fn begin<M, D: TrainsIn<E>, E: Number>(
        &self,
        model: &mut M,
        optimizer: &mut dyn Learner<M, D, E>,
        new: Progress,
        epochs: usize,
    ) -> Result<(Progress, Option<Held>), TrainError> {
        let (held, checkpoint) = self.opened()?;
        let (path, checkpoint) = match (self.checkpoint, checkpoint) {
            (Some(path), Some(checkpoint)) => (path, checkpoint),
            _ => return Ok((new, held)),
        };
        let saved = Progress::read(path, &checkpoint)?;
        if let Some(changes) = saved.changes(&new) {
            return Err(TrainError::AnotherRun { path: path.to_owned(), changes });
        }
        let made = saved.losses.len().div_ceil(saved.batches_per_epoch.max(1));
        if made > epochs {
            return Err(TrainError::EpochsMade { path: path.to_owned(), made, asked: epochs });
        }
        match self.ranks.filter(|ranks| ranks.size() > 1) {
            Some(ranks) => optimizer.resume(model, &checkpoint.of_rank(ranks.rank()))?,
            None => optimizer.resume(model, &checkpoint)?,
        }
        if saved.decided.last().is_some_and(|decided| *decided > optimizer.history().len()) {
            let what = "decisions are gone that had been made before";
            return Err(TrainError::DamagedRun { path: path.to_owned(), what });
        }
        Ok((saved, held))
    }

    /// The checkpoint to go on from, if there is one. The first rank reads it, and all have it.
    fn opened(&self) -> Result<(Option<Held>, Option<Checkpoint>), TrainError> {
        let Some(ranks) = self.ranks.filter(|ranks| ranks.size() > 1) else { return self.read() };
        let read = if self.is_first() { self.read() } else { Ok((None, None)) };
        let told = ranks.confirm(read.as_ref().err().map(ToString::to_string).as_deref());
        let (held, read) = read?;
        told?;
        let mut bytes = match &read {
            Some(checkpoint) => checkpoint.to_bytes()?,
            None => Vec::new(),
        };
        ranks.broadcast(&mut bytes)?;
        let checkpoint = match (read, bytes.is_empty()) {
            (Some(read), _) => Some(read),
            (None, true) => None,
            (None, false) => Some(Checkpoint::from_bytes(&bytes)?),
        };
        Ok((held, checkpoint))
    }

    fn read(&self) -> Result<(Option<Held>, Option<Checkpoint>), TrainError> {
        let Some(path) = self.checkpoint else { return Ok((None, None)) };
        let failed = |source| TrainError::CheckpointPath { path: path.to_owned(), source };
        Checkpoint::probe(path).map_err(failed)?;
        let held = Held::beside(path).map_err(failed)?;
        let held = held.ok_or_else(|| TrainError::CheckpointInUse(path.to_owned()))?;
        match (path.exists(), self.resume) {
            (false, _) => Ok((Some(held), None)),
            (true, false) => Err(TrainError::CheckpointExists(path.to_owned())),
            (true, true) => Ok((Some(held), Some(Checkpoint::open(path)?))),
        }
    }

    /// The share of each batch that this process has.
    pub(super) fn share(&self) -> Share {
        self.ranks.map_or_else(Share::default, Share::of_rank)
    }

    /// Whether this process writes files.
    pub(super) fn is_first(&self) -> bool {
        self.ranks.is_none_or(|ranks| ranks.is_first())
    }

    /// `drawn` is how many numbers this rank has drawn for dropout.
    pub(super) fn save<M, D: TrainsIn<E>, E: Number>(
        &self,
        model: &M,
        optimizer: &mut dyn Learner<M, D, E>,
        progress: &mut Progress,
        drawn: u64,
    ) -> Result<(), TrainError> {
        let Some(path) = self.checkpoint else { return Ok(()) };
        let all = match self.ranks {
            Some(ranks) => ranks.all_gather(&postcard::to_stdvec(&drawn)?)?,
            None => vec![postcard::to_stdvec(&drawn)?],
        };
        let all = all.iter().map(|drawn| postcard::from_bytes(drawn));
        progress.drawn = all.collect::<Result<_, _>>()?;
        // Each rank has a part of the checkpoint, so all ranks have to make one. Each has its own
        // running means of batch norm as well.
        let mut checkpoint = optimizer.checkpoint(model)?;
        if let Some(ranks) = self.ranks {
            checkpoint = ranks.join(checkpoint)?;
        }
        if !self.is_first() {
            return Ok(());
        }
        let bytes = postcard::to_stdvec(progress)?;
        Ok(checkpoint.attach(ATTACHMENT, bytes).save(path)?)
    }

    /// Keeps the weights if `epoch` is better than the one whose weights are kept now. `notes` say
    /// how to use them.
    pub(super) fn keep_best<M: TensorCollection<E, D>, D: TrainsIn<E>, E: Number>(
        &self,
        model: &M,
        epoch: &Epoch,
        before: &[Epoch],
        notes: &[(&str, String)],
    ) -> Result<(), ReportError> {
        let Some(path) = self.best.filter(|_| self.is_first()) else { return Ok(()) };
        let loss = epoch.test_loss;
        let is_better = |kept: f64| loss < kept || kept.is_nan() && !loss.is_nan();
        if !loss_of_kept(path, before).is_none_or(is_better) {
            return Ok(());
        }
        let (number, loss) = (epoch.epoch.to_string(), epoch.test_loss.to_string());
        let mut all = vec![("epoch", &*number), ("test_loss", &*loss)];
        all.extend(notes.iter().map(|(name, note)| (*name, note.as_str())));
        weights::save(model, path, &all)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// The test loss of the weights at `path`, if they are of one of these epochs. All else there is
/// another run's.
fn loss_of_kept(path: &Path, epochs: &[Epoch]) -> Option<f64> {
    let file = std::fs::read(path).ok()?;
    let note = |name| weights::note(&file, name).ok().flatten();
    let (number, loss) = (note("epoch")?, note("test_loss")?);
    let is_kept =
        |epoch: &Epoch| epoch.epoch.to_string() == number && epoch.test_loss.to_string() == loss;
    epochs.iter().find(|epoch| is_kept(epoch)).map(|epoch| epoch.test_loss)
}

#[cfg(test)]
mod tests;
