//! Whether a run has learned anything, and if not, what is likely to be wrong.

use super::{
    cause::{decay, too_large},
    rollback_steps, Options, Rule, Run,
};
use crate::report::{count, number, rates};
use std::fmt;
use tlr::{engine::RATES, Adaptation, Outcome};

/// The loss that a run starts from is the mean over the first quarter of its steps, but over at
/// most this many, and over none from the first far too large step on.
const FIRST: usize = 20;

/// With fewer steps than this, a trend cannot be told from noise.
const FEWEST: usize = 2 * FIRST;

/// A loss above this many times the first one is what a far too large step leaves. Until a step is
/// made, batches do not differ by so much.
const FAR: f64 = 1.5;

/// With fewer losses than this at the start, the noise is that of the last ones.
const FEW: usize = 5;

/// A rate above this moves every loss that depends on the weights.
const HUGE: f64 = 1e6;

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
        /// Mean over the first quarter of the steps, at most over twenty, and over none from the
        /// first loss on that is more than half above that of the first step.
        start: f64,
        /// Mean over the last quarter of the steps.
        end: f64,
    },
    /// The loss is above its start by more than noise.
    LossRose {
        /// Mean over the first quarter of the steps, at most over twenty, and over none from the
        /// first loss on that is more than half above that of the first step.
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
                write!(f, "too short to tell: after {steps} nobody knows whether the loss falls")
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
/// difference, and not above the first loss by more than its noise (two standard deviations of the
/// last quarter) or by half. Of the first quarter, at most twenty steps count, and only those
/// before the first loss that is above the first step's by more than half: what a far too large
/// step leaves is not what the run started from.
///
/// After fewer than forty steps the loss is not judged. If it did not fall, a run that learns its
/// rate has failed only if at least two windows were kept, or if its rates went above 1e6.
/// Otherwise the run is too short to tell.
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
    let undecided =
        || options.rule != Rule::Constant && kept_windows(&run.history) < 2 && !are_huge(run);
    let too_short = match fault {
        None => steps < FEWEST,
        Some(Fault::LossStayed { .. } | Fault::LossRose { .. }) => steps < FEWEST || undecided(),
        Some(_) => false,
    };
    match fault {
        _ if too_short => Verdict::TooShort { steps },
        None => Verdict::Learned,
        Some(fault) => Verdict::Failed { cause: cause(options, run, &fault), fault },
    }
}

fn fault(run: &Run) -> Option<Fault> {
    let at_bound = |rate: f64| rate <= *RATES.start() || rate >= *RATES.end();
    if let Some((group, rate)) = last_rates(run).iter().find(|(_, rate)| at_bound(*rate)) {
        return Some(Fault::RateAtBound { group: group.clone(), rate: *rate });
    }
    let (undone, kept) = (rollback_steps(&run.history).len(), kept_windows(&run.history));
    if undone > kept.max(FEW_ROLLBACKS) {
        return Some(Fault::Rollbacks { undone, kept });
    }
    let quarter = run.losses.len().div_ceil(4);
    let last = finite(run.losses.get(run.losses.len() - quarter..).unwrap_or_default());
    let first = first_losses(run);
    let (start, end) = (mean(&first), mean(&last));
    let noise = noise(&last);
    let of_start = if first.len() < FEW { noise } else { self::noise(&first) };
    let error = (of_start / first.len() as f64 + noise / last.len() as f64).sqrt();
    // The first loss, and not the start's mean: losses that rose by less than half are part of that
    // mean, and raise it.
    let before = first.first().copied().unwrap_or(f64::NAN);
    if end > before + 2.0 * noise.sqrt() || end > far_above(before) {
        Some(Fault::LossRose { start: before, end })
    } else if end < start - 2.0 * error {
        None
    } else if end > start + 2.0 * error {
        Some(Fault::LossRose { start, end })
    } else {
        // This holds too if there is no loss at all, or none that is finite.
        Some(Fault::LossStayed { start, end })
    }
}

/// The losses that a run starts from, those left out that are not finite.
fn first_losses(run: &Run) -> Vec<f64> {
    let quarter = run.losses.len().div_ceil(4).min(FIRST);
    let finite = run.losses.iter().take(quarter).copied().filter(|loss| loss.is_finite());
    let far = far_above(first_loss(run));
    finite.take_while(|loss| *loss <= far).collect()
}

