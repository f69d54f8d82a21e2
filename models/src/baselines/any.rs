//! [`AnyPeer`]: whichever peer it is, as one type.

use super::{
    Adam, AdamState, Cocob, CocobState, DAdaptAdam, DAdaptAdamState, DAdaptSgd, DAdaptSgdState,
    Dog, DogState, Hypergradient, HypergradientState, Mechanic, MechanicState, Momo, MomoAdam,
    MomoAdamState, MomoState, NAdamW, NAdamWState, PeerError, PeerRule, PeerState, Prodigy,
    ProdigyState, Real, RmsProp, RmsPropState, ScheduleFreeAdamW, ScheduleFreeAdamWState,
    ScheduleFreeSgd, ScheduleFreeSgdState, Sgd, SgdState, Sls, SlsState, Sps, SpsState, StepFacts,
    Tensors,
};
use serde::{Deserialize, Serialize};

macro_rules! peers {
    ($($Peer:ident: $Rule:ty, $State:ty;)+) => {
        /// Whichever peer it is, as one type: a model is compiled once for all of them, and a list
        /// can hold several.
        ///
        /// # Example
        /// ```
        /// use tlr_models::baselines::{AnyPeer, Momo, Peer, Prodigy};
        ///
        /// for rule in [AnyPeer::from(Momo::default()), Prodigy::default().into()] {
        ///     let mut peer = Peer::new(rule)?;
        ///     let mut w = [3.0];
        ///     peer.step(&mut [&mut w[..]], &[&[3.0][..]], Some(4.5))?; // of ½·w²
        ///     assert!(w[0] < 3.0);
        /// }
        /// # Ok::<(), tlr_models::baselines::PeerError>(())
        /// ```
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // Each variant is named after its rule.
        pub enum AnyPeer {
            $($Peer($Rule)),+
        }

        /// What an [`AnyPeer`] remembers.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum AnyPeerState<E> {
            $($Peer($State)),+
        }

        impl<E> PeerState for AnyPeerState<E> {
            fn buffers(&self) -> Vec<Vec<usize>> {
                match self {
                    $(Self::$Peer(state) => state.buffers()),+
                }
            }

            fn parts(&self) -> usize {
                match self {
                    $(Self::$Peer(state) => state.parts()),+
                }
            }
        }

        $(
            impl From<$Rule> for AnyPeer {
                fn from(rule: $Rule) -> Self {
                    Self::$Peer(rule)
                }
            }
        )+

        impl PeerRule for AnyPeer {
            const NAME: &'static str = "any peer";
            type State<E: Real> = AnyPeerState<E>;

            fn needs_trials(&self) -> bool {
                match self {
                    $(Self::$Peer(rule) => rule.needs_trials()),+
                }
            }

            fn is_scheduled(&self) -> bool {
                match self {
                    $(Self::$Peer(rule) => rule.is_scheduled()),+
                }
            }

            fn validate(&self) -> Result<(), PeerError> {
                match self {
                    $(Self::$Peer(rule) => rule.validate()),+
                }
            }

            fn start<E: Real>(&self, weights: &[&mut [E]]) -> AnyPeerState<E> {
                match self {
                    $(Self::$Peer(rule) => AnyPeerState::$Peer(rule.start(weights))),+
                }
            }

            fn update<E: Real>(
                &self,
                state: &mut AnyPeerState<E>,
                weights: &mut [&mut [E]],
                gradients: &[&[E]],
                facts: StepFacts<'_, E>,
            ) -> Result<(), PeerError> {
                match (self, state) {
                    $((Self::$Peer(rule), AnyPeerState::$Peer(state)) => {
                        rule.update(state, weights, gradients, facts)
                    })+
                    _ => Err(PeerError::AnotherRule {
                        saved: "another peer".to_owned(),
                        here: format!("{self:?}"),
                    }),
                }
            }

            fn rates<E: Real>(&self, state: &AnyPeerState<E>) -> Vec<f64> {
                match (self, state) {
                    $((Self::$Peer(rule), AnyPeerState::$Peer(state)) => rule.rates::<E>(state),)+
                    _ => Vec::new(),
                }
            }

            fn averaged<E: Real>(
                &self,
                state: &AnyPeerState<E>,
                weights: &[&mut [E]],
            ) -> Option<Tensors<E>> {
                match (self, state) {
                    $((Self::$Peer(rule), AnyPeerState::$Peer(state)) => {
                        rule.averaged(state, weights)
                    })+
                    _ => None,
                }
            }
        }
    };
}

