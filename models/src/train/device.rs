//! Where a model is trained: on the CPU, or on a GPU.

use crate::layers::SequenceKernels;
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

/// Why a device could not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no such device.
    #[error("there is no GPU that CUDA can use ({why}); the CPU can train too")]
    Missing {
        /// What the driver says.
        why: String,
    },
    /// There is too little memory.
    #[error("the {device} has too little memory; smaller batches need less")]
    OutOfMemory {
        /// The device's name.
        device: &'static str,
    },
    /// Something else, such as a kernel that could not be compiled.
    #[error("the {device} has failed: {what}")]
    Failed {
        /// The device's name.
        device: &'static str,
        /// What the device says.
        what: String,
    },
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
    const NAME: &'static str = "CPU";

    fn find() -> Result<(), DeviceError> {
        Ok(())
    }

    fn open(seed: u64) -> Result<Self, DeviceError> {
        let device = Self::seed_from_u64(seed);
        device.try_enable_cache()?;
        Ok(device)
    }
}

impl From<CpuError> for DeviceError {
    fn from(error: CpuError) -> Self {
        match error {
            CpuError::OutOfMemory => Self::OutOfMemory { device: Cpu::NAME },
            error => Self::Failed { device: Cpu::NAME, what: error.to_string() },
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::{DeviceError, TrainDevice};
    use cudarc::driver::{result, sys::cudaError_enum as Code, DriverError};
    use dfdx::prelude::{Cache, Cuda, CudaError};

    impl TrainDevice for Cuda {
        const NAME: &'static str = "GPU";

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

    impl From<CudaError> for DeviceError {
        fn from(error: CudaError) -> Self {
            match error {
                CudaError::Cpu(error) => error.into(),
                CudaError::Driver(DriverError(Code::CUDA_ERROR_OUT_OF_MEMORY)) => {
                    Self::OutOfMemory { device: Cuda::NAME }
                }
                CudaError::Driver(error) => Self::Failed { device: Cuda::NAME, what: said(error) },
                error => Self::Failed { device: Cuda::NAME, what: error.to_string() },
            }
        }
    }

    /// The driver's own sentence, or the number of the error where it has none.
    fn said(error: DriverError) -> String {
        match error.error_string() {
            Ok(said) => said.to_string_lossy().into_owned(),
            Err(_) => format!("error {}", error.0 as u32),
        }
    }
}
