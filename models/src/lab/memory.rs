//! What an optimizer keeps beside the weights, counted.

use safetensors::SafeTensors;
use tlr::Checkpoint;

/// The tensors that an optimizer has for itself: this library's snapshots, the base optimizer's
/// buffers, and a peer's state. The rest of a checkpoint is the model, and figures.
const BESIDE: [&str; 5] = ["snapshot", "direction.", "sketch", "optimizer.", "attached.peer"];

/// The bytes of these tensors. None for a checkpoint that cannot be written.
pub(super) fn beside(checkpoint: &Checkpoint) -> Option<usize> {
    let bytes = checkpoint.to_bytes().ok()?;
    let tensors = SafeTensors::deserialize(&bytes).ok()?;
    let owned = |name: &str| BESIDE.iter().any(|start| name.starts_with(start));
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
    use dfdx::{nn::BuildModule, prelude::Cpu};

    type Line = dfdx::nn::modules::Linear<8, 4, f32, Cpu>;

    // By hand: 36 weights of 4 bytes; two snapshots of them, and two moments for Adam. A peer's
    // state has a few bytes more, for lengths and the number of steps.
    #[test]
    fn every_buffer_counts_once() {
        let model = Line::build(&Cpu::default());
        let of = |optimizer| {
            let options = Options { optimizer, ..Options::default() };
            let learner = learner(&model, &options, 10, alone()).unwrap();
            beside(&learner.checkpoint(&model).unwrap()).unwrap()
        };
        assert_eq!((of(Base::Sgd), of(Base::Adam)), (2 * 36 * 4, 4 * 36 * 4));
        let peer: PeerOptimizer<Line, AnyPeer, f32> =
            PeerOptimizer::new(&model, Adam::default().into()).unwrap();
        let bytes = beside(&Learner::checkpoint(&peer, &model).unwrap()).unwrap();
        assert!((2 * 36 * 4..2 * 36 * 4 + 40).contains(&bytes), "{bytes}");
    }
}
