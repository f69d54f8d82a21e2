//! [`Hypergradient`]: descent on the rate, at every step.

use super::{slices, Figures, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};
use tlr::engine::{DirectionProducts, HypergradientRule, RateRule};

/// Hypergradient descent around SGD: before each step the rate moves by the product of this
/// gradient with the last, α ← α + η·⟨g,g₋⟩ or α ← α·(1 + η·cos(g,g₋)), and then w ← w − α·g.
///
/// Baydin, Cornish, Martínez Rubio, Schmidt and Wood, *Online learning rate adaptation with
/// hypergradient descent*, ICLR 2018; the authors' `hypergradient-descent`, `SGDHD`. The rule
/// itself is [`HypergradientRule`], which tlr applies to windows. Its factor between two rates is
/// held within 100, so that no rate turns negative, as it can in the package.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Hypergradient, Peer};
///
/// let mut peer = Peer::new(Hypergradient::additive(0.01, 1e-3))?;
/// let mut w = [3.0];
/// for _ in 0..2 {
///     let g = w;
///     peer.step(&mut [&mut w[..]], &[&g[..]], None)?;
/// }
/// assert_eq!(peer.rates(), [0.01 + 1e-3 * (3.0 * 0.99) * 3.0]);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hypergradient {
    /// α before the first step. Above 0; the paper takes 1e-3.
    pub rate: f64,
    /// How the rate moves.
    pub rule: HypergradientRule,
}

impl Hypergradient {
    /// Begins at `rate`, and adds `meta_rate` times ⟨g,g₋⟩ to it at each step. The package's
    /// default for `meta_rate`, which it calls `hypergrad_lr`, is 1e-6.
    ///
    /// Example: [`Hypergradient`].
    pub fn additive(rate: f64, meta_rate: f64) -> Self {
        Self { rate, rule: HypergradientRule::additive(meta_rate) }
    }

    /// Begins at `rate`, and multiplies it by 1 + `meta_rate`·cos(g,g₋) at each step.
    ///
    /// # Example
    /// ```
    /// use tlr_models::baselines::{Hypergradient, Peer};
    ///
    /// let mut peer = Peer::new(Hypergradient::multiplicative(0.01, 0.02))?;
    /// let mut w = [3.0];
    /// for _ in 0..2 {
    ///     let g = w;
    ///     peer.step(&mut [&mut w[..]], &[&g[..]], None)?;
    /// }
    /// assert!((peer.rates()[0] - 0.01 * 1.02).abs() < 1e-12); // both gradients point the same way
    /// # Ok::<(), tlr_models::baselines::PeerError>(())
    /// ```
    pub fn multiplicative(rate: f64, meta_rate: f64) -> Self {
        Self { rate, rule: HypergradientRule::multiplicative(meta_rate) }
    }
}

/// What [`Hypergradient`] remembers: the rate, and the last gradient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HypergradientState<E> {
    rate: f64,
    before: Tensors<E>,
}

impl<E> PeerState for HypergradientState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.before])
    }

    fn figures(&self) -> Figures {
        Figures { at_least_0: vec![self.rate], ..Figures::default() }
    }
}

impl PeerRule for Hypergradient {
    const NAME: &'static str = "hypergradient";
    type State<E: Real> = HypergradientState<E>;

    fn is_scheduled(&self) -> bool {
        false
    }

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("hypergradient: rate", self.rate)?;
        match self.rule.validate() {
            Err(tlr::Error::OutOfRange { what, range, value, .. }) => {
                Err(PeerError::OutOfRange { what, range, value })
            }
            Err(other) => Err(other.into()),
            Ok(()) => Ok(()),
        }
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> HypergradientState<E> {
        HypergradientState { rate: self.rate, before: slices::zeros(weights) }
    }

    fn update<E: Real>(
        &self,
        state: &mut HypergradientState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let product = |_, g, [before]: [f64; 1]| [before * before, before * g, g * g];
        let [uu, un, nn] = slices::sums(weights, gradients, [&state.before], product);
        slices::finite_sums(facts.step, &[uu, un, nn])?;
        let products = DirectionProducts { uu, un, nn };
        let rate = self.rule.propose(state.rate, state.rate, &products).rate;
        let before = [&mut state.before];
        slices::transform(facts.step, weights, gradients, before, |_, w, g, _| {
            (w - rate * g, [g])
        })?;
        state.rate = rate;
        Ok(())
    }

    fn rates<E: Real>(&self, state: &HypergradientState<E>) -> Vec<f64> {
        vec![state.rate]
    }
}
