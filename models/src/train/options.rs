//! How a run trains: its optimizer, rule, rate, schedule and batches.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tlr::{
    engine::{HypergradientRule, NewtonRule, RateRule},
    Schedule, Window,
};

/// Which optimizer carries the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Plain stochastic gradient descent
    #[default]
    Sgd,
    /// SGD with momentum 0.9
    Momentum,
    /// SGD with Nesterov momentum 0.9
    Nesterov,
    /// Adam, with dfdx's defaults
    Adam,
    /// RMSprop, with dfdx's defaults
    Rmsprop,
}

/// One rate for the model, or one a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One rate
    #[default]
    Global,
    /// One rate a layer
    PerLayer,
}

/// How the rate moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Newton steps, each from the rate that was in force; the one to use
    #[default]
    Aligned,
    /// Newton steps as in the paper (Eq. 8), from the rate of the last window, though the measure
    /// is of the one before
    Paper,
    /// Adds --meta-rate times the slope of the loss along the rate
    Additive,
    /// Multiplies by 1 + --meta-rate times how well two directions agree (-1 to 1)
    Multiplicative,
    /// Leaves the rate at --rate: the optimizer alone, to compare with
    Constant,
}

/// What the rate is multiplied by on its way through a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// 1: the rate is as it is learned
    #[default]
    Constant,
    /// From 0 to 1 over the first epoch
    WarmUp,
    /// 0.1 from half of the run on, and 0.01 from three quarters on
    MultiStep,
    /// Down to 0 at the end. Before that it rises, around sgd from 0.7 to 1, and around adam and
    /// rmsprop from 1 to 1.5. If batches are noisy it falls from the beginning
    Horizon,
    /// From 1 to 0.01, by the same factor at each step
    Exponential,
    /// From 1 to 0 along half a cosine
    Cosine,
    /// From 1 to 0 along half a cosine, again and again: within 1 epoch, 2, 4 and so on
    WarmRestarts,
}

impl ScheduleKind {
    /// The kind that the examples take by default: the horizon with the aligned rule, whose levels
    /// were measured with it (docs/start.md), and a constant one with other rules, as in the paper.
    ///
    /// Example: [`schedule`](Self::schedule).
    pub fn usual(rule: Rule) -> Self {
        match rule {
            Rule::Aligned => Self::Horizon,
            _ => Self::Constant,
        }
    }

    /// Whether the schedule depends on the length of the run, so that a run of more epochs differs.
    pub(crate) fn depends_on_epochs(self) -> bool {
        match self {
            Self::Constant | Self::WarmUp | Self::WarmRestarts => false,
            Self::MultiStep | Self::Horizon | Self::Exponential | Self::Cosine => true,
        }
    }

    /// The schedule for a run of this many epochs, none if it does nothing.
    /// [`Horizon`](Self::Horizon) is no schedule, but a [`horizon`](tlr::Config::horizon).
    ///
    /// # Errors
    /// There are no epochs, or no batches in one.
    ///
    /// # Example
    /// ```
    /// use tlr_models::train::{Rule, ScheduleKind};
    ///
    /// assert_eq!(ScheduleKind::usual(Rule::Aligned), ScheduleKind::Horizon);
    /// let schedule = ScheduleKind::Cosine.schedule(2, 100)?.expect("it multiplies the rate");
    /// assert!((schedule.factor(100) - 0.5).abs() < 1e-9); // half of the way
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schedule(self, epochs: usize, batches: usize) -> Result<Option<Schedule>, tlr::Error> {
        let (epoch, steps) = (batches as u64, epochs.saturating_mul(batches) as u64);
        Ok(Some(match self {
            Self::Constant | Self::Horizon => return Ok(None),
            Self::WarmUp => Schedule::warm_up(epoch)?,
            Self::MultiStep => Schedule::multi_step([steps / 2, steps - steps.div_ceil(4)], 0.1)?,
            Self::Exponential => Schedule::exponential(0.01, steps)?,
            Self::Cosine => Schedule::cosine(steps, 0.0)?,
            Self::WarmRestarts => Schedule::warm_restarts(epoch, 2, 0.0)?,
        }))
    }
}

/// The name on the command line and in files.
///
/// # Example
/// ```
/// use tlr_models::train::{name, Base};
///
/// assert_eq!(name(&Base::Sgd), "sgd");
/// ```
pub fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A training run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The optimizer whose rate is learned. Default plain SGD.
    pub optimizer: Base,
    /// Whether there is one rate, or one a layer. Default one rate.
    pub mode: Mode,
    /// The rule by which the rate moves. Default the aligned Newton rule.
    pub rule: Rule,
    /// The starting rate. Default 1e-6.
    pub rate: f64,
    /// Whether the starting rate is looked for, whatever `rate` is: only by the aligned rule.
    /// Default true.
    pub ramp: bool,
    /// How many examples a batch has. Default 128.
    pub batch_size: usize,
    /// p, the fraction of an epoch between two adaptations. Default 0.2.
    pub window_fraction: f64,
    /// γ of the Newton rules. Default 0.33.
    pub damping: f64,
    /// η of the first-order rules. Default 0.01.
    pub meta_rate: f64,
    /// The weight decay: this many times the weights are added to the gradient (L2). Default 0.
    pub weight_decay: f64,
    /// The schedule that the rate is multiplied by. Default 1.
    pub schedule: ScheduleKind,
    /// Whether windows that go wrong are undone; never with a constant rate. Default true.
    pub safeguard: bool,
    /// Bins of a sketch that the dot products are taken from, in place of snapshots; then there is
    /// no safeguard. Default none.
    pub sketch: Option<usize>,
    /// Whether directions are kept in bfloat16, as by
    /// [`Config::bf16_directions`](tlr::Config::bf16_directions). Default false.
    pub bf16_directions: bool,
    /// How many passes over the training set. Default 10.
    pub epochs: usize,
    /// The seed of the weights and of the order of the examples. Default 0.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            optimizer: Base::Sgd,
            mode: Mode::Global,
            rule: Rule::Aligned,
            rate: 1e-6,
            ramp: true,
            batch_size: 128,
            window_fraction: 0.2,
            damping: 0.33,
            meta_rate: 0.01,
            weight_decay: 0.0,
            schedule: ScheduleKind::Constant,
            safeguard: true,
            sketch: None,
            bf16_directions: false,
            epochs: 10,
            seed: 0,
        }
    }
}

impl Options {
    /// Refuses numbers that are out of range, even those that the rule has no use for.
    pub(crate) fn check_numbers(&self) -> Result<(), tlr::Error> {
        NewtonRule::default().damping(self.damping).validate()?;
        HypergradientRule::additive(self.meta_rate).validate()?;
        Window::fraction(self.window_fraction).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // "Until it is stopped" is a run of more steps than can be counted. Fails where their number
    // is multiplied regardless.
    #[test]
    fn runs_without_an_end_have_schedules() {
        for kind in ScheduleKind::value_variants() {
            let schedule = kind.schedule(usize::MAX, 100).unwrap();
            assert!(schedule.is_none_or(|schedule| schedule.factor(100) > 0.9), "{kind:?}");
        }
        let steps = ScheduleKind::MultiStep.schedule(1, 7).unwrap().unwrap();
        assert_eq!([2, 3, 4, 5].map(|step| steps.factor(step)), [1.0, 0.1, 0.1, 0.1 * 0.1]);
    }
}
