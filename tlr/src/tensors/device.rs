//! [`Backend`]: dfdx's devices, with access to the elements in their memory.

use dfdx::{
    shapes::Dtype,
    tensor::{Cpu, HasErr, Storage},
    tensor_ops::Device,
};

/// The memory on device `D` for the elements of one tensor.
///
/// # Example
/// See [`UpdateRule`](crate::optim::UpdateRule).
pub type Buffer<E, D> = <D as Storage<E>>::Vec;

/// A dfdx device whose memory [`tlr::optim`](crate::optim) can read and write: `Cpu`, and `Cuda`
/// with the feature `cuda`. So `AutoDevice` is a `Backend` too.
///
/// Code that is generic over the device uses the bound `D: Backend<E>` in place of `D: Device<E>`.
///
/// # Example
/// See [`UpdateRule`](crate::optim::UpdateRule).
pub trait Backend<E: Dtype>: Device<E> + sealed::Sealed {
    /// Calls `look` with the elements of a buffer, in the order of the tensor's memory. On a GPU,
    /// with a copy of them on the host.
    ///
    /// # Errors
    /// The device's error, for instance for lack of memory.
    ///
    /// # Example
    /// See [`UpdateRule`](crate::optim::UpdateRule).
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
    /// # Example
    /// See [`UpdateRule`](crate::optim::UpdateRule).
    fn write<T>(
        buffer: &mut Buffer<E, Self>,
        change: impl FnOnce(&mut [E]) -> T,
    ) -> Result<T, <Self as HasErr>::Err>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for dfdx::tensor::Cpu {}
    #[cfg(feature = "cuda")]
    impl Sealed for dfdx::tensor::Cuda {}
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
