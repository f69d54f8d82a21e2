//! [`Contender`]: an optimizer with its settings, and how many of these have to be chosen.

use super::Budget;
use crate::{
    baselines::{
        steep, valley, AnyPeer, PeerError, PeerOptimizer, RangePoint, Sgd, Sls, Sps, SpsBound,
    },
    train::{alone, learner, Base, Learner, Mode, Options, Rule, Shape},
};
use dfdx::prelude::Cpu;
use tlr::{Error, TrainableLr};

/// The group in which a contender is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// This library, with no number given to it.
    Learned,
    /// This library from other starting rates, which should make no difference.
    Starts,
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

impl Group {
    /// Whether it is a point of the search by hand, of which the best counts.
    pub fn is_by_hand(self) -> bool {
        matches!(self, Self::HandNAdamW | Self::HandSgd)
    }
}

/// An optimizer that is compared, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    /// The name in files and tables.
    pub name: String,
    /// The group in which it is compared.
    pub group: Group,
    /// How many settings have to be chosen.
    pub settings: usize,
    /// Whether it gets the number of steps in advance.
    pub horizon: bool,
    pub(super) method: Method,
}

/// How it learns.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Method {
    /// By this library's defaults.
    Learned { base: Base, mode: Mode, start: f64 },
    /// By a peer, whose rate a schedule multiplies.
    Peer { rule: AnyPeer, schedule: Shape },
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

impl Contender {
    /// The optimizer for the range test, if the contender needs one.
    pub(super) fn search(&self) -> Option<&Sgd> {
        match &self.method {
            Method::RangeTest { base, .. } => Some(base),
            _ => None,
        }
    }

    /// The contender at the rate that its range test suggests.
    pub(super) fn at(&self, curve: &[RangePoint]) -> Self {
        let method = match &self.method {
            Method::RangeTest { pick, base } => {
                let lr = match pick {
                    Pick::Valley => valley(curve),
                    Pick::Steep => steep(curve),
                };
                let rule = Sgd { lr: lr.unwrap_or(NO_SUGGESTION), ..base.clone() };
                Method::Peer { rule: rule.into(), schedule: Shape::Cosine }
            }
            other => other.clone(),
        };
        Self { method, ..self.clone() }
    }

    /// The learner that trains `model` within this budget.
    ///
    /// # Errors
    /// Settings out of range.
    pub(super) fn learner<M: TrainableLr<f32, Cpu> + 'static>(
        &self,
        model: &M,
        budget: Budget,
    ) -> Result<Box<dyn Learner<M>>, Error> {
        match &self.method {
            Method::Learned { base, mode, start } => {
                let schedule = if self.horizon { Shape::Horizon } else { Shape::Constant };
                let options = Options {
                    optimizer: *base,
                    mode: *mode,
                    rule: Rule::Aligned,
                    rate: *start,
                    schedule,
                    epochs: budget.epochs,
                    ..Options::default()
                };
                learner(model, &options, budget.batches, alone())
            }
            Method::Peer { rule, schedule } => {
                let rule = told_of(rule.clone(), budget);
                let schedule = schedule.schedule(budget.epochs, budget.batches)?;
                Ok(Box::new(PeerOptimizer::new(model, rule)?.schedule(schedule)?))
            }
            // The contender's rate is not known before the range test.
            Method::RangeTest { .. } => {
                Err(PeerError::NoSchedule { rule: "a range test that was not made" }.into())
            }
        }
    }
}

/// Line search and Polyak steps let the step grow by a factor an epoch, so they get its length.
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
