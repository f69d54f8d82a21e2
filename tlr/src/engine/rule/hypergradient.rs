//! First-order rules, to compare with.

use super::{validate_max_factor, Proposal, RateRule};
use crate::{
    engine::{history::Outcome, products::DirectionProducts},
    error::Error,
};
use serde::Serialize;

/// The first-order rules that the paper compares with in Table 1: those of Baydin et al., *Online
/// learning rate adaptation with hypergradient descent* (ICLR 2018), over windows.
///
/// - additive: α ← α + η·⟨u₋,u⟩
/// - multiplicative: α ← α·(1 + η·cos(u₋,u))
///
/// Both have a meta-learning rate η without a good default. Deviation from the paper: the factor
/// between two rates is held within [1/`max_factor`, `max_factor`], so that the additive rule
/// cannot turn a rate negative, as it does elsewhere.
///
/// Example: [`additive`](Self::additive) and [`multiplicative`](Self::multiplicative).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HypergradientRule {
    form: HypergradientForm,
    /// η, the meta-learning rate.
    meta_lr: f64,
    max_factor: f64,
}

/// How the first derivative moves the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum HypergradientForm {
    /// η times the derivative is added to the rate.
    Additive,
    /// The rate is multiplied by 1 + η times the cosine between the directions.
    Multiplicative,
}

impl HypergradientRule {
    /// α ← α + η·⟨u₋,u⟩.
    ///
    /// # Example
    /// ```
    /// use tlr::{engine::HypergradientRule, HypergradientConfig};
    ///
    /// let config = HypergradientConfig::new(HypergradientRule::additive(1e-3));
    /// ```
    pub fn additive(meta_lr: f64) -> Self {
        Self { form: HypergradientForm::Additive, meta_lr, max_factor: 100.0 }
    }

    /// α ← α·(1 + η·cos(u₋,u)).
    ///
    /// In exact steps it is for plain gradient descent only. Around momentum or Adam the
    /// [products](DirectionProducts) there make no cosine; they are held within [−1, 1].
    ///
    /// # Example
    /// ```
    /// use tlr::{engine::HypergradientRule, HypergradientConfig};
    ///
    /// let config = HypergradientConfig::new(HypergradientRule::multiplicative(0.1));
    /// ```
    pub fn multiplicative(meta_lr: f64) -> Self {
        Self { form: HypergradientForm::Multiplicative, meta_lr, max_factor: 100.0 }
    }
}

impl HypergradientRule {
    /// The largest change in one adaptation, up or down. Above 1; default 100.
    ///
    /// # Example
    /// ```
    /// use tlr::engine::{DirectionProducts, HypergradientRule, RateRule};
    ///
    /// let rule = HypergradientRule::additive(1.0).max_factor(2.0);
    /// let steep = DirectionProducts { uu: 100.0, un: 100.0, nn: 100.0 };
    /// assert_eq!(rule.propose(0.1, 0.1, &steep).rate, 0.2);
    /// ```
    pub fn max_factor(mut self, max_factor: f64) -> Self {
        self.max_factor = max_factor;
        self
    }
}

impl RateRule for HypergradientRule {
    fn propose(&self, rate: f64, _previous: f64, products: &DirectionProducts) -> Proposal {
        let proposed = match self.form {
            HypergradientForm::Additive => rate + self.meta_lr * products.un,
            HypergradientForm::Multiplicative => rate * (1.0 + self.meta_lr * products.cosine()),
        };
        // Deviation from the paper, which has no bound: see `HypergradientRule`. Not `clamp`, which
        // panics for a factor below 1: `validate` need not have been called before.
        let capped = proposed.max(rate / self.max_factor).min(rate * self.max_factor);
        let outcome = if capped == proposed { Outcome::Scaled } else { Outcome::Capped };
        Proposal { rate: capped, outcome }
    }

    fn validate(&self) -> Result<(), Error> {
        let in_range = self.meta_lr > 0.0 && self.meta_lr.is_finite();
        Error::unless(in_range, "meta_lr", "finite and above 0", self.meta_lr)?;
        validate_max_factor(self.max_factor)
    }
}
