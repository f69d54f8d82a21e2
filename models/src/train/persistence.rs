//! [`Persistence`]: saves a run, and resumes it.

use super::{AnyRanks, Facts, Learner, Number, Options, Share, TrainError, TrainsIn};
use crate::{
    report::{count, Epoch, Held, ReportError},
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
    /// loss.
    pub best: Option<&'a Path>,
    /// Settings that are not among the [`Options`], those of the model for instance. A checkpoint
    /// with other settings is refused.
    pub settings: Option<&'a Facts>,
    /// The ranks that train together, each with its [share](super::Share) of the batches. Only the
    /// first one reads and writes files. The optimizer has to make its steps on all of them
    /// together, as those of [`learner`](super::learner) do and a peer does not: see
    /// [`Learner::ranks`]. None if this process trains by itself.
    pub ranks: Option<&'a AnyRanks>,
}

/// The name under which a run adds its own state to a checkpoint.
const ATTACHMENT: &str = "run";

/// The version of that state. A checkpoint with another one is refused.
const FORMAT: u32 = 5;

/// More numbers than any run draws for dropout. They are drawn again when the run is resumed, which
/// would take for ever with many more.
const MOST_DRAWN: u64 = 1 << 40;

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
        let facts = self.settings.clone().and(&self.data).with("--epochs", epochs);
        let facts = facts.with_flag("--checkpoint", saves);
        ranks.agree(facts.with("number of batches in an epoch", self.batches_per_epoch).all())
    }

    /// The state from the bytes in a checkpoint, or why they are not those of a run.
    fn read(bytes: Option<&[u8]>) -> Result<Self, &'static str> {
        let bytes = bytes.unwrap_or_default();
        let (format, _) = postcard::take_from_bytes::<u32>(bytes)
            .map_err(|_| "it has no progress record of a run")?;
        if format != FORMAT {
            return Err("another version of this program wrote it");
        }
        postcard::from_bytes(bytes).map_err(|_| "the progress record in it is damaged")
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

    /// Why a checkpoint with these figures does not belong to the run `new`.
    fn refuses(&self, new: &Self) -> Option<String> {
        // Different settings often mean different data. So the settings are reported first.
        let changes = self.settings.changes(&new.settings);
        changes.or_else(|| self.data.changes(&new.data)).or_else(|| {
            let (then, now) = (self.batches_per_epoch, new.batches_per_epoch);
            (then != now).then(|| format!("an epoch had {}, and has {now}", count(then, "batch")))
        })
    }
}

impl Persistence<'_> {
    /// Takes model and optimizer to where the checkpoint is, if there is one. No other run writes
    /// the checkpoint until the answer's last part is dropped.
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
        let another = |what| TrainError::AnotherRun { path: path.to_owned(), what };
        let saved = Progress::read(checkpoint.attachment(ATTACHMENT));
        let saved = saved.map_err(|why| another(why.to_owned()))?;
        if let Some(what) = saved.refuses(&new) {
            return Err(another(what));
        }
        if let Some(what) = saved.contradiction() {
            return Err(another(what.to_owned()));
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
            return Err(another("decisions are gone that had been made before".to_owned()));
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

    /// Keeps the weights if `epoch` is better than those before it. `notes` say how to use them.
    pub(super) fn keep_best<M: TensorCollection<E, D>, D: TrainsIn<E>, E: Number>(
        &self,
        model: &M,
        epoch: &Epoch,
        before: &[Epoch],
        notes: &[(&str, String)],
    ) -> Result<(), ReportError> {
        let Some(path) = self.best.filter(|_| self.is_first()) else { return Ok(()) };
        let least = before.iter().map(|epoch| epoch.test_loss).fold(f64::INFINITY, f64::min);
        // Weights that an earlier part of the run has left elsewhere are of no use here.
        let better = epoch.test_loss < least;
        if !better && path.exists() {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use dfdx::{nn::modules::Linear, prelude::*};

    // Fails if a state that was cut or forged is resumed: curves would lack steps without a word,
    // or the run would draw random numbers for ever.
    #[test]
    fn a_state_that_contradicts_itself_is_refused() {
        let epoch = || Epoch {
            epoch: 1,
            train_loss: 1.0,
            test_loss: 1.0,
            test_accuracy: 0.0,
            seconds: 0.0,
            rates: Vec::new(),
            schedule: 1.0,
            rollbacks: 0,
        };
        let of = |epochs: usize, losses: usize, schedule: usize, drawn: u64| {
            let new = Progress::new(&Options::default(), &Facts::default(), Facts::default(), 3);
            Progress {
                epochs: (0..epochs).map(|_| epoch()).collect(),
                losses: vec![1.0; losses],
                schedule: vec![1.0; schedule],
                decided: vec![2; losses],
                drawn: vec![0, drawn],
                ..new
            }
        };
        let told = |decided: Vec<usize>| Progress { decided, ..of(0, 2, 2, 0) }.contradiction();
        assert_eq!(told(vec![0, 3]), None);
        assert!(told(vec![0]).is_some_and(|what| what.contains("losses")));
        assert!(told(vec![3, 2]).is_some_and(|what| what.contains("decisions are gone")));
        let of =
            |epochs, losses, schedule, drawn| of(epochs, losses, schedule, drawn).contradiction();
        for good in [(0, 0, 0, 0), (1, 3, 3, 7), (1, 6, 6, MOST_DRAWN), (0, 2, 2, 0)] {
            assert_eq!(of(good.0, good.1, good.2, good.3), None);
        }
        for (bad, why) in [
            ((1, 3, 2, 0), "losses"),
            ((1, 2, 3, 0), "losses"),
            ((2, 5, 5, 0), "more epochs"),
            ((1, 7, 7, 0), "more steps"),
            ((1, 3, 3, u64::MAX), "random"),
        ] {
            assert!(of(bad.0, bad.1, bad.2, bad.3).is_some_and(|what| what.contains(why)), "{why}");
        }
    }

    // Fails if the weights of an epoch whose loss is no number take the place of better ones, or
    // keep it.
    #[test]
    fn the_best_weights_are_those_of_the_least_loss() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("best.safetensors");
        let persistence = Persistence { best: Some(&path), ..Default::default() };
        let model = Linear::<1, 1, f32, Cpu>::build(&Cpu::default());
        let mut before = Vec::new();
        let mut kept = |loss| {
            let epoch = Epoch {
                epoch: before.len() + 1,
                train_loss: 1.0,
                test_loss: loss,
                test_accuracy: 0.0,
                seconds: 0.0,
                rates: Vec::new(),
                schedule: 1.0,
                rollbacks: 0,
            };
            persistence.keep_best(&model, &epoch, &before, &[]).unwrap();
            before.push(epoch);
            weights::note(&std::fs::read(&path).unwrap(), "epoch").unwrap().unwrap()
        };
        let kept = [3.0, f64::NAN, 4.0, 2.0, f64::NAN, 2.5].map(&mut kept);
        assert_eq!(kept, ["1", "1", "1", "4", "4", "4"]);
    }
}
