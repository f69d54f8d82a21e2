//! [`Contender`]: an optimizer with its settings, and how many of these have to be chosen.

use super::{Budget, TaskDevice};
use crate::{
    baselines::{steep, valley, AnyPeer, RangePoint, Sgd, Sls, Sps, SpsBound},
    train::{alone, learner, name, Base, Learner, Mode, Options, Rule, ScheduleKind, TrainError},
};
use tlr::TrainableLr;

/// The category in which a contender is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// This library, with no number given to it.
    Learned,
    /// This library from other starting rates, which should make no difference.
    Starts,
    /// This library with settings that are not its defaults.
    Tried,
    /// Optimizers that find their own rate.
    RateFree,
    /// Optimizers at the rate that they are published with.
    Published,
    /// A rate from a range test, which is what careful users do by hand.
    RangeTest,
    /// NAdamW with a cosine: a point of the search by hand.
    HandNAdamW,
    /// SGD with or without momentum, constant or with a cosine: a point of the search by hand.
    HandSgd,
}

impl Category {
    /// Whether it is one point of a search by hand. Only the best point counts.
    ///
    /// Example: [`contenders`](super::contenders).
    pub fn is_by_hand(self) -> bool {
        matches!(self, Self::HandNAdamW | Self::HandSgd)
    }
}

/// An optimizer that is compared, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    /// The name in files and tables.
    pub name: String,
    /// The category in which it is compared.
    pub category: Category,
    /// How many settings have to be chosen.
    pub settings: usize,
    /// Whether it gets the number of steps in advance.
    pub horizon: bool,
    pub(super) method: Method,
}

/// How it trains a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Method {
    /// By this library's trainer, with its rule or another.
    Trainer(Options),
    /// By a peer, whose rate a schedule multiplies.
    Peer { rule: AnyPeer, schedule: ScheduleKind },
    /// By SGD with momentum and a cosine, from the rate that a range test suggests.
    RangeTest { pick: Pick, base: Sgd },
}

/// How a rate is read off a range test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    Valley,
    Steep,
}

/// The rate that is taken if a range test suggests none.
const NO_SUGGESTION: f64 = 1e-3;

/// This library's defaults around an optimizer, with the number of steps. The rate that it starts
/// from is as good as any.
pub(super) fn ours(optimizer: Base) -> Options {
    Options { optimizer, schedule: ScheduleKind::Horizon, ..Options::default() }
}

impl Contender {
    /// This library's trainer with these options, but for the number of epochs and the size of
    /// batches, which are the task's. The name says which options differ from those of [`ours`].
    pub(super) fn of(options: Options) -> Self {
        let Options { optimizer, mode, rule, rate, schedule, .. } = options;
        let (newton, usual) = (matches!(rule, Rule::Aligned | Rule::Paper), ours(optimizer));
        let mut changes = Vec::new();
        let mut change = |changed: bool, word: String| changes.extend(changed.then_some(word));
        change(newton && options.window_fraction != usual.window_fraction, {
            format!("p-{:.2}", options.window_fraction)
        });
        change(newton && options.damping != usual.damping, format!("gamma-{}", options.damping));
        change(rule == Rule::Aligned && !options.ramp, "no-ramp".to_owned());
        change(rule != Rule::Constant && !options.safeguard, "no-safeguard".to_owned());
        let tried = newton && (rule == Rule::Paper || !changes.is_empty());
        let (category, settings) = match rule {
            Rule::Constant => (Category::Published, 1),
            Rule::Additive | Rule::Multiplicative => (Category::Published, 2),
            _ if tried => (Category::Tried, changes.len().max(1)),
            _ if rate == usual.rate => (Category::Learned, 0),
            _ => (Category::Starts, 0),
        };
        let mut words = vec![match rule {
            Rule::Aligned => format!("tlr-{}", name(&optimizer)),
            _ => format!("{}-{}", name(&rule), name(&optimizer)),
        }];
        if category == Category::Published && settings == 2 {
            words.push(format!("eta-{:e}", options.meta_rate));
        }
        if mode == Mode::PerLayer {
            words.push("per-layer".to_owned());
        }
        if rate != usual.rate || rule != Rule::Aligned {
            words.push(format!("from-{rate:e}"));
        }
        words.extend(changes);
        if schedule != ScheduleKind::usual(rule) {
            words.push(match schedule {
                ScheduleKind::Constant => "no-horizon".to_owned(),
                other => name(&other),
            });
        }
        let horizon = schedule.depends_on_epochs();
        let method = Method::Trainer(options);
        Self { name: words.join("-"), category, settings, horizon, method }
    }

    /// Whether it can train on a GPU: this library's trainer can, and peers cannot.
    ///
    /// Example: [`Place`](super::Place).
    pub fn on_gpu(&self) -> bool {
        matches!(self.method, Method::Trainer(_))
    }

    /// Whether this library's trainer moves the rate.
    pub(super) fn learns_its_rate(&self) -> bool {
        matches!(&self.method, Method::Trainer(options) if options.rule != Rule::Constant)
    }

    /// The learner that trains `model` within this budget. `range_test` makes the range test of an
    /// optimizer, for a contender that needs one.
    ///
    /// # Errors
    /// Settings out of range, and those of `range_test`.
    pub(super) fn learner<M: TrainableLr<f32, D> + 'static, D: TaskDevice>(
        &self,
        model: &M,
        budget: Budget,
        range_test: impl FnOnce(&Sgd) -> Result<Vec<RangePoint>, TrainError>,
    ) -> Result<Box<dyn Learner<M, D>>, TrainError> {
        let (rule, schedule) = match &self.method {
            Method::Trainer(options) => {
                let options = Options { epochs: budget.epochs, ..*options };
                return Ok(learner(model, &options, budget.batches, alone())?);
            }
            Method::Peer { rule, schedule } => (rule.clone(), *schedule),
            Method::RangeTest { pick, base } => {
                let curve = range_test(base)?;
                let lr = match pick {
                    Pick::Valley => valley(&curve),
                    Pick::Steep => steep(&curve),
                };
                let rule = Sgd { lr: lr.unwrap_or(NO_SUGGESTION), ..base.clone() };
                (rule.into(), ScheduleKind::Cosine)
            }
        };
        let schedule = schedule.schedule(budget.epochs, budget.batches)?;
        D::peer(model, told_of(rule, budget), schedule)
    }
}

/// SLS and SPS bound the growth per epoch, so they need the epoch's length.
fn told_of(rule: AnyPeer, budget: Budget) -> AnyPeer {
    let batches = budget.batches as u64;
    match rule {
        AnyPeer::Sls(rule) => Sls { batches, ..rule }.into(),
        AnyPeer::Sps(Sps { bound: SpsBound::Smooth { growth, first, .. }, c, eps }) => {
            Sps { bound: SpsBound::Smooth { growth, first, batches }, c, eps }.into()
        }
        other => other,
    }
}
