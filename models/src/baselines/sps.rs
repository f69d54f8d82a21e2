//! [`Sps`]: the stochastic Polyak step size.

use super::{slices, PeerError, PeerRule, PeerState, Real, StepFacts};
use serde::{Deserialize, Serialize};

/// The stochastic Polyak step size: w ← w − η·g with η = f/(c·‖g‖² + ε), bounded. The least value
/// of a batch's loss f is taken to be 0.
///
/// Loizou, Vaswani, Laradji and Lacoste-Julien, *Stochastic Polyak step-size for SGD: an adaptive
/// learning rate for fast convergence*, AISTATS 2021. The package is `sps` by Laradji.
///
/// Deviations: a loss below 0 makes no step, with either bound; and a gradient that is 0 leaves the
/// rate of [`SpsBound::Smooth`] as it is, which the package sets to 0 for ever.
///
/// # Errors
/// [`PeerError::NoLoss`] in a step without a loss.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Peer, Sps, SpsBound};
///
/// let mut peer = Peer::new(Sps { bound: SpsBound::Most(10.0), ..Sps::default() })?;
/// let mut w = [3.0_f64];
/// peer.step(&mut [&mut w[..]], &[&[3.0][..]], Some(4.5))?; // of ½·w²
/// assert!(w[0].abs() < 1e-7);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sps {
    /// c, the factor on ‖g‖². Above 0; default 0.5. The paper takes 0.2 for deep networks.
    pub c: f64,
    /// ε. Above 0; default 1e-8.
    pub eps: f64,
    /// What bounds the step size. Default smooth: it starts at 1 and may double in 500 batches.
    pub bound: SpsBound,
}

/// The bound that the step size stays below.
#[derive(Clone, Debug, PartialEq)]
pub enum SpsBound {
    /// `growth`^(1/`batches`) times the step size of the step before; in the first step, `first`.
    Smooth {
        /// γ, what it may grow by in an epoch. At least 1; default 2.
        growth: f64,
        /// Batches in an epoch. Default 500.
        batches: u64,
        /// The step size before the first step. Above 0; default 1.
        first: f64,
    },
    /// A constant bound: SPS_max. Above 0.
    Most(f64),
}

impl Default for Sps {
    fn default() -> Self {
        let bound = SpsBound::Smooth { growth: 2.0, batches: 500, first: 1.0 };
        Self { c: 0.5, eps: 1e-8, bound }
    }
}

/// What [`Sps`] remembers: the last step size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpsState {
    rate: f64,
}

impl PeerState for SpsState {}

/// A gradient below this norm counts as 0.
const LEAST_NORM: f64 = 1e-8;

impl PeerRule for Sps {
    const NAME: &'static str = "sps";
    type State<E: Real> = SpsState;

    fn is_scheduled(&self) -> bool {
        false
    }

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("sps: c", self.c)?;
        PeerError::unless_positive("sps: eps", self.eps)?;
        match self.bound {
            SpsBound::Most(most) => PeerError::unless_positive("sps: bound", most),
            SpsBound::Smooth { growth, batches, first } => {
                let in_range = growth >= 1.0 && growth.is_finite();
                let range = "finite and at least 1";
                PeerError::unless(in_range, "sps: growth", range, growth)?;
                PeerError::unless(batches > 0, "sps: batches", "at least 1", batches as f64)?;
                PeerError::unless_positive("sps: first", first)
            }
        }
    }

    fn start<E: Real>(&self, _weights: &[&mut [E]]) -> SpsState {
        let rate = match self.bound {
            SpsBound::Smooth { first, .. } => first,
            SpsBound::Most(most) => most,
        };
        SpsState { rate }
    }

    fn update<E: Real>(
        &self,
        state: &mut SpsState,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let loss = facts.loss.ok_or(PeerError::NoLoss { rule: Self::NAME })?;
        let [square] = slices::sums(weights, gradients, [], |_, g, []| [g * g]);
        slices::finite_sums(facts.step, &[square])?;
        if square.sqrt() < LEAST_NORM {
            return Ok(());
        }
        let most = match self.bound {
            SpsBound::Smooth { growth, batches, .. } => {
                state.rate * growth.powf(1.0 / batches as f64)
            }
            SpsBound::Most(most) => most,
        };
        let rate = (loss / (self.c * square + self.eps)).max(0.0).min(most);
        slices::transform(facts.step, weights, gradients, [], |_, w, g, []| (w - rate * g, []))?;
        // After a step of 0 the smooth bound would stay 0.
        if rate > 0.0 || matches!(self.bound, SpsBound::Most(_)) {
            state.rate = rate;
        }
        Ok(())
    }

    fn rates<E: Real>(&self, state: &SpsState) -> Vec<f64> {
        vec![state.rate]
    }
}
