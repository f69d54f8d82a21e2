//! Models that only the laboratory has.

use crate::{
    layers::{BiasedConv2d, LayerError, Rows},
    train::{tensor, Logits, Model, Network, Pixels, TrainError, TrainLogits},
    Mlp,
};
use dfdx::{
    nn::{
        modules::{Linear, UnbiasedLinear},
        Module, NonMutableModule,
    },
    prelude::{
        Axes2, Const, Cpu, CpuError, Device, Dtype, Gradients, HasShape, MeanTo, NoneTape, PutTape,
        ReLU, ReshapeTo, SplitTape, Tanh, Tape, Tensor, Trace, TryAdd,
    },
};
use tlr::{TensorCollection, TrainableLr};

/// The perceptron that small scales train in place of the paper's, which has 1,000 hidden units.
pub(super) type SmallMlp<D> = Mlp<784, 128, 10, f32, D>;

/// Softmax regression.
pub(super) type Logistic = Linear<784, 10, f32, Cpu>;

/// Two hidden layers of rectified units.
pub(super) type Deep<const H: usize> =
    ((Linear<784, H, f32, Cpu>, ReLU), (Linear<H, H, f32, Cpu>, ReLU), Linear<H, 10, f32, Cpu>);

/// Squeezes 784 pixels through 16 numbers.
pub(super) type Coder = (
    (Linear<784, 64, f32, Cpu>, Tanh),
    (Linear<64, 16, f32, Cpu>, Tanh),
    (Linear<16, 64, f32, Cpu>, Tanh),
    Linear<64, 784, f32, Cpu>,
);

/// A line over 32 numbers.
pub(super) type Line = Linear<32, 1, f32, Cpu>;

/// A network that classifies points of the plane.
pub(super) type Planar =
    ((Linear<2, 32, f32, Cpu>, Tanh), (Linear<32, 32, f32, Cpu>, Tanh), Linear<32, 2, f32, Cpu>);

macro_rules! of_pixels {
    ($([$($generics:tt)*] $Model:ty),+) => {$(
        impl<$($generics)*> Model for $Model {
            type Number = f32;
            type Device = Cpu;
        }

        impl<$($generics)*> Network for $Model {
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
                let x = tensor(device, pixels, (images, Const::<784>))?.traced(gradients);
                Ok(self.try_forward(x)?.try_reshape_like(&(images, 10))?)
            }

            fn logits(
                &self,
                device: &Cpu,
                (pixels, [images, ..]): Pixels<'_>,
            ) -> Result<Logits<NoneTape>, TrainError> {
                let x = tensor(device, pixels, (images, Const::<784>))?;
                Ok(self.try_forward(x)?.try_reshape_like(&(images, 10))?)
            }
        }
    )+};
}

of_pixels!([] Logistic, [const H: usize] Deep<H>);

/// Two convolutions in strides of 2, the mean over pixels and a line; no norms.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub(super) struct SmallConv<E: Dtype, D: Device<E>> {
    first: BiasedConv2d<1, 16, 3, 2, 1, 1, 1, E, D>,
    second: BiasedConv2d<16, 32, 3, 2, 1, 1, 1, E, D>,
    head: Linear<32, 10, E, D>,
}

type Images<T> = Tensor<(usize, Const<1>, usize, usize), f32, Cpu, T>;

impl SmallConv<f32, Cpu> {
    fn pass<T: Tape<f32, Cpu>>(&self, x: Images<T>) -> Result<Logits<T>, LayerError<CpuError>> {
        let images = x.shape().0;
        let x = self.first.try_forward(x)?.try_relu()?;
        let x = self.second.try_forward(x)?.try_relu()?;
        let x = x.try_mean::<(usize, Const<32>), Axes2<2, 3>>()?;
        Ok(self.head.try_forward(x)?.try_reshape_like(&(images, 10))?)
    }
}

impl Model for SmallConv<f32, Cpu> {
    type Number = f32;
    type Device = Cpu;
}

impl Network for SmallConv<f32, Cpu> {
    const CLASSES: usize = 10;
    const TAKES: &'static str = "1 channel";

    fn accepts([channels, ..]: [usize; 3]) -> bool {
        channels == 1
    }

    fn train_logits(
        &mut self,
        device: &Cpu,
        (pixels, [images, _, rows, columns]): Pixels<'_>,
        gradients: Gradients<f32, Cpu>,
    ) -> Result<TrainLogits, TrainError> {
        let x = tensor(device, pixels, (images, Const::<1>, rows, columns))?;
        Ok(self.pass(x.traced(gradients))?)
    }

    fn logits(
        &self,
        device: &Cpu,
        (pixels, [images, _, rows, columns]): Pixels<'_>,
    ) -> Result<Logits<NoneTape>, TrainError> {
        Ok(self.pass(tensor(device, pixels, (images, Const::<1>, rows, columns))?)?)
    }
}

/// A recurrent network that reads eight numbers, one at a time.
#[derive(Clone, Debug, TensorCollection, TrainableLr)]
pub(super) struct Recurrent<E: Dtype, D: Device<E>> {
    seen: Linear<1, 16, E, D>,
    kept: UnbiasedLinear<16, 16, E, D>,
    head: Linear<16, 1, E, D>,
}

impl NonMutableModule for Recurrent<f32, Cpu> {}

impl<T: Tape<f32, Cpu>> Module<Rows<usize, 8, f32, Cpu, T>> for Recurrent<f32, Cpu> {
    type Output = Rows<usize, 1, f32, Cpu, T>;
    type Error = CpuError;

    fn try_forward(&self, x: Rows<usize, 8, f32, Cpu, T>) -> Result<Self::Output, CpuError> {
        let (x, tape) = x.split_tape();
        let (rows, values) = (x.shape().0, x.as_vec());
        let number = |place: usize| {
            let column: Vec<_> = values.iter().skip(place).step_by(8).copied().collect();
            tensor(x.device(), &column, (rows, Const::<1>))
        };
        let mut state = self.seen.try_forward(number(0)?.put_tape(tape))?.try_tanh()?;
        for place in 1..8 {
            let seen = self.seen.try_forward(number(place)?.put_tape(T::default()))?;
            state = self.kept.try_forward(state)?.try_add(seen)?.try_tanh()?;
        }
        self.head.try_forward(state)
    }
}
