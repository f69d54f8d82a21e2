//! What a model that classifies images has to offer.

use super::{error::failed, TrainDevice, TrainError};
use crate::{
    resnet::{ResNet50, Wrn10x1, Wrn16x1, Wrn16x2, Wrn16x4, Wrn16x8, Wrn28x10},
    Mlp,
};
use dfdx::{
    nn::{BuildModule, Module, ModuleMut, NumParams, ZeroGrads},
    prelude::{
        Const, Cpu, CpuError, Gradients, HasShape, NoneTape, OwnedTape, ReshapeTo, Shape, Tensor,
        Trace,
    },
};
use tlr::TrainableLr;

/// A row of logits for each image.
pub type Logits<T, D = Cpu> = Tensor<(usize, usize), f32, D, T>;

/// A row of logits for each image, with the tape that leads to the gradients.
pub type TrainLogits<D = Cpu> = Logits<OwnedTape<f32, D>, D>;

/// A batch of images: scaled pixels, and (images, channels, rows, columns).
pub type Pixels<'a> = (&'a [f32], [usize; 4]);

/// A model that classifies images.
pub trait Network: 'static
where
    Self: TrainableLr<f32, <Self as Network>::Device>
        + NumParams<f32, <Self as Network>::Device>
        + ZeroGrads<f32, <Self as Network>::Device>
        + BuildModule<<Self as Network>::Device, f32>,
{
    /// Where its weights are.
    type Device: TrainDevice;

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
        device: &Self::Device,
        images: Pixels<'_>,
        gradients: Gradients<f32, Self::Device>,
    ) -> Result<TrainLogits<Self::Device>, TrainError>;

    /// The logits in testing, without a tape.
    ///
    /// # Errors
    /// An error of a layer.
    fn logits(
        &self,
        device: &Self::Device,
        images: Pixels<'_>,
    ) -> Result<Logits<NoneTape, Self::Device>, TrainError>;
}

/// A tensor of these values. Its memory is taken from the device, and returns to it. The memory of
/// a `Vec` that is moved into a tensor also ends in the device's cache, one more every step.
pub(crate) fn tensor<S: Shape, D: TrainDevice>(
    device: &D,
    values: &[f32],
    shape: S,
) -> Result<Tensor<S, f32, D>, D::Err> {
    let mut tensor: Tensor<S, f32, D> = device.try_zeros_like(&shape)?;
    if tensor.shape().num_elements() != values.len() {
        return Err(CpuError::WrongNumElements.into());
    }
    tensor.copy_from(values);
    Ok(tensor)
}

/// The shape of the input is a function of (images, channels, rows, columns). `$failed` takes the
/// error of the model's layers.
macro_rules! network {
    (
        [$($generics:tt)*] $Model:ty, $classes:expr, $takes:literal, $accepts:expr, $input:expr,
        $failed:expr
    ) => {
        impl<$($generics)*> Network for $Model {
            type Device = D;

            const CLASSES: usize = $classes;
            const TAKES: &'static str = $takes;

            fn accepts(shape: [usize; 3]) -> bool {
                $accepts(shape)
            }

            fn train_logits(
                &mut self,
                device: &D,
                (pixels, shape): Pixels<'_>,
                gradients: Gradients<f32, D>,
            ) -> Result<TrainLogits<D>, TrainError> {
                let x = tensor(device, pixels, $input(shape)).map_err(failed)?;
                let logits = self.try_forward_mut(x.traced(gradients)).map_err($failed)?;
                logits.try_reshape_like(&(shape[0], Self::CLASSES)).map_err(failed)
            }

            fn logits(
                &self,
                device: &D,
                (pixels, shape): Pixels<'_>,
            ) -> Result<Logits<NoneTape, D>, TrainError> {
                let x = tensor(device, pixels, $input(shape)).map_err(failed)?;
                let logits = self.try_forward(x).map_err($failed)?;
                logits.try_reshape_like(&(shape[0], Self::CLASSES)).map_err(failed)
            }
        }
    };
}

network! {
    [const HIDDEN: usize, const OUT: usize, D: TrainDevice] Mlp<784, HIDDEN, OUT, f32, D>,
    OUT, "784 pixels", |shape: [usize; 3]| shape.iter().product::<usize>() == 784,
    |[images, ..]: [usize; 4]| (images, Const::<784>), failed
}

macro_rules! colour_networks {
    ($($Model:ident),+) => {$(
        network! {
            [const CLASSES: usize, D: TrainDevice] $Model<CLASSES, f32, D>,
            CLASSES, "3 channels", |[channels, ..]: [usize; 3]| channels == 3,
            |[images, _, rows, columns]: [usize; 4]| (images, Const::<3>, rows, columns),
            TrainError::from
        }
    )+};
}

colour_networks!(Wrn10x1, Wrn16x1, Wrn16x2, Wrn16x4, Wrn16x8, Wrn28x10, ResNet50);
