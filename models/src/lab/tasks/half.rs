//! A network that computes in half precision, and whose weights are in f32.

use super::gradients::each_gradient;
use crate::train::{tensor, Logits, Model, Network, Number, Pixels, TrainError, TrainLogits};
use dfdx::{
    dtypes::{f16, AMP},
    nn::{modules::Linear, Module, ToDtype},
    prelude::{
        Const, Cpu, CpuError, Device, Dtype, Gradients, NoneTape, OwnedTape, PutTape, Rank0, ReLU,
        SplitTape, SumTo, Tape, Tensor, Trace, TryMul,
    },
    tensor_ops::Backward,
};
use tlr::{TensorCollection, TrainableLr};

/// What the network computes in: numbers of half precision, added up in f32.
type Half = AMP<f16>;

/// The gradients of the logits are multiplied by this, and those of the weights divided by it: most
/// would be too small for half precision.
const LOSS_SCALE: f32 = 1024.0;

/// Two hidden layers of 128 rectified units. The weights, `E`, are in f32. Each pass rounds them to
/// half precision and computes in it, forward and back; the loss is in f32 again. So any optimizer
/// trains it, as with PyTorch's autocast and a loss scale that is fixed.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub(super) struct DeepInHalf<E: Dtype, D: Device<E>> {
    first: Linear<784, 128, E, D>,
    second: Linear<128, 128, E, D>,
    head: Linear<128, 10, E, D>,
}

type Rows<const N: usize, T> = Tensor<(usize, Const<N>), Half, Cpu, T>;

impl DeepInHalf<Half, Cpu> {
    fn pass<T: Tape<Half, Cpu>>(&self, x: Rows<784, T>) -> Result<Rows<10, T>, CpuError> {
        let x = ReLU.try_forward(self.first.try_forward(x)?)?;
        let x = ReLU.try_forward(self.second.try_forward(x)?)?;
        self.head.try_forward(x)
    }
}

fn widened(values: &[Half]) -> Vec<f32> {
    values.iter().map(|value| value.widened()).collect()
}

impl Model for DeepInHalf<f32, Cpu> {
    type Number = f32;
    type Device = Cpu;
}

impl Network for DeepInHalf<f32, Cpu> {
    const CLASSES: usize = 10;
    const TAKES: &'static str = "784 pixels";

    fn accepts(shape: [usize; 3]) -> bool {
        shape.iter().product::<usize>() == 784
    }

    fn train_logits(
        &mut self,
        device: &Cpu,
        (pixels, [images, ..]): Pixels<'_>,
        gradients: Gradients<f32, Cpu>,
    ) -> Result<TrainLogits, TrainError> {
        let half: DeepInHalf<Half, Cpu> = self.try_to_dtype()?;
        let x: Rows<784, NoneTape> = tensor(device, pixels, (images, Const))?;
        let (in_half, half_tape) = half.pass(x.traced(Gradients::leaky()))?.split_tape();
        let logits = tensor(device, &widened(&in_half.as_vec()), (images, 10))?;
        let (logits, mut tape) = logits.traced(gradients).split_tape();
        let (wide, logits_of_pass, device) = (self.clone(), logits.clone(), device.clone());
        tape.add_backward_op(move |gradients| {
            let due = gradients.get_or_alloc_mut(&logits_of_pass)?;
            let scaled: Vec<f32> = due.iter().map(|due| due * LOSS_SCALE).collect();
            let due = tensor(&device, &scaled, (images, Const))?;
            back(&half, in_half.put_tape(half_tape), due, &wide, gradients)
        });
        Ok(logits.put_tape(tape))
    }

    fn logits(
        &self,
        device: &Cpu,
        (pixels, [images, ..]): Pixels<'_>,
    ) -> Result<Logits<NoneTape>, TrainError> {
        let half: DeepInHalf<Half, Cpu> = self.try_to_dtype()?;
        let logits = half.pass(tensor(device, pixels, (images, Const))?)?;
        Ok(tensor(device, &widened(&logits.as_vec()), (images, 10))?)
    }
}

/// Goes back from the gradients of the logits, `due`, in half precision, and adds what comes of it
/// to the gradients of the weights in f32.
fn back(
    half: &DeepInHalf<Half, Cpu>,
    logits: Rows<10, OwnedTape<Half, Cpu>>,
    due: Rows<10, NoneTape>,
    wide: &DeepInHalf<f32, Cpu>,
    gradients: &mut Gradients<f32, Cpu>,
) -> Result<(), CpuError> {
    // ⟨logits, due⟩ has the derivatives `due`. The product itself is of no use.
    let product: Tensor<Rank0, Half, Cpu, _> = logits.try_mul(due)?.try_sum()?;
    let mut in_half = product.try_backward()?;
    let mut found = Vec::new();
    each_gradient(half, &mut in_half, &mut |_, gradient| found.push(widened(gradient)))?;
    let mut found = found.into_iter();
    each_gradient(wide, gradients, &mut |_, sum| {
        let found = found.next().unwrap_or_default();
        sum.iter_mut().zip(found).for_each(|(sum, found)| *sum += found / LOSS_SCALE);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use dfdx::{nn::BuildModule, prelude::*};
    use tlr::__private::{Model as Tensors, Names};

    // The same network in f32, by dfdx's own operations. Half precision has 11 bits: logits are
    // within a few units of 2^-11, and gradients within a few percent of the largest. Fails if the
    // loss scale is not divided out, if a layer's gradient goes to another, or if gradients replace
    // those that are there.
    #[test]
    fn it_learns_as_in_f32_but_for_rounding() {
        let device = Cpu::seed_from_u64(0);
        let mut model = DeepInHalf::build(&device);
        let x: Tensor<(usize, Const<784>), f32, Cpu> =
            device.sample_like(&(4, Const), rand_distr::StandardNormal);
        let mut labels = vec![0.0; 40];
        [3, 11, 29, 35].into_iter().for_each(|one: usize| labels[one] = 1.0);
        let y = device.tensor_from_vec(labels, (4, Const::<10>));

        let deep = ((model.first.clone(), ReLU), (model.second.clone(), ReLU), model.head.clone());
        let expected = deep.forward(x.clone().traced(Gradients::leaky()));
        let expected_logits = expected.as_vec();
        let mut expected = cross_entropy_with_logits_loss(expected, y.clone()).backward();

        let (pixels, shape) = (x.as_vec(), [4, 1, 28, 28]);
        let logits = model.logits(&device, (&pixels, shape)).unwrap().as_vec();
        let mut found = Gradients::leaky();
        for _ in 0..2 {
            let logits = model.train_logits(&device, (&pixels, shape), found).unwrap();
            let y = device.tensor_from_vec(y.as_vec(), (4, 10));
            found = cross_entropy_with_logits_loss(logits, y).backward();
        }
        assert!(logits.iter().zip(&expected_logits).all(|(a, b)| (a - b).abs() < 0.01));
        assert_ne!(logits, expected_logits);
        let mut tensors = 0;
        model.look(Names::Untold, &mut |seen| {
            let [found, expected] =
                [&mut found, &mut expected].map(|all| seen.gradient(all).unwrap().clone());
            let largest = expected.iter().fold(0.0f32, |largest, g| largest.max(g.abs()));
            assert!(largest > 0.0);
            let close = |(a, b): (&f32, &f32)| (a - 2.0 * b).abs() < 0.05 * largest;
            assert!(found.iter().zip(expected.iter()).all(close));
            tensors += 1;
        });
        assert_eq!(tensors, 6);
    }
}
