use super::{Moments, Proposal, RateRule};
use crate::{
    history::{KeptBecause, Outcome},
    Error,
};

/// The damped Newton step on the rate (Eq. 8).
///
/// With d = ⟨u₋,u₋⟩ − ⟨u₋,u⟩, and only where d > 0:
///
/// - paper: α ← α · (1 + γ·⟨u₋,u⟩/d)
/// - aligned: α ← (1 − γ)·α + γ·α₋·⟨u₋,u₋⟩/d
///
/// and never to more than `max_factor` times the current rate. Where d ≤ 0 the loss is not convex
/// along the direction and the rate stays. Either form is above (1 − γ)·α, so a rate cannot become
/// zero or negative.
///
/// **Why aligned.** u₋ and u are one displacement apart, made at the rate α₋ then in force: the
/// Newton step belongs to α₋. The paper applies it to the current rate α, one window late, and
/// oscillates. With γ = 1 and windows of one step the aligned rule is the Barzilai–Borwein step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewtonRule {
    /// Which rate the step starts from. Default [`NewtonForm::Aligned`].
    pub form: NewtonForm,
    /// γ in (0, 1]: the fraction of the way to the Newton point. Default 0.33.
    pub damping: f64,
    /// The largest growth in one adaptation, above 1. Default 100, as in the paper.
    pub max_factor: f64,
}

/// Which rate the Newton step starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewtonForm {
    /// The current one, as the paper's Eq. 8 over windows.
    Paper,
    /// The one that made the displacement between the two directions.
    Aligned,
}

impl Default for NewtonRule {
    fn default() -> Self {
        Self { form: NewtonForm::Aligned, damping: 0.33, max_factor: 100.0 }
    }
}

impl RateRule for NewtonRule {
    fn propose(&self, rate: f64, previous: f64, moments: &Moments) -> Proposal {
        let curvature = moments.curvature();
        if curvature.is_nan() {
            return Proposal::kept(rate, KeptBecause::NonFinite);
        }
        if curvature <= 0.0 {
            return Proposal::kept(rate, KeptBecause::NonPositiveCurvature);
        }
        let proposed = match self.form {
            NewtonForm::Paper => rate * (1.0 + self.damping * (moments.un / curvature)),
            // Deviation from the paper: see "Why aligned".
            NewtonForm::Aligned => {
                (1.0 - self.damping) * rate + self.damping * (previous * (moments.uu / curvature))
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
        if !(self.damping > 0.0 && self.damping <= 1.0) {
            return Err(Error::Damping(self.damping));
        }
        if !(self.max_factor > 1.0 && self.max_factor.is_finite()) {
            return Err(Error::MaxFactor(self.max_factor));
        }
        Ok(())
    }
}
