//! Where a model is trained: on the CPU, or on a GPU.

use crate::{
    device::{DeviceError, CPU},
    layers::SequenceKernels,
};
use dfdx::prelude::{Cache, Cpu, CpuError, Dtype, HasErr, Rank0, TensorToArray};
use std::ops::Deref;
use tlr::Backend;

/// A device that models are trained on in numbers of type `E`.
///
/// # Example
/// ```
/// use dfdx::prelude::Cpu;
/// use tlr_models::train::{TrainDevice, TrainsIn};
///
/// fn name<D: TrainsIn<f32>>() -> &'static str {
///     D::NAME
/// }
/// assert_eq!(name::<Cpu>(), "CPU");
/// ```
pub trait TrainsIn<E: Dtype>:
    TrainDevice + SequenceKernels<E> + Backend<E> + TensorToArray<Rank0, E, Array = E>
{
}

impl<E: Dtype, D> TrainsIn<E> for D where
    D: TrainDevice + SequenceKernels<E> + Backend<E> + TensorToArray<Rank0, E, Array = E>
{
}

/// A device that models are trained on: `Cpu`, and `Cuda` with the feature `cuda`. All of them have
/// f32; [`TrainsIn`] says what else.
pub trait TrainDevice:
    SequenceKernels<f32>
    + Backend<f32>
    + Cache
    + TensorToArray<Rank0, f32, Array = f32>
    + HasErr<Err: Into<DeviceError> + From<CpuError>>
{
    /// Its name in messages.
    const NAME: &'static str;

    /// Looks whether there is such a device, without opening it.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] if there is none.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::Cpu;
    /// use tlr_models::train::TrainDevice;
    ///
    /// assert!(Cpu::find().is_ok());
    /// ```
    fn find() -> Result<(), DeviceError>;

    /// The device, whose generator begins at `seed`. It keeps the memory of freed tensors for later
    /// ones.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] if there is no such device.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::train::TrainDevice;
    ///
    /// let device = Cpu::open(7)?;
    /// let x: Tensor<Rank1<3>, f32, _> = device.zeros();
    /// assert_eq!(x.array(), [0.0; 3]);
    /// # Ok::<(), tlr_models::train::DeviceError>(())
    /// ```
    fn open(seed: u64) -> Result<Self, DeviceError>;
}

/// A device that frees, when it is dropped, the memory that it keeps for later tensors. dfdx's own
/// devices do not.
pub(crate) struct Opened<D: TrainDevice>(D);

impl<D: TrainDevice> Opened<D> {
    pub(crate) fn new(seed: u64) -> Result<Self, DeviceError> {
        D::open(seed).map(Self)
    }
}

impl<D: TrainDevice> Deref for Opened<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.0
    }
}

impl<D: TrainDevice> Drop for Opened<D> {
    fn drop(&mut self) {
        // A device that fails has no memory to give back.
        let _ = self.0.try_empty_cache();
    }
}

impl TrainDevice for Cpu {
    const NAME: &'static str = CPU;

    fn find() -> Result<(), DeviceError> {
        Ok(())
    }

    fn open(seed: u64) -> Result<Self, DeviceError> {
        let device = Self::seed_from_u64(seed);
        device.try_enable_cache()?;
        Ok(device)
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::{DeviceError, TrainDevice};
    use crate::device::{said, GPU};
    use cudarc::driver::result;
    use dfdx::prelude::{Cache, Cuda};

    impl TrainDevice for Cuda {
        const NAME: &'static str = GPU;

        fn find() -> Result<(), DeviceError> {
            let missing = |why: String| Err(DeviceError::Missing { why });
            match result::init().and_then(|()| result::device::get_count()) {
                Ok(1..) => Ok(()),
                Ok(_) => missing("the driver finds none".to_owned()),
                Err(error) => missing(said(error)),
            }
        }

        fn open(seed: u64) -> Result<Self, DeviceError> {
            // cudarc panics where there is no driver or no GPU.
            Self::find()?;
            let device = Self::try_seed_from_u64(seed)?;
            device.try_enable_cache()?;
            Ok(device)
        }
    }
}
