//! Counts the bytes that an optimizer keeps beside the weights.

use safetensors::SafeTensors;
use tlr::Checkpoint;

/// The tensors of the base optimizer's buffers, and of a peer's state, by how their names begin.
const BUFFERS: [&str; 2] = ["optimizer.", "attached.peer"];

/// The tensors that are kept to learn a rate.
const SNAPSHOTS: [&str; 3] = ["snapshot", "direction.", "sketch"];

/// The bytes of an optimizer's tensors. The rest of a checkpoint is the model and numbers of the
/// training. None for a checkpoint that cannot be written.
///
/// Snapshots count if the rate is `learned`: a constant one has them only because it runs in this
/// library's trainer.
pub(super) fn beside(checkpoint: &Checkpoint, learned: bool) -> Option<usize> {
    let bytes = checkpoint.to_bytes().ok()?;
    let tensors = SafeTensors::deserialize(&bytes).ok()?;
    let begins = |name: &str, with: &[&str]| with.iter().any(|start| name.starts_with(start));
    let owned = |name: &str| begins(name, &BUFFERS) || learned && begins(name, &SNAPSHOTS);
    let bytes = tensors.iter().filter(|(name, _)| owned(name)).map(|(_, view)| view.data().len());
    Some(bytes.sum())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        baselines::{Adam, AnyPeer, PeerOptimizer},
        train::{alone, learner, Base, Learner, Options},
    };
    use dfdx::{
        nn::{BuildModule, ZeroGrads},
        prelude::Cpu,
    };

    type Line = dfdx::nn::modules::Linear<8, 4, f32, Cpu>;

    // By hand: 36 weights of 4 bytes; two snapshots of them, two moments for Adam, and a velocity
    // for SGD, which is there without momentum too, as in dfdx. A peer has its moments from its
    // first step on, and 113 bytes for settings, lengths and the number of steps.
    #[test]
    fn every_buffer_counts_once() {
        let mut model = Line::build(&Cpu::default());
        let of = |optimizer, learned| {
            let options = Options { optimizer, ..Options::default() };
            let learner = learner(&model, &options, 10, alone()).unwrap();
            beside(&learner.checkpoint(&model).unwrap(), learned).unwrap()
        };
        assert_eq!((of(Base::Sgd, true), of(Base::Adam, true)), (3 * 36 * 4, 4 * 36 * 4));
        assert_eq!((of(Base::Sgd, false), of(Base::Adam, false)), (36 * 4, 2 * 36 * 4));
        let mut peer: PeerOptimizer<Line, AnyPeer, f32> =
            PeerOptimizer::new(&model, Adam::default().into()).unwrap();
        let mut gradients = model.alloc_grads();
        Learner::step(&mut peer, &mut model, &mut gradients, 1.0).unwrap();
        let bytes = beside(&Learner::checkpoint(&peer, &model).unwrap(), false).unwrap();
        assert_eq!(bytes, 2 * 36 * 4 + 113);
    }

    // By hand: the velocity; beside it a snapshot and a direction in bfloat16, or 16 bytes a bin.
    // Fails if tlr gives its tensors other names than those that are counted here.
    #[test]
    fn what_takes_the_place_of_snapshots_counts() {
        let model = Line::build(&Cpu::default());
        let of = |options: Options| {
            let learner = learner(&model, &options, 10, alone()).unwrap();
            beside(&learner.checkpoint(&model).unwrap(), true).unwrap()
        };
        let options = Options::default();
        let directions = of(Options { bf16_directions: true, ..options });
        assert_eq!(directions, 36 * 4 + 36 * (4 + 2));
        assert_eq!(of(Options { sketch: Some(64), ..options }), 36 * 4 + 16 * 64);
    }
}
