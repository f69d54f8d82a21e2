//! The flags that say how to train.

use super::{
    device::{Device, Precision},
    numbers::whole,
};
use std::path::PathBuf;
use tlr_models::train::{Base, Mode, Options, Rule, ScheduleKind};

/// How to train.
#[derive(clap::Args)]
pub(crate) struct Training {
    /// Use only the first N examples to train on, and at most N to test on
    #[arg(long, value_name = "N", help_heading = "Data", value_parser = whole::<usize>(1))]
    pub(crate) limit: Option<usize>,

    /// How many times all examples are gone through
    #[arg(long, value_name = "N", help_heading = "Training", value_parser = whole::<usize>(1))]
    #[arg(default_value = "10")]
    pub(crate) epochs: usize,
    /// Examples in a step
    #[arg(long, value_name = "N", help_heading = "Training", value_parser = whole::<usize>(1))]
    #[arg(default_value = "128")]
    pub(crate) batch_size: usize,
    /// Optimizer whose learning rate is learned
    #[arg(long, value_enum, help_heading = "Training", default_value_t = Base::Sgd)]
    pub(crate) optimizer: Base,
    /// Pull of the weights towards 0: X times the weights are added to the gradient
    #[arg(long, value_name = "X", help_heading = "Training", default_value = "0")]
    pub(crate) weight_decay: f64,
    /// Number that decides all that is random: the first weights, the order of the examples, and
    /// the data where it is drawn
    #[arg(long, value_name = "N", help_heading = "Training", value_parser = whole::<u64>(0))]
    #[arg(default_value = "0")]
    pub(crate) seed: u64,
    /// What computes. Its rounding differs, and so do the last digits of the result
    #[arg(long, value_enum, help_heading = "Training", default_value_t = Device::Cpu)]
    pub(crate) device: Device,
    /// The numbers to train in. In f16 a batch takes half the memory and the loss is scaled, so
    /// that small gradients do not vanish; a checkpoint goes on in the numbers that it was made in
    #[arg(long, value_enum, help_heading = "Training", default_value_t = Precision::F32)]
    pub(crate) precision: Precision,
    /// Threads to compute with; the result is the same with any number [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Training", value_parser = whole::<usize>(1))]
    pub(crate) threads: Option<usize>,
    /// Train as an earlier run did, by the run.json that it left; other flags given override it
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    pub(crate) config: Option<PathBuf>,

    /// Learning rate to start from. With the rule `aligned` hardly any value does harm: a good one
    /// is found in the first steps
    #[arg(long, value_name = "X", help_heading = "Learned rate", default_value = "1e-6")]
    pub(crate) rate: f64,
    /// Start from --rate as it is, and do not look for a better one in the first steps
    #[arg(long, help_heading = "Learned rate")]
    pub(crate) no_ramp: bool,
    /// One learning rate for the whole model, or one for each layer
    #[arg(long, value_enum, help_heading = "Learned rate", default_value_t = Mode::Global)]
    pub(crate) mode: Mode,
    /// How a new learning rate is found from what the last steps did
    #[arg(long, value_enum, help_heading = "Learned rate", default_value_t = Rule::Aligned)]
    pub(crate) rule: Rule,
    /// How often the rate is changed: 0.2 is after every fifth of an epoch, but not within 20
    /// steps. Above 0, at most 1 (p in the paper)
    #[arg(long, value_name = "X", help_heading = "Learned rate", default_value = "0.2")]
    pub(crate) window_fraction: f64,
    /// How far `aligned` and `paper` go at a time, as a part of the way to the rate that looks
    /// best. Above 0, at most 1 (γ in the paper)
    #[arg(long, value_name = "X", help_heading = "Learned rate", default_value = "0.33")]
    pub(crate) damping: f64,
    /// How far `additive` and `multiplicative` go at a time. Above 0 (η in the paper)
    #[arg(long, value_name = "X", help_heading = "Learned rate", default_value = "0.01")]
    pub(crate) meta_rate: f64,
    /// What the learned rate is multiplied by on its way through the run [default: horizon with
    /// the rule `aligned`, constant with others]
    #[arg(long, value_enum, help_heading = "Learned rate")]
    pub(crate) schedule: Option<ScheduleKind>,
    /// Never undo the last steps and cut the rate, as is done where the loss rises
    #[arg(long, help_heading = "Learned rate")]
    pub(crate) no_safeguard: bool,
    /// Save memory: learn the rate from N sums over the weights, 16384 say, and not from two copies
    /// of them. N is a power of two from 64 on, and nothing can be undone
    #[arg(long, value_name = "N", help_heading = "Learned rate", value_parser = whole::<usize>(1))]
    pub(crate) sketch: Option<usize>,
    /// Save memory: keep one of the two copies of the weights in half of the bits (bfloat16)
    #[arg(long, help_heading = "Learned rate")]
    pub(crate) bf16_directions: bool,

    /// Folder for the results: run.json, epochs.csv, history.csv (each change of a rate) and
    /// curves.svg, written anew after each epoch, and best.safetensors, the weights after the epoch
    /// with the least test loss
    #[arg(long, value_name = "DIR", help_heading = "Output", default_value = "out")]
    pub(crate) out: PathBuf,
    /// Save the whole run in FILE, after each epoch and on Ctrl-C, so that it can go on
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Go on from --checkpoint; begin where there is none yet
    #[arg(long, requires = "checkpoint", help_heading = "Output")]
    pub(crate) resume: bool,
    /// End with the result as one line of JSON
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Write losses, rates and the like for TensorBoard, too: `tensorboard --logdir DIR` shows them
    #[arg(long, help_heading = "Output")]
    pub(crate) tensorboard: bool,
    /// Show nothing but the last line, and what goes wrong
    #[arg(long, help_heading = "Output")]
    pub(crate) quiet: bool,
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
            schedule: self.schedule.unwrap_or(ScheduleKind::usual(self.rule)),
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
