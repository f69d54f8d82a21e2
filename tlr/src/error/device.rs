//! [`DeviceError`]: a failure of a device, with the device's own error.

use std::{error::Error, fmt, sync::Arc};

/// A failure of the device, or of the base optimizer on it.
///
/// Its `source` is the device's own error if that has a known type: dfdx's `CpuError`, and the
/// `DriverError` and `CublasError` of CUDA.
///
/// # Example
/// An optimizer of your own reports a failure as a device does.
/// ```
/// # #[cfg(feature = "dfdx")] {
/// use dfdx::{optim::{Optimizer, OptimizerUpdateError}, prelude::*, tensor::CpuError};
/// use std::error::Error as _;
/// use tlr::{Error, Newton, NewtonConfig, TunableOptimizer};
///
/// type Model = modules::Linear<4, 2, f32, Cpu>;
///
/// struct Full;
///
/// impl Optimizer<Model, Cpu, f32> for Full {
///     fn update(
///         &mut self,
///         _model: &mut Model,
///         _gradients: &Gradients<f32, Cpu>,
///     ) -> Result<(), OptimizerUpdateError<CpuError>> {
///         Err(OptimizerUpdateError::DeviceError(CpuError::OutOfMemory))
///     }
/// }
///
/// impl TunableOptimizer for Full {
///     type Model = Model;
///     type Dtype = f32;
///     type Device = Cpu;
///
///     fn rate(&self, _group: usize) -> f64 {
///         0.1
///     }
///     fn set_rate(&mut self, _group: usize, _rate: f64) {}
///     fn reset(&mut self, _model: &Model) {}
/// }
///
/// let mut model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let mut opt = Newton::new(&model, Full, NewtonConfig::default().ramp(false))?;
/// let gradients = model.alloc_grads();
/// let Err(Error::Device(error)) = opt.step(&mut model, &gradients, 1.0) else { unreachable!() };
/// assert!(error.is_out_of_memory());
/// assert!(matches!(error.source().unwrap().downcast_ref(), Some(CpuError::OutOfMemory)));
/// # }
/// # Ok::<(), tlr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeviceError {
    message: String,
    is_out_of_memory: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl DeviceError {
    /// A failure for which there is no error of the device's own.
    #[cfg(feature = "dfdx")]
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_out_of_memory: false, source: None }
    }

    /// A failure in the device's words, with its own error.
    #[cfg(feature = "dfdx")]
    pub(crate) fn with_source(
        message: String,
        is_out_of_memory: bool,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { message, is_out_of_memory, source: Some(Arc::new(source)) }
    }

    /// Whether the device has no memory left. The device is not lost then: a call that needs less
    /// memory may still succeed.
    ///
    /// Example: [`DeviceError`].
    pub fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device: {}", self.message)?;
        match self.is_out_of_memory {
            true => f.write_str(
                ": take smaller batches, or keep less of the weights by `Config::bf16_directions` \
                 or `Config::sketch`",
            ),
            false => Ok(()),
        }
    }
}

impl Error for DeviceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Compares the texts: the errors of devices cannot be compared.
impl PartialEq for DeviceError {
    fn eq(&self, other: &Self) -> bool {
        (&self.message, self.is_out_of_memory) == (&other.message, other.is_out_of_memory)
    }
}
