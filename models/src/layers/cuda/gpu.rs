//! A GPU as the layers use it: the compiled kernels, cuBLAS, and memory for a layer's own use.

#[cfg(feature = "cudnn")]
use super::cudnn::Cudnn;
use super::{
    launch::{names, Grid, Kernel, Kind, THREADS},
    CudaErr,
};
use cudarc::{
    cublas::CudaBlas,
    driver::{
        sys::CUresult, CudaDevice, CudaFunction, CudaSlice, DevicePtr, DeviceSlice, DriverError,
        LaunchAsync, LaunchConfig,
    },
    nvrtc,
};
use dfdx::prelude::{Cuda, CudaError, Storage};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// All that the layers have of one GPU: there is one of these for each GPU. All of dfdx's devices
/// of the same number share the GPU's context and its stream, so any of them will do.
pub(in crate::layers) struct Gpu {
    pub(super) device: Arc<CudaDevice>,
    pub(super) blas: CudaBlas,
    #[cfg(feature = "cudnn")]
    pub(super) cudnn: Option<Cudnn>,
    workspace: CudaSlice<u8>,
}

/// The GPUs by CUDA's numbers. They stay until the program ends.
static GPUS: Mutex<BTreeMap<i32, &'static Mutex<Gpu>>> = Mutex::new(BTreeMap::new());

impl Gpu {
    /// The GPU of `cuda`, for one layer at a time: no other layer may overwrite the workspace
    /// between two launches. `number` is CUDA's number of the GPU, if it is known.
    pub(super) fn lock(
        cuda: &Cuda,
        number: Option<i32>,
    ) -> Result<MutexGuard<'static, Self>, CudaErr> {
        let mut gpus = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
        let known = number.and_then(|number| gpus.get(&number)).copied();
        let gpu = match known {
            Some(gpu) => gpu,
            None => {
                // cudarc's handle of the device, by way of a buffer: see tlr's `snapshots/gpu.rs`.
                let device = Storage::<f32>::try_alloc_len(cuda, 1)?.device();
                let number = *device.cu_device();
                match gpus.get(&number) {
                    Some(gpu) => gpu,
                    None => {
                        let gpu = &*Box::leak(Box::new(Mutex::new(Self::new(device)?)));
                        gpus.insert(number, gpu);
                        gpu
                    }
                }
            }
        };
        drop(gpus);
        Ok(gpu.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn new(device: Arc<CudaDevice>) -> Result<Self, CudaErr> {
        let workspace = device.null()?;
        Ok(Self {
            blas: CudaBlas::new(device.clone())?,
            #[cfg(feature = "cudnn")]
            cudnn: cudnn(&device)?,
            workspace,
            device,
        })
    }

    /// The address of at least `bytes` bytes for this layer's own use, with anything in them.
    pub(in crate::layers) fn workspace(&mut self, bytes: usize) -> Result<u64, CudaErr> {
        if self.workspace.len() < bytes {
            // The workspace that was too small is freed first, in the order of the stream.
            self.workspace = self.device.null()?;
            // SAFETY: bytes are valid whatever they are.
            #[allow(unsafe_code)]
            let workspace = unsafe { self.device.alloc(bytes) }?;
            self.workspace = workspace;
        }
        let address = *self.workspace.device_ptr();
        #[cfg(test)]
        self.poison(address, bytes)?;
        Ok(address)
    }

    /// Fills memory that is to be written with NaN, so that a test sees which elements are not
    /// written.
    #[cfg(test)]
    pub(super) fn poison(&self, address: u64, bytes: usize) -> Result<(), CudaErr> {
        self.device.bind_to_thread()?;
        // SAFETY: the caller has just got these bytes, and nothing else uses them.
        #[allow(unsafe_code)]
        unsafe {
            cudarc::driver::result::memset_d8_async(address, 255, bytes, *self.device.cu_stream())
        }?;
        Ok(())
    }

    /// Looks up a kernel, after compiling all of its kind on the first call.
    fn function(&self, kernel: Kernel, kind: Kind) -> Result<CudaFunction, CudaErr> {
        let found = || self.device.get_func(kind.module(), kernel.name(kind));
        if let Some(function) = found() {
            return Ok(function);
        }
        let ptx = nvrtc::compile_ptx(kind.source()).map_err(|error| {
            tracing::error!(%error, "the kernels of the layers do not compile");
            CudaError::Driver(DriverError(CUresult::CUDA_ERROR_INVALID_SOURCE))
        })?;
        self.device.load_ptx(ptx, kind.module(), &names(kind))?;
        Ok(found().ok_or(DriverError(CUresult::CUDA_ERROR_NOT_FOUND))?)
    }

    /// Launches a kernel in dfdx's stream.
    ///
    /// # Safety
    /// `arguments` are those of the kernel, in its order, and the memory that they point to holds
    /// what the kernel reads and writes.
    #[allow(unsafe_code)]
    pub(in crate::layers) unsafe fn launch<P>(
        &self,
        kernel: Kernel,
        kind: Kind,
        Grid(x, y): Grid,
        arguments: P,
    ) -> Result<(), CudaErr>
    where
        CudaFunction: LaunchAsync<P>,
    {
        if x == 0 || y == 0 {
            return Ok(());
        }
        let function = self.function(kernel, kind)?;
        let config =
            LaunchConfig { grid_dim: (x, y, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: as the caller guarantees.
        unsafe { function.launch(config, arguments) }?;
        Ok(())
    }
}

/// cuDNN on this GPU. If there is none, a warning says why, and the layers do without it.
#[cfg(feature = "cudnn")]
fn cudnn(device: &CudaDevice) -> Result<Option<Cudnn>, CudaErr> {
    device.bind_to_thread()?;
    // SAFETY: the stream belongs to the device, and `Gpu` keeps both.
    #[allow(unsafe_code)]
    let cudnn = unsafe { Cudnn::new(device.cu_stream().cast()) };
    let warn = |missing| tracing::warn!(%missing, "no cuDNN, own kernels convolve");
    Ok(cudnn.map_err(warn).ok())
}
