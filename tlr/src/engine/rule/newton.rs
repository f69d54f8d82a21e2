//! The damped Newton step on the rate.

use super::{validate_max_factor, Proposal, RateRule};
use crate::{
    engine::{
        history::{KeptBecause, Outcome},
        products::DirectionProducts,
    },
    error::Error,
};
use serde::Serialize;

/// The damped Newton step on the rate: Eq. 8 of Retsinas, Sfikas, Filntisis and Maragos,
/// *Newton-based Trainable Learning Rate*, ICASSP 2023
/// ([their code](https://github.com/georgeretsi/NTLR)).
///
/// With d = ⟨u₋,u₋⟩ − ⟨u₋,u⟩, and only if d > 0:
///
/// - paper: α ← α · (1 + γ·⟨u₋,u⟩/d)
/// - aligned: α ← (1 − γ)·α + γ·α₋·⟨u₋,u₋⟩/d
///
/// and never to more than `max_factor` times the current rate. If d ≤ 0 the loss is not convex
/// along the direction and the rate stays. Either form is above (1 − γ)·α, so a rate cannot become
/// zero or negative.
///
/// **Why aligned.** u₋ and u are one displacement apart, made at the rate α₋ then in force: the
/// Newton step belongs to α₋. The paper applies it to the current rate α, one window late, and
/// oscillates. With γ = 1 and windows of one step the aligned rule is the step of Barzilai and
/// Borwein (*Two-point step size gradient methods*, IMA Journal of Numerical Analysis, 1988).
///
/// # Example
/// ```
/// use tlr::engine::{Config, NewtonForm, NewtonRule};
///
/// let config = Config::new(NewtonRule::default().form(NewtonForm::Paper).damping(0.2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NewtonRule {
    form: NewtonForm,
    damping: f64,
    max_factor: f64,
}

/// Which rate the Newton step starts from.
///
/// Example: [`NewtonRule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum NewtonForm {
    /// The current one, as the paper's Eq. 8 over windows.
    Paper,
    /// The one that made the displacement between the two directions.
    Aligned,
}

impl Default for NewtonRule {
    fn default() -> Self {
        Self { form: NewtonForm::Aligned, damping: 0.33, max_factor: 4.0 }
    }
}

impl NewtonRule {
    /// Which rate the step starts from. Default [`NewtonForm::Aligned`].
    ///
    /// Example: [`NewtonRule`].
    pub fn form(mut self, form: NewtonForm) -> Self {
        self.form = form;
        self
    }

    /// γ: the fraction of the way to the Newton point. In (0, 1]; default 0.33.
    ///
    /// Example: [`NewtonRule`].
    pub fn damping(mut self, damping: f64) -> Self {
        self.damping = damping;
        self
    }

    /// The largest growth in one adaptation. Above 1; default 4.
    ///
    /// Deviation from the paper, which has 100. If two directions agree by chance the Newton point
    /// is far away, and at a hundred times the rate one window can ruin the weights
    /// (docs/start.md has the figures). While a rate
    /// [climbs](crate::engine::Config::climb), or is
    /// [looked for](crate::engine::Config::ramp), it may grow by more. Exact steps are bound too.
    ///
    /// Example: [`NewtonConfig`](crate::NewtonConfig).
    pub fn max_factor(mut self, max_factor: f64) -> Self {
        self.max_factor = max_factor;
        self
    }
}

impl RateRule for NewtonRule {
    fn propose(&self, rate: f64, previous: f64, products: &DirectionProducts) -> Proposal {
        let curvature = products.curvature();
        if curvature.is_nan() {
            return Proposal::kept(rate, KeptBecause::NonFinite);
        }
        if curvature <= 0.0 {
            return Proposal::kept(rate, KeptBecause::NonPositiveCurvature);
        }
        let proposed = match self.form {
            NewtonForm::Paper => rate * (1.0 + self.damping * (products.un / curvature)),
            // Deviation from the paper, which has no aligned rule: see "Why aligned".
            NewtonForm::Aligned => {
                (1.0 - self.damping) * rate + self.damping * (previous * (products.uu / curvature))
            }
        };
        let cap = self.max_factor * rate;
        if proposed > cap {
            Proposal { rate: cap, outcome: Outcome::Capped }
        } else {
            Proposal { rate: proposed, outcome: Outcome::Scaled }
        }
    }

    fn validate(&self) -> Result<(), Error> {
        let Self { damping, max_factor, .. } = *self;
        let in_range = damping > 0.0 && damping <= 1.0;
        let advice = "try the default, 0.33";
        Error::unless_advised(in_range, "damping", "in (0, 1]", damping, advice)?;
        validate_max_factor(max_factor)
    }
}
