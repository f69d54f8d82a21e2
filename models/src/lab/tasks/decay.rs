//! Weight decay as a part of a task: every contender trains on the same penalty.

use super::gradients::each_gradient;
use crate::train::{TrainError, TrainLoss};
use dfdx::prelude::{AsArray, Cpu, PutTape, SplitTape, Tape, TryAdd};
use tlr::{
    __private::{Model, Names},
    TensorCollection,
};

/// The weight decay of the paper on hypergradients, as in PyTorch's SGD.
const DECAY: f64 = 1e-4;

/// The loss plus ½λ‖w‖², with λ = 1e-4, over all weights and biases. Its gradient is λw.
pub(super) fn decayed<M>(loss: TrainLoss, model: &M) -> Result<TrainLoss, TrainError>
where
    M: TensorCollection<f32, Cpu> + Clone + 'static,
{
    let mut squared = 0.0;
    model.look(Names::Untold, &mut |seen| {
        if !seen.is_buffer {
            squared += seen.elements().iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
        }
    });
    let (loss, mut tape) = loss.try_add((0.5 * DECAY * squared) as f32)?.split_tape();
    let (of_loss, model) = (loss.clone(), model.clone());
    tape.add_backward_op(move |gradients| {
        let due = gradients.get(&of_loss).array();
        each_gradient(&model, gradients, &mut |seen, sum| {
            let w = seen.elements();
            sum.iter_mut().zip(w).for_each(|(sum, w)| *sum += due * DECAY as f32 * w);
        })
    });
    Ok(loss.put_tape(tape))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lab::tasks::models::Logistic;
    use dfdx::{nn::BuildModule, prelude::*};

    // Twice the mean of two losses: each weight's gradient grows by 2·1e-4·w, and the loss by
    // 1e-4·½‖w‖² of w = 0.5 everywhere. Fails if the penalty is of weights alone, if it has another
    // factor, or if it does not go back with the loss.
    #[test]
    fn the_penalty_goes_back_with_the_loss() {
        let device = Cpu::default();
        let mut model = Logistic::build(&device);
        model.weight = device.zeros_like(&model.weight) + 0.5;
        model.bias = device.zeros_like(&model.bias) + 0.5;
        let x = device.ones::<Rank2<2, 784>>();
        let of = |decays: bool| {
            let loss = model.forward(x.clone().leaky_traced()).square().mean();
            let loss = if decays { decayed(loss, &model).unwrap() } else { loss };
            let value = loss.array();
            let gradients = (loss * 2.0).backward();
            let (weight, bias) = (gradients.get(&model.weight), gradients.get(&model.bias));
            (value, weight.array()[3][7], bias.array()[3])
        };
        let (plain, with) = (of(false), of(true));
        let close = |a: f32, b: f32, scale: f32| (a - b).abs() < 1e-6 * scale;
        assert!(close(with.0 - plain.0, 0.5e-4 * 7850.0 * 0.25, plain.0), "{with:?} {plain:?}");
        assert!(close(with.1 - plain.1, 1e-4, plain.1), "{with:?} {plain:?}");
        assert!(close(with.2 - plain.2, 1e-4, plain.2), "{with:?} {plain:?}");
    }
}
