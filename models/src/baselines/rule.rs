//! [`PeerRule`]: how a peer moves weights, and [`Peer`]: a rule with its state.

use super::{slices, PeerError, Real, Tensors};
use serde::{de::DeserializeOwned, Deserialize, Serialize};
use std::fmt::Debug;

/// The batch's loss at trial weights, one slice for each tensor.
pub type LossAtWeights<'a, E> = dyn FnMut(&[Vec<E>]) -> Result<f64, PeerError> + 'a;

/// What a rule gets for a step, besides weights and gradients.
#[expect(missing_debug_implementations, reason = "a closure has no words")]
pub struct StepFacts<'a, E> {
    /// The step, counted from 1.
    pub step: u64,
    /// The batch's loss at the weights before the step.
    pub loss: Option<f64>,
    /// What a schedule multiplies the rule's rate by: 1 without one.
    pub factor: f64,
    /// Computes the same batch's loss at other weights.
    pub trial: Option<&'a mut LossAtWeights<'a, E>>,
}

/// How a peer moves weights: the settings, and pure arithmetic over slices.
///
/// A rule knows no model and no tensor: it is lent one slice of weights and one of gradients for
/// each tensor. [`Peer`] holds its state, and [`PeerOptimizer`](super::PeerOptimizer) walks a dfdx
/// model.
pub trait PeerRule: Clone + Debug + PartialEq {
    /// The name in files and messages.
    const NAME: &'static str;

    /// What is remembered from step to step.
    type State<E: Real>: PeerState + Clone + Debug + PartialEq + Serialize + DeserializeOwned;

    /// Whether there is a rate that a schedule can multiply. Default true.
    fn is_scheduled(&self) -> bool {
        true
    }

    /// Whether a step needs the batch's loss at trial weights. Default false.
    fn needs_trials(&self) -> bool {
        false
    }

    /// Checks that the settings are in range.
    ///
    /// # Errors
    /// [`PeerError::OutOfRange`], for the first that is not.
    fn validate(&self) -> Result<(), PeerError>;

    /// The state before the first step, from these weights.
    fn start<E: Real>(&self, weights: &[&mut [E]]) -> Self::State<E>;

    /// One step. [`Peer::step`] has checked shapes and gradients, and that the loss is finite.
    ///
    /// # Errors
    /// Any. Weights and state must be as they were then.
    fn update<E: Real>(
        &self,
        state: &mut Self::State<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError>;

    /// The rates of the last step: one, one for each tensor, or none if the rule has no such
    /// number.
    fn rates<E: Real>(&self, state: &Self::State<E>) -> Vec<f64>;

    /// The weights to test and to use, if they are not the `weights` that are trained.
    fn averaged<E: Real>(
        &self,
        state: &Self::State<E>,
        weights: &[&mut [E]],
    ) -> Option<Tensors<E>> {
        let _ = (state, weights);
        None
    }
}

/// What a rule remembers. Its sizes show whether a saved state belongs to these weights.
pub trait PeerState {
    /// The length of each tensor in each buffer. A buffer that the rule does not need is empty.
    /// Default: there is no buffer.
    fn buffers(&self) -> Vec<Vec<usize>> {
        Vec::new()
    }

