//! What is known of a run that has ended.

use super::jobs::RunError;
use crate::{
    baselines::PeerError,
    report::{self, count, Epoch},
    train::{self, Base, Mode, Options, Rule, Run, ScheduleKind, TrainError},
};
use serde::{Deserialize, Serialize};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All epochs were trained.
    Finished,
    /// The loss or a weight became NaN or infinite, also the last test's loss, or rolling back did
    /// not help. This is a result, too.
    Diverged,
    /// Something else went wrong, such as too little memory. The run is made again.
    Failed,
}

/// Whether a run diverged or failed, and the error in words.
pub(crate) fn how_it_ended(error: &TrainError) -> (Ended, String) {
    use tlr::Error::{
        LostWeights, NonFiniteLoss, NonFiniteStep, NonFiniteWeights, TooManyRollbacks,
    };
    let ended = match error {
        TrainError::Rate(
            LostWeights { .. }
            | NonFiniteLoss { .. }
            | NonFiniteStep { .. }
            | NonFiniteWeights { .. }
            | TooManyRollbacks { .. },
        )
        | TrainError::Peer(PeerError::NonFiniteLoss { .. } | PeerError::NonFinite { .. }) => {
            Ended::Diverged
        }
        _ => Ended::Failed,
    };
    (ended, error.to_string())
}

/// Why a run that came to its end counts as diverged.
pub(crate) const NO_FINITE_LOSS: &str = "the loss of the test is not finite";

/// A run that has ended: a line of `results.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepRecord {
    /// The data set's name, number of training images, and fingerprint.
    pub data: String,
    /// How it ended.
    pub ended: Ended,
    /// The optimizer. This field and the next fifteen are those of [`Options`].
    pub optimizer: Base,
    /// Whether there was one rate, or one a layer.
    pub mode: Mode,
    /// The rule by which the rate moved.
    pub rule: Rule,
    /// The starting rate that was given.
    pub rate: f64,
    /// Whether the starting rate was looked for.
    pub ramp: bool,
    /// The number of examples in a batch.
    pub batch_size: usize,
    /// p, the fraction of an epoch between two adaptations.
    pub window_fraction: f64,
    /// γ of the Newton rules.
    pub damping: f64,
    /// η of the first-order rules.
    pub meta_rate: f64,
    /// The weight decay (L2).
    pub weight_decay: f64,
    /// The schedule that the rate was multiplied by.
    pub schedule: ScheduleKind,
    /// Whether windows that went wrong were undone.
    pub safeguard: bool,
    /// The bins of a sketch, if there was one in place of snapshots.
    pub sketch: Option<usize>,
    /// Whether directions were kept in bfloat16.
    pub bf16_directions: bool,
    /// The number of passes over the training set.
    pub epochs: usize,
    /// The seed of the weights and of the order of the examples.
    pub seed: u64,
    /// The accuracy at the end, from 0 to 1. None if the run ended in an error, like the losses.
    pub test_accuracy: Option<f64>,
    /// The test loss at the end.
    pub test_loss: Option<f64>,
    /// The mean training loss of the last epoch.
    pub train_loss: Option<f64>,
    /// How many windows were undone.
    pub rollbacks: usize,
    /// How many of them after the first epoch.
    pub late_rollbacks: usize,
    /// Each layer's name and rate at the end.
    pub final_rates: String,
    /// The seconds that the run took on one core.
    pub seconds: f64,
    /// What ended it early.
    pub error: String,
}

/// A `$To` with the fields of [`Options`] that `$from` has, and others.
macro_rules! of_run {
    ($from:ident => $To:ident { $($others:tt)* }) => {
        $To {
            optimizer: $from.optimizer,
            mode: $from.mode,
            rule: $from.rule,
            rate: $from.rate,
            ramp: $from.ramp,
            batch_size: $from.batch_size,
            window_fraction: $from.window_fraction,
            damping: $from.damping,
            meta_rate: $from.meta_rate,
            weight_decay: $from.weight_decay,
            schedule: $from.schedule,
            safeguard: $from.safeguard,
            sketch: $from.sketch,
            bf16_directions: $from.bf16_directions,
            epochs: $from.epochs,
            seed: $from.seed,
            $($others)*
        }
    };
}

