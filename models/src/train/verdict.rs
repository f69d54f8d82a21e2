//! Whether a run has learned anything, and if not, what is likely to be wrong.

use super::{facts::figure, rollback_steps, Options, Rule, Run};
use crate::report::{count, rates};
use std::fmt;
use tlr::{engine::RATES, Adaptation, Outcome};

/// The loss that a run starts from is the mean over the first quarter of its steps, but over at
/// most this many.
const FIRST: usize = 20;

/// With fewer steps than this, a trend cannot be told from noise.
const FEWEST: usize = 2 * FIRST;

/// This many rollbacks are no sign of a failure.
const FEW_ROLLBACKS: usize = 2;

/// Whether a run has learned anything.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// The loss fell, by more than noise.
    Learned,
    /// Too few steps were made, or too few windows have ended, to judge.
    TooShort {
        /// How many steps were made.
        steps: usize,
    },
    /// Something is wrong.
    Failed {
        /// What was seen.
        fault: Fault,
        /// What is likely to be the cause, and what to try.
        cause: String,
    },
}

/// Why a run is taken for a failure.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// A rate ended at one of the [bounds](RATES) that all rates have.
    RateAtBound {
        /// The group's name.
        group: String,
        /// The rate.
        rate: f64,
    },
    /// More windows were undone than were kept.
    Rollbacks {
        /// How many windows were undone.
        undone: usize,
        /// How many windows were kept.
        kept: usize,
    },
    /// The loss is about what it was at first.
    LossStayed {
        /// Mean over the first quarter of the steps, at most over twenty.
        start: f64,
        /// Mean over the last quarter of the steps.
        end: f64,
    },
    /// The loss is above its start by more than noise.
    LossRose {
        /// Mean over the first quarter of the steps, at most over twenty.
        start: f64,
        /// Mean over the last quarter of the steps.
        end: f64,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learned => f.write_str("learned"),
            Self::TooShort { steps } => {
                let steps = count(*steps, "step");
                write!(f, "too short to tell: after {steps} a rate has hardly begun to move")
            }
            Self::Failed { fault, cause } => write!(f, "did not learn: {fault}; {cause}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateAtBound { group, rate } => {
                write!(f, "the rate of `{group}` has run into its bound of {rate:e}")
            }
            Self::Rollbacks { undone, kept } => {
                let were = if *undone == 1 { "was" } else { "were" };
                write!(f, "{} {were} undone and only {kept} kept", count(*undone, "window"))
            }
            Self::LossStayed { start, end } | Self::LossRose { start, end } => {
                write!(f, "the training loss is {end:.4} at the end and was {start:.4} at first")
            }
        }
    }
}

/// Judges a run that has come to its end.
///
/// A run has failed if a rate is at its bound, if more windows were undone than kept (and more than
/// two), or if the loss did not fall. The loss fell if its mean over the last quarter of the steps
/// is below its mean over the first quarter by more than twice the standard error of the
/// difference. Of the first quarter, at most twenty steps count.
///
/// After fewer than forty steps the loss is not judged. If it did not fall, the run has failed only
/// if at least two windows were kept. Otherwise the run is too short to tell.
///
/// # Example
/// ```
/// use tlr_models::{
///     data::digits,
///     train::{judge, train, InMemory, Net, Options, Persistence, Verdict},
/// };
///
/// let data = digits::draw(0, 64, 16)?;
/// let options = Options { epochs: 1, batch_size: 16, ..Options::default() };
/// let source = InMemory::new(&data, options.batch_size, options.seed, None)?;
/// let run = train::<Net>(&source, &options, &Persistence::default(), &mut |_| ())?;
/// // Four steps say nothing yet.
/// assert!(matches!(judge(&options, &run), Verdict::TooShort { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn judge(options: &Options, run: &Run) -> Verdict {
    let (fault, steps) = (fault(run), run.losses.len());
    let too_short = match fault {
        None => steps < FEWEST,
        Some(Fault::LossStayed { .. } | Fault::LossRose { .. }) => {
            steps < FEWEST || kept_windows(&run.history) < 2
        }
        Some(_) => false,
    };
    match fault {
        _ if too_short => Verdict::TooShort { steps },
        None => Verdict::Learned,
        Some(fault) => Verdict::Failed { cause: cause(options, run, &fault), fault },
    }
}

fn fault(run: &Run) -> Option<Fault> {
    let rates = run.epochs.last().map(|epoch| epoch.rates.as_slice()).unwrap_or_default();
    let at_bound = |rate: f64| rate <= *RATES.start() || rate >= *RATES.end();
    if let Some((group, rate)) = rates.iter().find(|(_, rate)| at_bound(*rate)) {
        return Some(Fault::RateAtBound { group: group.clone(), rate: *rate });
    }
    let (undone, kept) = (rollback_steps(&run.history).len(), kept_windows(&run.history));
    if undone > kept.max(FEW_ROLLBACKS) {
        return Some(Fault::Rollbacks { undone, kept });
    }
    let quarter = run.losses.len().div_ceil(4);
    let first = finite(run.losses.get(..quarter.min(FIRST)).unwrap_or_default());
    let last = finite(run.losses.get(run.losses.len() - quarter..).unwrap_or_default());
    let (start, end) = (mean(&first), mean(&last));
    let error = (squared_standard_error(&first) + squared_standard_error(&last)).sqrt();
    if end < start - 2.0 * error {
        None
    } else if end > start + 2.0 * error {
        Some(Fault::LossRose { start, end })
    } else {
        // This holds too if there is no loss at all, or none that is finite.
        Some(Fault::LossStayed { start, end })
    }
}