peers! {
    Sgd: Sgd, SgdState<E>;
    Adam: Adam, AdamState<E>;
    RmsProp: RmsProp, RmsPropState<E>;
    NAdamW: NAdamW, NAdamWState<E>;
    Hypergradient: Hypergradient, HypergradientState<E>;
    Sls: Sls, SlsState;
    Sps: Sps, SpsState;
    DAdaptSgd: DAdaptSgd, DAdaptSgdState<E>;
    DAdaptAdam: DAdaptAdam, DAdaptAdamState<E>;
    Prodigy: Prodigy, ProdigyState<E>;
    Dog: Dog, DogState<E>;
    ScheduleFreeSgd: ScheduleFreeSgd, ScheduleFreeSgdState<E>;
    ScheduleFreeAdamW: ScheduleFreeAdamW, ScheduleFreeAdamWState<E>;
    Cocob: Cocob, CocobState<E>;
    MechanicSgd: Mechanic<Sgd>, MechanicState<E, SgdState<E>>;
    MechanicAdam: Mechanic<Adam>, MechanicState<E, AdamState<E>>;
    Momo: Momo, MomoState<E>;
    MomoAdam: MomoAdam, MomoAdamState<E>;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::baselines::Peer;

    // Fails if a variant calls another rule, or passes on another rule's answer.
    #[test]
    fn it_is_the_rule_that_it_holds() {
        let (mut own, mut any) = (
            Peer::new(Prodigy::default()).unwrap(),
            Peer::new(AnyPeer::from(Prodigy::default())).unwrap(),
        );
        let (mut w, mut v) = ([3.0_f64, -1.0], [3.0, -1.0]);
        for _ in 0..5 {
            let (g, h) = (w, v);
            own.step(&mut [&mut w[..]], &[&g[..]], None).unwrap();
            any.step(&mut [&mut v[..]], &[&h[..]], None).unwrap();
        }
        assert_eq!(w, v);
        assert_eq!(own.rates(), any.rates());
        assert!(AnyPeer::from(Sls::default()).needs_trials());
        assert!(!AnyPeer::from(Sgd::default()).needs_trials());
        assert!(AnyPeer::from(Sgd::default()).is_scheduled());
        assert_eq!(AnyPeer::from(Cocob::default()).is_scheduled(), Cocob::default().is_scheduled());
        let bad = AnyPeer::from(Sgd { lr: -1.0, ..Sgd::default() });
        assert!(matches!(bad.validate(), Err(PeerError::OutOfRange { .. })));
    }

    // Fails if a saved state of one peer passes for that of another.
    #[test]
    fn states_are_not_mixed_up() {
        let mut dog = Peer::new(AnyPeer::from(Dog::default())).unwrap();
        let mut w = [3.0_f64];
        dog.step(&mut [&mut w[..]], &[&[1.0][..]], None).unwrap();
        assert!(dog.averaged(&[&mut w[..]]).is_some());
        let mut sgd = Peer::new(AnyPeer::from(Sgd::default())).unwrap();
        assert!(matches!(sgd.restore(dog.saved()), Err(PeerError::AnotherRule { .. })));
        let rule = AnyPeer::from(Sgd::default());
        let mut state = AnyPeer::from(Dog::default()).start(&[&mut w[..]]);
        let facts = StepFacts { step: 1, loss: None, factor: 1.0, trial: None };
        let error = rule.update(&mut state, &mut [&mut w[..]], &[&[1.0][..]], facts);
        assert!(matches!(error, Err(PeerError::AnotherRule { .. })));
    }
}
