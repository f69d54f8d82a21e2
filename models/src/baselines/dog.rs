//! [`Dog`]: distance over gradients, for the model or layer by layer.

use super::{slices, Figures, PeerError, PeerRule, PeerState, Real, StepFacts, Tensors};
use serde::{Deserialize, Serialize};

/// Distance over gradients: w ← w − lr·η·g with η = max ‖w − w₀‖/√(Σ‖g‖² + ε), the largest distance
/// so far over all gradients so far. L-DoG takes both tensor by tensor.
///
/// The first distance is ρ·(1 + ‖w₀‖). The weights to use are averages of those that are trained,
/// w̄ ← (1 − c)·w̄ + c·w with c = (1 + γ)/(t + γ): [`Peer::averaged`](super::Peer::averaged).
///
/// Ivgi, Hinder and Carmon, *DoG is SGD's best friend: a parameter-free dynamic step size
/// schedule*, ICML 2023; the average is that of Shamir and Zhang, ICML 2013. The package is
/// `dog-optimizer`. It averages buffers too, such as running means; here they are
/// [made anew](super::recalibrated).
///
/// # Example
/// ```
/// use tlr_models::baselines::{Dog, Peer};
///
/// let mut peer = Peer::new(Dog::layerwise())?;
/// let (mut a, mut b) = ([3.0], [5.0]);
/// peer.step(&mut [&mut a[..], &mut b[..]], &[&[3.0][..], &[10.0][..]], None)?;
/// assert_eq!(peer.rates().len(), 2);
/// # Ok::<(), tlr_models::baselines::PeerError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dog {
    /// What η is multiplied by. Above 0; default 1, which is meant to stay.
    pub lr: f64,
    /// ρ, which makes the first distance. Above 0; default 1e-6. With batch norm the authors take
    /// 1e-4.
    pub reps_rel: f64,
    /// ε. Above 0; default 1e-8.
    pub eps: f64,
    /// λ, the weight decay, as L2. At least 0; default 0.
    pub weight_decay: f64,
    /// Whether each tensor has its own η. Default false.
    pub layerwise: bool,
    /// γ, at least 0. Default 8; none: no average.
    pub averaging: Option<f64>,
}

impl Default for Dog {
    fn default() -> Self {
        Self {
            lr: 1.0,
            reps_rel: 1e-6,
            eps: 1e-8,
            weight_decay: 0.0,
            layerwise: false,
            averaging: Some(8.0),
        }
    }
}

impl Dog {
    /// L-DoG, with the same defaults.
    ///
    /// Example: [`Dog`].
    pub fn layerwise() -> Self {
        Self { layerwise: true, ..Self::default() }
    }
}

/// What [`Dog`] remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DogState<E> {
    /// The distances and sums of each tensor, or of all tensors together.
    groups: Vec<SharedRate>,
    origin: Tensors<E>,
    /// The average of the weights. Empty without averaging.
    average: Tensors<E>,
}

impl<E> PeerState for DogState<E> {
    fn buffers(&self) -> Vec<Vec<usize>> {
        slices::lens([&self.origin, &self.average])
    }

    fn parts(&self) -> usize {
        self.groups.len()
    }

    fn figures(&self) -> Figures {
        let all = |group: &SharedRate| [group.distance, group.gradients, group.rate];
        let at_least_0 = self.groups.iter().flat_map(all).collect();
        Figures { at_least_0, ..Figures::default() }
    }
}

/// What is remembered of tensors that share an η.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct SharedRate {
    /// The largest distance from w₀ so far.
    distance: f64,
    /// Σ‖g‖² + ε.
    gradients: f64,
    /// The rate lr·η of the last step.
    rate: f64,
}

impl Dog {
    /// The sums of each group.
    fn grouped<const K: usize>(&self, by_tensor: Vec<[f64; K]>) -> Vec<[f64; K]> {
        match self.layerwise {
            true => by_tensor,
            false => vec![slices::total(&by_tensor)],
        }
    }
}

impl PeerRule for Dog {
    const NAME: &'static str = "dog";
    type State<E: Real> = DogState<E>;

    fn validate(&self) -> Result<(), PeerError> {
        PeerError::unless_positive("dog: lr", self.lr)?;
        PeerError::unless_positive("dog: reps_rel", self.reps_rel)?;
        PeerError::unless_positive("dog: eps", self.eps)?;
        PeerError::unless_at_least_0("dog: weight_decay", self.weight_decay)?;
        PeerError::unless_at_least_0("dog: averaging", self.averaging.unwrap_or_default())
    }

    fn start<E: Real>(&self, weights: &[&mut [E]]) -> DogState<E> {
        let origin = slices::copies(weights);
        let squares =
            origin.iter().map(|tensor| [tensor.iter().map(|w| w.wide() * w.wide()).sum::<f64>()]);
        let groups = self.grouped(squares.collect()).into_iter().map(|[square]| SharedRate {
            distance: self.reps_rel * (1.0 + square.sqrt()),
            gradients: self.eps,
            rate: 0.0,
        });
        let groups = groups.collect();
        let average = self.averaging.map(|_| origin.clone()).unwrap_or_default();
        DogState { groups, origin, average }
    }

    fn update<E: Real>(
        &self,
        state: &mut DogState<E>,
        weights: &mut [&mut [E]],
        gradients: &[&[E]],
        facts: StepFacts<'_, E>,
    ) -> Result<(), PeerError> {
        let decayed = |w: f64, g: f64| g + self.weight_decay * w;
        let origin = [&state.origin];
        let sums = slices::sums_by_tensor(weights, gradients, origin, |w, g, [origin]| {
            let g = decayed(w, g);
            [(w - origin) * (w - origin), g * g]
        });
        let mut groups = state.groups.clone();
        for (group, [way, square]) in groups.iter_mut().zip(self.grouped(sums)) {
            group.distance = group.distance.max(way.sqrt());
            group.gradients += square;
            group.rate = self.lr * facts.factor * group.distance / group.gradients.sqrt();
            slices::finite_sums(facts.step, &[way, group.gradients, group.rate])?;
        }
        let rate = |tensor: usize| {
            let group = if self.layerwise { tensor } else { 0 };
            groups.get(group).map_or(0.0, |group| group.rate)
        };
        // The share is 1 at the first step: the average begins as the weights.
        let gamma = self.averaging.unwrap_or_default();
        let share = (1.0 + gamma) / (facts.step as f64 + gamma);
        let average = [&mut state.average];
        slices::transform(facts.step, weights, gradients, average, |tensor, w, g, [average]| {
            let w = w - rate(tensor) * decayed(w, g);
            (w, [average * (1.0 - share) + share * w])
        })?;
        state.groups = groups;
        Ok(())
    }

    fn rates<E: Real>(&self, state: &DogState<E>) -> Vec<f64> {
        state.groups.iter().map(|group| group.rate).collect()
    }

    fn averaged<E: Real>(&self, state: &DogState<E>, _weights: &[&mut [E]]) -> Option<Tensors<E>> {
        self.averaging.map(|_| state.average.clone())
    }
}