/// The first loss that is finite, or NaN.
fn first_loss(run: &Run) -> f64 {
    run.losses.iter().copied().find(|loss| loss.is_finite()).unwrap_or(f64::NAN)
}

/// The loss that is far above a first one: by half of its size. A loss may be below zero.
fn far_above(first: f64) -> f64 {
    first + (FAR - 1.0) * first.abs()
}

/// Whether the loss was far above the first one, or not finite.
fn exploded(run: &Run) -> bool {
    let far = far_above(first_loss(run));
    run.losses.iter().any(|loss| *loss > far || !loss.is_finite())
}

/// Each group's name and rate at the end.
fn last_rates(run: &Run) -> &[(String, f64)] {
    run.epochs.last().map(|epoch| epoch.rates.as_slice()).unwrap_or_default()
}

/// Whether all rates are so high that the loss of any good model would move.
fn are_huge(run: &Run) -> bool {
    !last_rates(run).is_empty() && last_rates(run).iter().all(|(_, rate)| *rate > HUGE)
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

/// The variance of a loss, from the differences between neighbours, so that a trend does not count.
fn noise(losses: &[f64]) -> f64 {
    let neighbours = losses.iter().zip(losses.iter().skip(1));
    let squares: f64 = neighbours.map(|(loss, next)| (next - loss).powi(2)).sum();
    squares / (2 * losses.len().saturating_sub(1).max(1)) as f64
}

/// The number of latest decisions that show whether a rate still rises.
const LATEST: usize = 3;

/// Whether the rate of some group has doubled in its latest windows, none of which was undone:
/// where it will end is not known yet.
fn still_rises(run: &Run) -> bool {
    last_rates(run).iter().any(|(name, _)| {
        let own = run.history.iter().filter(|decision| *decision.layer == **name);
        let windows = own.filter(|decision| decision.outcome != Outcome::Ramped);
        let latest: Vec<_> = windows.rev().take(LATEST).collect();
        let undone = |decision: &&Adaptation| matches!(decision.outcome, Outcome::RolledBack(_));
        let (Some(last), Some(before)) = (latest.first(), latest.last()) else { return false };
        !latest.iter().any(undone) && last.to >= 2.0 * before.from
    })
}

fn cause(options: &Options, run: &Run, fault: &Fault) -> String {
    let (rate, decay) = (number(options.rate), decay(options));
    let too_few = || {
        let are = if options.epochs == 1 { "is" } else { "are" };
        format!("{} {are} too few", count(options.epochs, "epoch"))
    };
    let so_far = || rates(last_rates(run));
    let exploded = exploded(run);
    let (stayed, rose) =
        (matches!(fault, Fault::LossStayed { .. }), matches!(fault, Fault::LossRose { .. }));
    match (options.rule, fault) {
        _ if run.losses.iter().all(|loss| !loss.is_finite()) => {
            "most likely the data holds values that are not finite".to_owned()
        }
        (Rule::Constant, _) if exploded || rose => too_large(options),
        (Rule::Constant, _) => {
            format!("most likely a constant --rate of {rate} is too small{decay}")
        }
        (_, Fault::RateAtBound { rate, .. }) if *rate > 1.0 => {
            format!("most likely the loss does not depend on the weights: look at the data{decay}")
        }
        _ if stayed && are_huge(run) => format!(
            "most likely the loss does not depend on the weights, as it stayed at a rate of {}: \
             look at the data{decay}",
            so_far()
        ),
        (Rule::Additive | Rule::Multiplicative, _) => too_large(options),
        (Rule::Paper, _) if exploded => too_large(options),
        (Rule::Paper, _) => {
            format!("most likely the paper's rule oscillates: try --rule aligned{decay}")
        }
        (Rule::Aligned, _) if exploded && !options.ramp => too_large(options),
        (Rule::Aligned, Fault::RateAtBound { .. } | Fault::Rollbacks { .. }) => too_large(options),
        (Rule::Aligned, _) if stayed && still_rises(run) => match options.ramp {
            true => {
                format!("most likely {}: the rate still rises ({} so far)", too_few(), so_far())
            }
            false => format!(
                "most likely a --rate of {rate} is far too small to start from, and {}: the rate \
                 still rises ({} so far); without --no-ramp a better one is found at once",
                too_few(),
                so_far()
            ),
        },
        (Rule::Aligned, _) => {
            format!("most likely the labels do not belong to the examples{decay}, or {}", too_few())
        }
    }
}

#[cfg(test)]
mod tests;