/// How many windows have ended with a decision by a rule.
fn kept_windows(history: &[Adaptation]) -> usize {
    let ended = |outcome| !matches!(outcome, Outcome::RolledBack(_) | Outcome::Ramped);
    let mut steps: Vec<u64> = history
        .iter()
        .filter(|decision| ended(decision.outcome))
        .map(|decision| decision.step)
        .collect();
    steps.dedup();
    steps.len()
}

/// The losses that are finite. The safeguard skips a batch whose loss is not finite, and a few of
/// those are no fault of a run. If half of the losses or more are not finite, there are none.
fn finite(losses: &[f64]) -> Vec<f64> {
    let finite: Vec<_> = losses.iter().copied().filter(|loss| loss.is_finite()).collect();
    if 2 * finite.len() > losses.len() {
        finite
    } else {
        Vec::new()
    }
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// The square of the standard error of the mean, from the differences between neighbours, so that a
/// trend does not count as an error.
fn squared_standard_error(losses: &[f64]) -> f64 {
    let neighbours = losses.iter().zip(losses.iter().skip(1));
    let squares: f64 = neighbours.map(|(loss, next)| (next - loss).powi(2)).sum();
    squares / (2 * losses.len().saturating_sub(1).max(1) * losses.len().max(1)) as f64
}

/// The number of latest decisions that show whether a rate still rises.
const LATEST: usize = 3;

/// Whether the rate of some group has doubled in its latest windows, none of which was undone:
/// where it will end is not known yet.
fn still_rises(run: &Run) -> bool {
    let names = run.epochs.last().map(|epoch| epoch.rates.as_slice()).unwrap_or_default();
    names.iter().any(|(name, _)| {
        let own = run.history.iter().filter(|decision| *decision.layer == **name);
        let windows = own.filter(|decision| decision.outcome != Outcome::Ramped);
        let latest: Vec<_> = windows.rev().take(LATEST).collect();
        let undone = |decision: &&Adaptation| matches!(decision.outcome, Outcome::RolledBack(_));
        let (Some(last), Some(before)) = (latest.first(), latest.last()) else { return false };
        !latest.iter().any(undone) && last.to >= 2.0 * before.from
    })
}

fn cause(options: &Options, run: &Run, fault: &Fault) -> String {
    let rate = figure(options.rate);
    let decay = if options.weight_decay > 0.0 {
        format!(", or a --weight-decay of {} too large", figure(options.weight_decay))
    } else {
        String::new()
    };
    let too_few = || {
        let are = if options.epochs == 1 { "is" } else { "are" };
        format!("{} {are} too few", count(options.epochs, "epoch"))
    };
    match (options.rule, fault) {
        (Rule::Constant, Fault::LossRose { .. }) => {
            format!("most likely a constant --rate of {rate} is too large{decay}")
        }
        (Rule::Constant, Fault::LossStayed { .. }) => {
            format!("most likely a constant --rate of {rate} is too small{decay}")
        }
        (Rule::Constant, _) => format!("a constant --rate of {rate} trains nothing"),
        (Rule::Additive | Rule::Multiplicative, _) => {
            let eta = figure(options.meta_rate);
            format!("most likely a --meta-rate of {eta} does not suit a --rate of {rate}{decay}")
        }
        (Rule::Paper, _) => {
            format!("most likely the paper's rule oscillates: try --rule aligned{decay}")
        }
        (Rule::Aligned, Fault::RateAtBound { rate, .. }) if *rate > 1.0 => {
            "most likely the loss does not depend on the weights: look at the data".to_owned()
        }
        (Rule::Aligned, Fault::RateAtBound { .. } | Fault::Rollbacks { .. }) => format!(
            "most likely the data is broken (values that are not finite, wrong labels){decay}, or \
             batches of {} are too small",
            options.batch_size
        ),
        (Rule::Aligned, Fault::LossStayed { .. }) if still_rises(run) => {
            let so_far = run.epochs.last().map_or(String::new(), |last| rates(&last.rates));
            match options.ramp {
                true => {
                    format!("most likely {}: the rate still rises ({so_far} so far)", too_few())
                }
                false => format!(
                    "most likely a --rate of {rate} is far too small to start from, and {}: the \
                     rate still rises ({so_far} so far); without --no-ramp a better one is found \
                     at once",
                    too_few()
                ),
            }
        }
        (Rule::Aligned, Fault::LossStayed { .. } | Fault::LossRose { .. }) => {
            format!("most likely the labels do not belong to the examples{decay}, or {}", too_few())
        }
    }
}

#[cfg(test)]
mod tests;
