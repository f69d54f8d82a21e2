//! Runs that outlive their process.

use super::{Learner, Options, TrainError};
use crate::report::Epoch;
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
    /// Goes on from there. Where no file is yet, the run begins.
    pub resume: bool,
    /// Once true, the run ends after the step it is in: [`TrainError::Stopped`].
    pub stop: Option<&'a AtomicBool>,
}

/// The name of what a run adds to a checkpoint.
const ATTACHMENT: &str = "run";

/// Of that. Another one is another run.
const FORMAT: u32 = 1;

/// Where a run is, beside its model and optimizer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    format: u32,
    options: Options,
    batches_per_epoch: usize,
    /// Numbers drawn for dropout.
    pub(super) drawn: u64,
    /// Those that are done.
    pub(super) epochs: Vec<Epoch>,
    /// Of every step.
    pub(super) losses: Vec<f64>,
    /// Of the epoch that is not done: Σ loss · weight and Σ weight over its batches, and its seconds.
    pub(super) sum: f64,
    pub(super) weights: usize,
    pub(super) seconds: f64,
}

impl Progress {
    pub(super) fn new(options: &Options, batches_per_epoch: usize) -> Self {
        Self {
            format: FORMAT,
            options: *options,
            batches_per_epoch,
            drawn: 0,
            epochs: Vec::new(),
            losses: Vec::new(),
            sum: 0.0,
            weights: 0,
            seconds: 0.0,
        }
    }

    /// Batches of the epoch that is not done.
    pub(super) fn batch(&self) -> usize {
        self.losses.len().saturating_sub(self.epochs.len() * self.batches_per_epoch)
    }

    /// Why a checkpoint with `saved` does not belong to this run. It may have been meant for fewer epochs.
    fn differs(&self, saved: &Self) -> Option<String> {
        let lines = |progress: &Self| {
            let Self { format, options, batches_per_epoch, .. } = progress;
            let options = Options { epochs: 0, ..*options };
            format!("format: {format}\nbatches in an epoch: {batches_per_epoch}\n{options:#?}")
        };
        let (here, there) = (lines(self), lines(saved));
        let (here, there) = here
            .lines()
            .zip(there.lines())
            .map(|(here, there)| {
                (here.trim().trim_end_matches(','), there.trim().trim_end_matches(','))
            })
            .find(|(here, there)| here != there)?;
        Some(format!("it has `{there}`, this run `{here}`"))
    }
}

impl Persistence<'_> {
    /// Takes model and optimizer to where the checkpoint is, if there is one.
    pub(super) fn begin<M>(
        &self,
        model: &mut M,
        optimizer: &mut dyn Learner<M>,
        new: Progress,
    ) -> Result<Progress, TrainError> {
        let Some(path) = self.checkpoint.filter(|path| path.exists()) else { return Ok(new) };
        if !self.resume {
            return Err(TrainError::CheckpointExists(path.to_owned()));
        }
        let another = |what| TrainError::AnotherRun { path: path.to_owned(), what };
        let checkpoint = Checkpoint::open(path)?;
        let saved = checkpoint.attachment(ATTACHMENT);
        let saved: Progress = saved
            .and_then(|bytes| postcard::from_bytes(bytes).ok())
            .ok_or_else(|| another("nothing in it tells how far it got".to_owned()))?;
        if let Some(what) = new.differs(&saved) {
            return Err(another(what));
        }
        if saved.batch() > saved.batches_per_epoch {
            return Err(another("it has more steps than its epochs hold".to_owned()));
        }
        optimizer.resume(model, &checkpoint)?;
        Ok(saved)
    }

    pub(super) fn save<M>(
        &self,
        model: &M,
        optimizer: &mut dyn Learner<M>,
        progress: &Progress,
    ) -> Result<(), tlr::Error> {
        let Some(path) = self.checkpoint else { return Ok(()) };
        // Fails for lengths that are not known beforehand only, and there are none.
        let bytes = postcard::to_stdvec(progress).unwrap_or_default();
        optimizer.checkpoint(model)?.attach(ATTACHMENT, bytes).save(path)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}
