//! What a model that classifies images has to offer.

use super::TrainError;
use crate::{
    resnet::{ResNet50, Wrn10x1, Wrn16x1, Wrn16x2, Wrn16x4, Wrn16x8, Wrn28x10},
    Mlp,
};
use dfdx::{
    nn::{BuildModule, Module, ModuleMut, NumParams, ZeroGrads},
    prelude::{
        Const, Cpu, CpuError, Gradients, HasShape, NoneTape, OwnedTape, ReshapeTo, Shape, Tensor,
        Trace, ZerosTensor,
    },
};
use tlr::TrainableLr;

/// A row of logits for each image.
pub type Logits<T> = Tensor<(usize, usize), f32, Cpu, T>;

/// A batch of images: scaled pixels, and (images, channels, rows, columns).
pub type Pixels<'a> = (&'a [f32], [usize; 4]);

/// A model that classifies images.
pub trait Network:
    TrainableLr<f32, Cpu> + NumParams<f32, Cpu> + ZeroGrads<f32, Cpu> + 'static
where
    Self: BuildModule<Cpu, f32>,
{
    /// The most classes that it can distinguish.
    const CLASSES: usize;

    /// The images that it takes, in words.
    const TAKES: &'static str;

    /// Whether it takes images of these channels, rows and columns.
    fn accepts(shape: [usize; 3]) -> bool;

    /// The logits in training, with the tape that leads to their gradients.
    ///
    /// # Errors
    /// An error of a layer.
    fn train_logits(
        &mut self,
        device: &Cpu,
        images: Pixels<'_>,
        gradients: Gradients<f32, Cpu>,
    ) -> Result<Logits<OwnedTape<f32, Cpu>>, TrainError>;

    /// The logits in testing, without a tape.
    ///
    /// # Errors
    /// An error of a layer.
    fn logits(&self, device: &Cpu, images: Pixels<'_>) -> Result<Logits<NoneTape>, TrainError>;
}

/// A tensor of these values, in memory that the device has, and takes back: a `Vec` moved into a
/// tensor would end in the device's cache, one more every step.
pub(crate) fn tensor<S: Shape>(
    device: &Cpu,
    values: &[f32],
    shape: S,
) -> Result<Tensor<S, f32, Cpu>, CpuError> {
    let mut tensor = device.try_zeros_like(&shape)?;
    if tensor.shape().num_elements() != values.len() {
        return Err(CpuError::WrongNumElements);
    }
    tensor.copy_from(values);
    Ok(tensor)
}

/// The shape of the input is a function of (images, channels, rows, columns).
macro_rules! network {
    ([$($generics:tt)*] $Model:ty, $classes:expr, $takes:literal, $accepts:expr, $input:expr) => {
        impl<$($generics)*> Network for $Model {
            const CLASSES: usize = $classes;
            const TAKES: &'static str = $takes;

            fn accepts(shape: [usize; 3]) -> bool {
                $accepts(shape)
            }

            fn train_logits(
                &mut self,
                device: &Cpu,
                (pixels, shape): Pixels<'_>,
                gradients: Gradients<f32, Cpu>,
            ) -> Result<Logits<OwnedTape<f32, Cpu>>, TrainError> {
                let x = tensor(device, pixels, $input(shape))?;
                let logits = self.try_forward_mut(x.traced(gradients))?;
                Ok(logits.try_reshape_like(&(shape[0], Self::CLASSES))?)
            }

            fn logits(
                &self,
                device: &Cpu,
                (pixels, shape): Pixels<'_>,
            ) -> Result<Logits<NoneTape>, TrainError> {
                let x = tensor(device, pixels, $input(shape))?;
                Ok(self.try_forward(x)?.try_reshape_like(&(shape[0], Self::CLASSES))?)
            }
        }
    };
}

network! {
    [const HIDDEN: usize, const OUT: usize] Mlp<784, HIDDEN, OUT, f32, Cpu>,
    OUT, "784 pixels", |shape: [usize; 3]| shape.iter().product::<usize>() == 784,
    |[images, ..]: [usize; 4]| (images, Const::<784>)
}

macro_rules! colour_networks {
    ($($Model:ident),+) => {$(
        network! {
            [const CLASSES: usize] $Model<CLASSES, f32, Cpu>,
            CLASSES, "3 channels", |[channels, ..]: [usize; 3]| channels == 3,
            |[images, _, rows, columns]: [usize; 4]| (images, Const::<3>, rows, columns)
        }
    )+};
}

colour_networks!(Wrn10x1, Wrn16x1, Wrn16x2, Wrn16x4, Wrn16x8, Wrn28x10, ResNet50);
