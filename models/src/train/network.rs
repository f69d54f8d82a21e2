//! What a model that classifies images has to offer.

use super::{error::failed, Model, Number, TrainError, Trainable, TrainsIn};
use crate::{
    resnet::{ResNet50, Wrn10x1, Wrn16x1, Wrn16x2, Wrn16x4, Wrn16x8, Wrn28x10},
    Mlp,
};
use dfdx::{
    nn::{Module, ModuleMut},
    prelude::{
        Const, Cpu, CpuError, Device, Gradients, HasShape, NoneTape, OwnedTape, ReshapeTo, Shape,
        Tensor, Trace,
    },
};

/// A row of logits for each image.
pub type Logits<T, D = Cpu, E = f32> = Tensor<(usize, usize), E, D, T>;

/// A row of logits for each image, with the tape that leads to the gradients.
pub type TrainLogits<D = Cpu, E = f32> = Logits<OwnedTape<E, D>, D, E>;

/// A batch of images: scaled pixels, and (images, channels, rows, columns).
pub type Pixels<'a> = (&'a [f32], [usize; 4]);

/// A model that classifies images.
pub trait Network: Model + Trainable<<Self as Model>::Number, <Self as Model>::Device> {
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
        gradients: Gradients<Self::Number, Self::Device>,
    ) -> Result<TrainLogits<Self::Device, Self::Number>, TrainError>;

    /// The logits in testing, without a tape.
    ///
    /// # Errors
    /// An error of a layer.
    fn logits(
        &self,
        device: &Self::Device,
        images: Pixels<'_>,
    ) -> Result<Logits<NoneTape, Self::Device, Self::Number>, TrainError>;
}

/// A tensor of these values. Its memory is taken from the device, and returns to it. The memory of
/// a `Vec` that is moved into a tensor also ends in the device's cache, one more every step.
pub(crate) fn tensor<S: Shape, E: Number, D: Device<E>>(
    device: &D,
    values: &[f32],
    shape: S,
) -> Result<Tensor<S, E, D>, D::Err>
where
    D::Err: From<CpuError>,
{
    let mut tensor: Tensor<S, E, D> = device.try_zeros_like(&shape)?;
    if tensor.shape().num_elements() != values.len() {
        return Err(CpuError::WrongNumElements.into());
    }
    tensor.copy_from(&E::of(values));
    Ok(tensor)
}

/// The shape of the input is a function of (images, channels, rows, columns). `$failed` takes the
/// error of the model's layers.
macro_rules! network {
    (
        [$($generics:tt)*] $Model:ty, $classes:expr, $takes:literal, $accepts:expr, $input:expr,
        $failed:expr
    ) => {
        impl<$($generics)*> Model for $Model {
            type Number = E;
            type Device = D;
        }

        impl<$($generics)*> Network for $Model {
            const CLASSES: usize = $classes;
            const TAKES: &'static str = $takes;

            fn accepts(shape: [usize; 3]) -> bool {
                $accepts(shape)
            }

            fn train_logits(
                &mut self,
                device: &D,
                (pixels, shape): Pixels<'_>,
                gradients: Gradients<E, D>,
            ) -> Result<TrainLogits<D, E>, TrainError> {
                let x = tensor::<_, E, D>(device, pixels, $input(shape)).map_err(failed)?;
                let logits = self.try_forward_mut(x.traced(gradients)).map_err($failed)?;
                logits.try_reshape_like(&(shape[0], Self::CLASSES)).map_err(failed)
            }

            fn logits(
                &self,
                device: &D,
                (pixels, shape): Pixels<'_>,
            ) -> Result<Logits<NoneTape, D, E>, TrainError> {
                let x = tensor::<_, E, D>(device, pixels, $input(shape)).map_err(failed)?;
                let logits = self.try_forward(x).map_err($failed)?;
                logits.try_reshape_like(&(shape[0], Self::CLASSES)).map_err(failed)
            }
        }
    };
}

network! {
    [const HIDDEN: usize, const OUT: usize, E: Number, D: TrainsIn<E>] Mlp<784, HIDDEN, OUT, E, D>,
    OUT, "784 pixels", |shape: [usize; 3]| shape.iter().product::<usize>() == 784,
    |[images, ..]: [usize; 4]| (images, Const::<784>), failed
}

macro_rules! colour_networks {
    ($($Model:ident),+) => {$(
        network! {
            [const CLASSES: usize, E: Number, D: TrainsIn<E>] $Model<CLASSES, E, D>,
            CLASSES, "3 channels", |[channels, ..]: [usize; 3]| channels == 3,
            |[images, _, rows, columns]: [usize; 4]| (images, Const::<3>, rows, columns),
            TrainError::from
        }
    )+};
}

colour_networks!(Wrn10x1, Wrn16x1, Wrn16x2, Wrn16x4, Wrn16x8, Wrn28x10, ResNet50);