    /// The number of parts that the rule keeps numbers for, such as one part for each tensor.
    /// Default 0.
    fn parts(&self) -> usize {
        0
    }
}

/// A rule with its state: an optimizer over plain slices.
///
/// # Example
/// ```
/// use tlr_models::baselines::{Peer, Sps};
///
/// // The loss ½·w², whose gradient is w. Its least is 0, as SPS takes it to be.
/// let mut peer = Peer::new(Sps::default())?;
/// let mut w = [3.0, -4.0];
/// for _ in 0..20 {
///     let (loss, g) = (0.5 * (w[0] * w[0] + w[1] * w[1]), w);
///     peer.step(&mut [&mut w[..]], &[&g[..]], Some(loss))?;
/// }
/// assert!(w[0].abs() < 1e-3);
///
/// let mut other = Peer::new(Sps::default())?;
/// other.restore(peer.saved())?;
/// assert_eq!((other.steps(), other.rates(), other.rule()), (20, peer.rates(), peer.rule()));
/// assert_eq!(other.averaged(&[&mut w[..]]), None); // this rule averages no weights
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Peer<R: PeerRule, E: Real> {
    rule: R,
    steps: u64,
    /// The length of each tensor; none before the first step.
    lens: Vec<usize>,
    state: Option<R::State<E>>,
}

/// More steps than any training makes. A `f64` holds every number up to it exactly.
const MOST_STEPS: u64 = 1 << f64::MANTISSA_DIGITS;

/// What a [`Peer`] remembers, to be stored with serde.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved<S> {
    /// The rule's name and settings.
    pub rule: String,
    /// Steps made.
    pub steps: u64,
    /// The length of each tensor.
    pub lens: Vec<usize>,
    /// What the rule remembers; none before the first step.
    pub state: Option<S>,
}

impl<R: PeerRule, E: Real> Peer<R, E> {
    /// A peer that has made no step.
    ///
    /// # Errors
    /// [`PeerError::OutOfRange`].
    ///
    /// Example: [`Peer`].
    pub fn new(rule: R) -> Result<Self, PeerError> {
        rule.validate()?;
        Ok(Self { rule, steps: 0, lens: Vec::new(), state: None })
    }

    /// One step, with the batch's gradients and loss. Some rules do without the loss.
    ///
    /// # Errors
    /// [`PeerError::Shapes`], [`PeerError::NoLoss`], [`PeerError::NoTrials`],
    /// [`PeerError::NonFiniteLoss`], [`PeerError::NonFinite`]. Weights and state are as they were.
    ///
    /// Example: [`Peer`].
    pub fn step(
        &mut self,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        loss: Option<f64>,
    ) -> Result<(), PeerError> {
        self.step_scaled(weights, gradients, loss, 1.0, None)
    }

