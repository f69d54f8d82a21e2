use super::{Moments, Proposal, RateRule};
use crate::{history::Outcome, Error};

/// The first-order rules the paper compares with (Table 1; Baydin et al., 2018, over windows).
///
/// - additive: α ← α + η·⟨u₋,u⟩
/// - multiplicative: α ← α·(1 + η·cos(u₋,u))
///
/// Both with a meta-learning rate η that has no good default. Deviation from the paper: the factor
/// between two rates is held within [1/`max_factor`, `max_factor`], so the additive rule cannot turn
/// a rate negative, as its other implementations do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HypergradientRule {
    /// How η enters.
    pub form: HypergradientForm,
    /// η > 0.
    pub meta_lr: f64,
    /// The largest change in one adaptation, up or down, above 1. Default 100.
    pub max_factor: f64,
}

/// How the first derivative moves the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HypergradientForm {
    /// By η times the derivative.
    Additive,
    /// By a factor, η times the cosine between the directions.
    Multiplicative,
}

impl HypergradientRule {
    /// α ← α + η·⟨u₋,u⟩.
    pub fn additive(meta_lr: f64) -> Self {
        Self { form: HypergradientForm::Additive, meta_lr, max_factor: 100.0 }
    }

    /// α ← α·(1 + η·cos(u₋,u)).
    pub fn multiplicative(meta_lr: f64) -> Self {
        Self { form: HypergradientForm::Multiplicative, meta_lr, max_factor: 100.0 }
    }
}

impl RateRule for HypergradientRule {
    fn propose(&self, rate: f64, _previous: f64, moments: &Moments) -> Proposal {
        let proposed = match self.form {
            HypergradientForm::Additive => rate + self.meta_lr * moments.un,
            HypergradientForm::Multiplicative => rate * (1.0 + self.meta_lr * moments.cosine()),
        };
        let capped = proposed.clamp(rate / self.max_factor, rate * self.max_factor);
        let outcome = if capped == proposed { Outcome::Scaled } else { Outcome::Capped };
        Proposal { rate: capped, outcome }
    }

    fn validate(&self) -> Result<(), Error> {
        if !(self.meta_lr > 0.0 && self.meta_lr.is_finite()) {
            return Err(Error::MetaLearningRate(self.meta_lr));
        }
        if !(self.max_factor > 1.0 && self.max_factor.is_finite()) {
            return Err(Error::MaxFactor(self.max_factor));
        }
        Ok(())
    }
}
