//! [`Standing`]: an engine's state in few numbers, by which ranks notice that they differ.

use super::{start::ramp::Ramp, Engine};
use crate::{digest::Digest, settings::Settings};
use std::sync::Arc;

/// An engine's state in few numbers. Engines with the same past have the same standing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    /// Steps so far.
    pub(crate) steps: u64,
    /// Whether the next batch begins a window or the ramp, and is the first of its step. Ranks
    /// compare everything only then.
    pub(crate) begins_window: bool,
    /// Each group's name and learned rate.
    pub(crate) rates: Vec<(Arc<str>, f64)>,
    /// A digest of each group's state. Empty within a window.
    pub(crate) group_digests: Vec<u64>,
    /// A digest of the state that all groups share.
    pub(crate) shared_digest: u64,
    /// What was configured, but for the rule. Empty within a window.
    pub(crate) settings: Settings,
}

impl Standing {
    /// A digest of all of it.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        digest.add_debug(&(
            self.steps,
            self.begins_window,
            &self.group_digests,
            self.shared_digest,
        ));
        for (name, rate) in &self.rates {
            digest.add_debug(&(name, rate.to_bits()));
        }
        digest.value()
    }
}

impl<R> Engine<R> {
    /// The engine's standing. The history is left out: steps that are over do not matter here.
    pub(crate) fn standing(&self) -> Standing {
        let state = &self.state;
        let is_ramping = state.ramp.as_ref().is_some_and(Ramp::has_begun);
        let begins_window = state.position == 0 && state.gathered.is_empty() && !is_ramping;
        let mut shared_digest = Digest::default();
        shared_digest.add_debug(&(state.position, state.gathered, state.snapshot));
        let mut group_digests = Vec::new();
        if begins_window {
            shared_digest.add_debug(&(
                &state.watch,
                &state.ramp,
                state.follows,
                state.level_from,
                state.quiet,
            ));
            group_digests.extend(state.groups.iter().map(|group| {
                let mut digest = Digest::default();
                digest.add_debug(group);
                digest.value()
            }));
        }
        let rates = self.groups.iter().zip(&state.groups);
        Standing {
            steps: state.steps,
            begins_window,
            rates: rates.map(|(group, state)| (Arc::clone(&group.name), state.rate)).collect(),
            group_digests,
            shared_digest: shared_digest.value(),
            settings: if begins_window { self.settings_but_rule() } else { Settings::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::{Event, Group, HostFacts, NewtonConfig, Request, Slope, Window};

    fn engine() -> Engine<crate::engine::NewtonRule> {
        let group = |name: &str| Group { name: name.into(), fixed_rate: false, rate: 0.1 };
        let config = NewtonConfig::default().window(Window::steps(3).unwrap()).ramp(false);
        let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
        Engine::new(config, vec![group("a"), group("b")], facts).unwrap()
    }

    /// Fails if a figure that steps change is left out, or if one that no step changes is included.
    #[test]
    fn engines_that_were_told_the_same_stand_at_the_same_place() {
        let (one, mut other) = (engine(), engine());
        assert_eq!(one.standing(), other.standing());
        assert!(one.standing().begins_window && one.standing().group_digests.len() == 2);
        other.state.groups[1].rate *= 1.0 + f64::EPSILON;
        assert_ne!(one.standing().digest(), other.standing().digest());
        assert_eq!(one.standing().group_digests[0], other.standing().group_digests[0]);
        assert_ne!(one.standing().group_digests[1], other.standing().group_digests[1]);
        let mut counted = engine();
        counted.state.position = 1;
        assert_ne!(one.standing().shared_digest, counted.standing().shared_digest);
        assert!(!counted.standing().begins_window && counted.standing().group_digests.is_empty());
    }

    /// Weights are read where a window begins. Fails if each batch of its first step, or each step
    /// of a ramp, counts as a beginning.
    #[test]
    fn a_window_and_a_ramp_begin_once() {
        let group = || Group { name: "a".into(), fixed_rate: false, rate: 0.1 };
        let config = NewtonConfig::default().window(Window::steps(3).unwrap());
        let facts = HostFacts { momentum: 0.0, epsilon: f64::EPSILON };
        let slope = Slope { along: 0.0, moved: 0.0, gradient: 1.0, norm: 1.0, weights: 1 };
        for ramp in [true, false] {
            let mut engine = Engine::new(config.ramp(ramp), vec![group()], facts).unwrap();
            for batch in 0..4 {
                assert_eq!(engine.standing().begins_window, batch == 0, "{batch} {ramp}");
                let only_gathers = !ramp && batch < 2;
                let mut event = Event::Batch { loss: Some(1.0), only_gathers };
                loop {
                    event = match engine.tell(event).unwrap() {
                        Request::TakeSnapshot(_) => Event::SnapshotTaken,
                        Request::MeasureSlopes(_) => Event::Slopes(vec![slope]),
                        Request::Update => Event::Updated,
                        Request::Done(_) => break,
                        other => unreachable!("{other:?}"),
                    };
                }
            }
        }
    }

    #[test]
    fn a_step_moves_it() {
        let mut engine = engine();
        let before = engine.standing();
        for event in [
            Event::Batch { loss: Some(1.0), only_gathers: false },
            Event::SnapshotTaken,
            Event::SnapshotTaken,
            Event::Updated,
        ] {
            engine.tell(event).unwrap();
        }
        assert_ne!(engine.standing().digest(), before.digest());
        assert_eq!(engine.standing().steps, 1);
    }
}