    /// As [`step`](Self::step), for rules that need trials: `trial` computes the loss of the same
    /// batch at other weights.
    ///
    /// # Errors
    /// As [`step`](Self::step), and what `trial` fails with.
    ///
    /// Example: [`Sls`](super::Sls).
    pub fn step_with<'a>(
        &mut self,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        loss: f64,
        trial: &'a mut LossAtWeights<'a, E>,
    ) -> Result<(), PeerError> {
        self.step_scaled(weights, gradients, Some(loss), 1.0, Some(trial))
    }

    /// Makes a step at `factor` times the rule's rate.
    pub(super) fn step_scaled<'a>(
        &mut self,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        loss: Option<f64>,
        factor: f64,
        trial: Option<&'a mut LossAtWeights<'a, E>>,
    ) -> Result<(), PeerError> {
        let step = self.steps + 1;
        let lens = self.checked_lens(weights, gradients)?;
        if let Some(loss) = loss.filter(|loss| !loss.is_finite()) {
            return Err(PeerError::NonFiniteLoss { step, loss });
        }
        if !slices::all_finite(gradients) {
            return Err(PeerError::NonFinite { what: "a gradient", step });
        }
        let is_first = self.state.is_none();
        let state = self.state.get_or_insert_with(|| self.rule.start(weights));
        let facts = StepFacts { step, loss, factor, trial };
        if let Err(error) = self.rule.update(state, weights, gradients, facts) {
            if is_first {
                self.state = None;
            }
            return Err(error);
        }
        (self.steps, self.lens) = (step, lens);
        Ok(())
    }

    fn checked_lens(
        &self,
        weights: &[&mut [E]],
        gradients: &[&[E]],
    ) -> Result<Vec<usize>, PeerError> {
        let lens: Vec<_> = weights.iter().map(|tensor| tensor.len()).collect();
        let of_gradients: Vec<_> = gradients.iter().map(|tensor| tensor.len()).collect();
        same_lens("gradients", &of_gradients, &lens)?;
        if self.state.is_some() {
            same_lens("weights", &lens, &self.lens)?;
        }
        Ok(lens)
    }

    /// The rule.
    ///
    /// Example: [`Peer`].
    pub fn rule(&self) -> &R {
        &self.rule
    }

    /// Steps made.
    ///
    /// Example: [`Peer`].
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// As [`PeerRule::rates`]; none before the first step.
    ///
    /// Example: [`Peer`].
    pub fn rates(&self) -> Vec<f64> {
        self.state.as_ref().map(|state| self.rule.rates(state)).unwrap_or_default()
    }

    /// As [`PeerRule::averaged`]; `None` before the first step.
    ///
    /// Example: [`Peer`].
    pub fn averaged(&self, weights: &[&mut [E]]) -> Option<Tensors<E>> {
        self.rule.averaged(self.state.as_ref()?, weights)
    }

    /// All that is remembered.
    ///
    /// Example: [`Peer`].
    pub fn saved(&self) -> Saved<R::State<E>> {
        let (rule, steps, lens) = (self.described(), self.steps, self.lens.clone());
        Saved { rule, steps, lens, state: self.state.clone() }
    }

    /// Takes over what another peer of the same rule and settings remembers. The next steps are the
    /// same to the bit.
    ///
    /// # Errors
    /// [`PeerError::AnotherRule`]; [`PeerError::OutOfRange`] for a number of steps and
    /// [`PeerError::Shapes`] for buffers that the rule cannot have left. Nothing has changed then.
    ///
    /// Example: [`Peer`].
    pub fn restore(&mut self, saved: Saved<R::State<E>>) -> Result<(), PeerError> {
        if saved.rule != self.described() {
            return Err(PeerError::AnotherRule { saved: saved.rule, here: self.described() });
        }
        let most = if saved.state.is_some() { MOST_STEPS } else { 0 };
        let in_range = (u64::from(saved.state.is_some())..=most).contains(&saved.steps);
        let range = "from 1 to 2^53 with a state, and 0 without";
        PeerError::unless(in_range, "the saved steps", range, saved.steps as f64)?;
        if let Some(state) = &saved.state {
            self.check_sizes(state, &saved.lens)?;
        }
        (self.steps, self.lens, self.state) = (saved.steps, saved.lens, saved.state);
        Ok(())
    }

    /// Checks that the rule can have left a state of these sizes: it has the buffers that the rule
    /// begins with and no others, each with as many tensors, of the same lengths.
    fn check_sizes(&self, state: &R::State<E>, lens: &[usize]) -> Result<(), PeerError> {
        // One element for each tensor is enough: the lengths of a file may be anything.
        let mut weights = vec![[E::default()]; lens.len()];
        let weights: Vec<_> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
        let fresh = self.rule.start(&weights);
        let (found, expected) = (state.parts(), fresh.parts());
        if found != expected {
            return Err(PeerError::Shapes { what: "saved parts", found, expected });
        }
        let (buffers, fresh) = (state.buffers(), fresh.buffers());
        same_lens("saved buffers", &[buffers.len()], &[fresh.len()])?;
        buffers.iter().zip(fresh).try_for_each(|(buffer, fresh)| {
            let due = if fresh.is_empty() { &[][..] } else { lens };
            same_lens("a saved buffer", buffer, due)
        })
    }

    fn described(&self) -> String {
        format!("{}: {:?}", R::NAME, self.rule)
    }
}

fn same_lens(what: &'static str, found: &[usize], due: &[usize]) -> Result<(), PeerError> {
    if found.len() != due.len() {
        let (found, expected) = (found.len(), due.len());
        return Err(PeerError::Shapes { what, found, expected });
    }
    match found.iter().zip(due).find(|(found, due)| found != due) {
        Some((&found, &expected)) => Err(PeerError::Shapes { what, found, expected }),
        None => Ok(()),
    }
}