impl SweepRecord {
    pub(super) fn new(data: &str, options: &Options, run: Result<&Run, &RunError>) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        let (run, (ended, error)) = match run {
            Ok(run) => {
                let last = run.epochs.last().map_or(0.0, |epoch| epoch.test_loss);
                let ended = match last.is_finite() {
                    true => (Ended::Finished, String::new()),
                    false => (Ended::Diverged, NO_FINITE_LOSS.to_owned()),
                };
                (Some(run), ended)
            }
            Err(RunError::Train(error)) => (None, how_it_ended(error)),
            Err(RunError::Panicked) => (None, (Ended::Failed, RunError::Panicked.to_string())),
        };
        let epochs = run.map_or(&[][..], |run| &run.epochs);
        let last = epochs.last();
        let rollbacks = |epochs: &[Epoch]| epochs.iter().map(|epoch| epoch.rollbacks).sum();
        of_run!(options => Self {
            data: data.to_owned(),
            ended,
            test_accuracy: last.map(|epoch| epoch.test_accuracy),
            test_loss: last.and_then(|epoch| finite(epoch.test_loss)),
            train_loss: last.and_then(|epoch| finite(epoch.train_loss)),
            rollbacks: rollbacks(epochs),
            late_rollbacks: rollbacks(epochs.get(1..).unwrap_or_default()),
            final_rates: last.map(|epoch| report::rates(&epoch.rates)).unwrap_or_default(),
            seconds: run.map_or(0.0, |run| run.seconds),
            error,
        })
    }

    /// The run's options.
    ///
    /// Example: [`run`](super::run).
    pub fn options(&self) -> Options {
        of_run!(self => Options {})
    }
}

/// An epoch of a run: a line of `epochs.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The run's data and options, in one line.
    pub cell: String,
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// The mean loss over the training set.
    pub train_loss: f64,
    /// The mean loss over the test set.
    pub test_loss: f64,
    /// The accuracy on the test set, from 0 to 1.
    pub test_accuracy: f64,
    /// The geometric mean of the layers' rates at the end of the epoch.
    pub rate: f64,
}

/// A run in a line, for the terminal.
///
/// Example: [`run`](super::run).
pub fn line(record: &SweepRecord) -> String {
    let options = record.options();
    let mut line = format!(
        "{} {} {} from {:e}, batch {}, p {:.2}, ",
        train::name(&options.optimizer),
        train::name(&options.mode),
        train::name(&options.rule),
        options.rate,
        options.batch_size,
        options.window_fraction,
    );
    line += &match options.rule {
        Rule::Aligned | Rule::Paper => format!("γ {}, ", options.damping),
        Rule::Additive | Rule::Multiplicative => format!("η {:e}, ", options.meta_rate),
        Rule::Constant => String::new(),
    };
    line += &format!("seed {}: ", options.seed);
    line += &match (record.test_accuracy, record.test_loss) {
        _ if record.ended == Ended::Failed => {
            format!("failed, and will be run again: {}", record.error)
        }
        _ if record.ended == Ended::Diverged => format!("diverged: {}", record.error),
        (Some(accuracy), Some(loss)) => format!(
            "{:.2} %, loss {loss:.4}, {} ({} late)",
            100.0 * accuracy,
            count(record.rollbacks, "rollback"),
            record.late_rollbacks
        ),
        _ => "diverged".to_owned(),
    };
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if a run is finished in the file and diverged on the terminal.
    #[test]
    fn a_run_whose_last_test_has_no_finite_loss_has_diverged() {
        let of = |test_loss: f64| {
            let epoch = Epoch {
                epoch: 1,
                train_loss: 1.0,
                test_loss,
                test_accuracy: 0.5,
                seconds: 0.0,
                rates: Vec::new(),
                schedule: 1.0,
                rollbacks: 0,
            };
            let run = Run {
                epochs: vec![epoch],
                losses: vec![1.0],
                history: Vec::new(),
                batches_per_epoch: 1,
                parameters: 1,
                seconds: 1.0,
            };
            SweepRecord::new("few digits", &Options::default(), Ok(&run))
        };
        for loss in [f64::NAN, f64::INFINITY] {
            let record = of(loss);
            assert_eq!((record.ended, record.test_loss), (Ended::Diverged, None));
            assert!(line(&record).ends_with("diverged: the loss of the test is not finite"));
        }
        assert_eq!(of(0.5).ended, Ended::Finished);
        assert!(line(&of(0.5)).ends_with("50.00 %, loss 0.5000, 0 rollbacks (0 late)"));
    }
}
