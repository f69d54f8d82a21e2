//! [`Backend`]: dfdx's devices, with access to the elements in their memory; and their errors.

use crate::error::{DeviceError, Error};
use dfdx::{
    shapes::Dtype,
    tensor::{Cpu, CpuError, HasErr, Storage},
    tensor_ops::Device,
};
use std::any::Any;

/// An error of a device as this crate's, in these words. `error` is its source, if it has a type
/// that is known here.
pub(crate) fn device_error(message: String, error: &dyn Any) -> Error {
    if let Some(error) = error.downcast_ref() {
        return Error::Device(of_cpu(message, error));
    }
    #[cfg(feature = "cuda")]
    {
        use cudarc::{cublas::result::CublasError, driver::result::DriverError};
        use dfdx::tensor::CudaError;
        let of_driver = |error: &DriverError, message| {
            let is_full = error.0 == cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
            Error::Device(DeviceError::with_source(message, is_full, *error))
        };
        let of_blas = |error: &CublasError, message| {
            use cudarc::cublas::sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED;
            let is_full = error.0 == CUBLAS_STATUS_ALLOC_FAILED;
            Error::Device(DeviceError::with_source(message, is_full, *error))
        };
        if let Some(error) = error.downcast_ref() {
            return of_driver(error, message);
        }
        match error.downcast_ref() {
            Some(CudaError::Driver(error)) => return of_driver(error, message),
            Some(CudaError::Blas(error)) => return of_blas(error, message),
            Some(CudaError::Cpu(error)) => return Error::Device(of_cpu(message, error)),
            #[allow(unreachable_patterns)] // cuDNN's, with a feature of dfdx's
            Some(_) | None => {}
        }
    }
    Error::Device(DeviceError::new(message))
}

fn of_cpu(message: String, error: &CpuError) -> DeviceError {
    DeviceError::with_source(message, matches!(error, CpuError::OutOfMemory), *error)
}

/// The memory on device `D` for the elements of one tensor.
///
/// Example: [`UpdateRule`](crate::optim::UpdateRule).
pub type Buffer<E, D> = <D as Storage<E>>::Vec;

/// A dfdx device whose memory [`tlr::optim`](crate::optim) can read and write: `Cpu`, and `Cuda`
/// with the feature `cuda`. So `AutoDevice` is a `Backend` too.
///
/// Code that is generic over the device uses the bound `D: Backend<E>` in place of `D: Device<E>`.
///
/// Example: [`UpdateRule`](crate::optim::UpdateRule).
pub trait Backend<E: Dtype>: Device<E> + sealed::Sealed {
    /// Calls `look` with the elements of a buffer, in the order of the tensor's memory. On a GPU,
    /// with a copy of them on the host.
    ///
    /// # Errors
    /// The device's error, for instance for lack of memory.
    ///
    /// Example: [`UpdateRule`](crate::optim::UpdateRule).
    fn read<T>(
        buffer: &Buffer<E, Self>,
        look: impl FnOnce(&[E]) -> T,
    ) -> Result<T, <Self as HasErr>::Err>;

    /// Calls `change` with the elements of a buffer, and keeps what it writes to them. On a GPU,
    /// the elements are copied to the host and back.
    ///
    /// # Errors
    /// The device's error. The elements are as they were then.
    ///
    /// Example: [`UpdateRule`](crate::optim::UpdateRule).
    fn write<T>(
        buffer: &mut Buffer<E, Self>,
        change: impl FnOnce(&mut [E]) -> T,
    ) -> Result<T, <Self as HasErr>::Err>;
}

mod sealed {
    pub trait Sealed {
        /// Whether [`Backend::read`](super::Backend::read) copies nothing and waits for nothing.
        const LENDS: bool;
    }

    impl Sealed for dfdx::tensor::Cpu {
        const LENDS: bool = true;
    }

    #[cfg(feature = "cuda")]
    impl Sealed for dfdx::tensor::Cuda {
        const LENDS: bool = false;
    }
}

/// Whether the elements of a buffer can be read where they are.
pub(crate) fn lends<E: Dtype, D: Backend<E>>() -> bool {
    <D as sealed::Sealed>::LENDS
}

macro_rules! backends {
    ($($(#[$feature:meta])? $E:ty;)+) => {$(
        $(#[$feature])?
        impl Backend<$E> for Cpu {
            fn read<T>(
                buffer: &Buffer<$E, Self>,
                look: impl FnOnce(&[$E]) -> T,
            ) -> Result<T, Self::Err> {
                Ok(look(buffer))
            }

            fn write<T>(
                buffer: &mut Buffer<$E, Self>,
                change: impl FnOnce(&mut [$E]) -> T,
            ) -> Result<T, Self::Err> {
                Ok(change(buffer))
            }
        }

        /// The elements are copied to the host, and back after a change.
        $(#[$feature])?
        #[cfg(feature = "cuda")]
        impl Backend<$E> for dfdx::tensor::Cuda {
            fn read<T>(
                buffer: &Buffer<$E, Self>,
                look: impl FnOnce(&[$E]) -> T,
            ) -> Result<T, Self::Err> {
                Ok(look(&buffer.device().dtoh_sync_copy(&**buffer)?))
            }

            fn write<T>(
                buffer: &mut Buffer<$E, Self>,
                change: impl FnOnce(&mut [$E]) -> T,
            ) -> Result<T, Self::Err> {
                let device = buffer.device();
                let mut values = device.dtoh_sync_copy(&**buffer)?;
                let changed = change(&mut values);
                device.htod_sync_copy_into(&values, &mut **buffer)?;
                Ok(changed)
            }
        }
    )+};
}

backends! {
    f32;
    f64;
    #[cfg(feature = "f16")] half::f16;
    #[cfg(feature = "f16")] dfdx::dtypes::AMP<half::f16>;
}
