//! The flags that say how to train.

use std::{num::NonZeroUsize, path::PathBuf};
use tlr_models::train::{Base, Mode, Options, Rule, Shape};

/// How to train.
#[derive(clap::Args)]
pub(crate) struct Training {
    /// Starting learning rate: the aligned rule finds one by itself, in its first steps
    #[arg(long, default_value_t = 1e-6)]
    pub(crate) rate: f64,
    /// Start from the rate as it is given
    #[arg(long)]
    pub(crate) no_ramp: bool,
    /// Examples in a batch
    #[arg(long, default_value_t = 128)]
    pub(crate) batch_size: usize,
    /// Passes over the training set
    #[arg(long, default_value_t = 10)]
    pub(crate) epochs: usize,
    /// Base optimizer (momentum is 0.9)
    #[arg(long, value_enum, default_value_t = Base::Sgd)]
    pub(crate) optimizer: Base,
    /// One rate, or one a layer
    #[arg(long, value_enum, default_value_t = Mode::Global)]
    pub(crate) mode: Mode,
    /// How the rate moves
    #[arg(long, value_enum, default_value_t = Rule::Aligned)]
    pub(crate) rule: Rule,
    /// γ of the Newton rules, in (0, 1]
    #[arg(long, default_value_t = 0.33)]
    pub(crate) damping: f64,
    /// η of the first-order rules
    #[arg(long, default_value_t = 0.01)]
    pub(crate) meta_rate: f64,
    /// p: fraction of an epoch between two adaptations, in (0, 1]
    #[arg(long, default_value_t = 0.2)]
    pub(crate) window_fraction: f64,
    /// Added to the gradient as so many times the weights
    #[arg(long, default_value_t = 0.0)]
    pub(crate) weight_decay: f64,
    /// What the rate is multiplied by [default: linear with the aligned rule, else constant]
    #[arg(long, value_enum)]
    pub(crate) schedule: Option<Shape>,
    /// Never roll back
    #[arg(long)]
    pub(crate) no_safeguard: bool,
    /// Learn the rate from a sketch of so many bins, 16384 say, and not from snapshots; never roll back
    #[arg(long, value_name = "BINS")]
    pub(crate) sketch: Option<usize>,
    /// Keep the last window's direction in bfloat16, and not the snapshot before it
    #[arg(long)]
    pub(crate) bf16_directions: bool,
    /// Of the weights, the order of the examples, and whatever else is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Use the first N examples for training, and at most N for testing
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Threads of the layers [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Where history.csv, epochs.csv, run.json and curves.svg go
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
    /// End with one JSON object on a line of its own
    #[arg(long)]
    pub(crate) json: bool,
    /// Save the run in this file, after every epoch and on Ctrl-C
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint, if there is one yet
    #[arg(long, requires = "checkpoint")]
    pub(crate) resume: bool,
    /// Train as an earlier run did, by the run.json that it left; flags beside it count more
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl Training {
    /// As training takes them.
    pub(crate) fn options(&self) -> Options {
        Options {
            optimizer: self.optimizer,
            mode: self.mode,
            rule: self.rule,
            rate: self.rate,
            ramp: !self.no_ramp,
            batch_size: self.batch_size,
            window_fraction: self.window_fraction,
            damping: self.damping,
            meta_rate: self.meta_rate,
            weight_decay: self.weight_decay,
            schedule: self.schedule.unwrap_or(Shape::usual(self.rule)),
            safeguard: !self.no_safeguard,
            sketch: self.sketch,
            bf16_directions: self.bf16_directions,
            epochs: self.epochs,
            seed: self.seed,
        }
    }

    /// `n`, or as many as `--limit` allows.
    pub(crate) fn limited(&self, n: usize) -> usize {
        self.limit.map_or(n, |limit| limit.min(n).max(1))
    }
}
