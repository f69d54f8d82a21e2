//! [`DeviceError`]: a failure of a device.

#[cfg(feature = "cuda")]
use cudarc::{
    cublas::{result::CublasError, sys::cublasStatus_t as Status},
    driver::{sys::cudaError_enum as Code, DriverError},
};
use dfdx::prelude::CpuError;
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// The CPU's name in messages.
pub(crate) const CPU: &str = "CPU";
/// The GPU's name in messages.
#[cfg(feature = "cuda")]
pub(crate) const GPU: &str = "GPU";

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

impl From<CpuError> for DeviceError {
    fn from(error: CpuError) -> Self {
        match error {
            CpuError::OutOfMemory => Self::OutOfMemory { device: CPU },
            error => Self::Failed { device: CPU, what: error.to_string() },
        }
    }
}

#[cfg(feature = "cuda")]
impl From<CudaError> for DeviceError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Cpu(error) => error.into(),
            CudaError::Driver(DriverError(Code::CUDA_ERROR_OUT_OF_MEMORY))
            | CudaError::Blas(CublasError(Status::CUBLAS_STATUS_ALLOC_FAILED)) => {
                Self::OutOfMemory { device: GPU }
            }
            CudaError::Driver(error) => Self::Failed { device: GPU, what: said(error) },
            error => Self::Failed { device: GPU, what: error.to_string() },
        }
    }
}

/// The driver's own sentence, or the number of the error where it has none.
#[cfg(feature = "cuda")]
pub(crate) fn said(error: DriverError) -> String {
    match error.error_string() {
        Ok(said) => said.to_string_lossy().into_owned(),
        Err(_) => format!("error {}", error.0 as u32),
    }
}
