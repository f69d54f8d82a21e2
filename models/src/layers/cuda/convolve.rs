//! Convolutions by cuDNN on dfdx's memory and in its stream.

use super::{
    cudnn::{Convolution, Pass},
    gpu::Gpu,
    CudaErr,
};
use cudarc::driver::{sys::CUresult, DriverError};
use dfdx::prelude::CudaError;

#[cfg(test)]
thread_local! {
    /// Whether cuDNN is asked, and how many passes it has done.
    pub(super) static ASKED: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
    pub(super) static DONE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Gpu {
    /// Does a pass of a convolution by cuDNN, which writes `result` or adds to it. `false` if there
    /// is no cuDNN, or no algorithm for this pass: then nothing has been done.
    ///
    /// # Safety
    /// The addresses are those of the pass's operands, in the order that [`Pass`] names them in,
    /// and of its result.
    #[allow(unsafe_code)]
    pub(in crate::layers) unsafe fn convolve(
        &mut self,
        pass: Pass,
        of: &Convolution,
        addresses: [u64; 3],
        added: bool,
    ) -> Result<bool, CudaErr> {
        #[cfg(test)]
        if !ASKED.get() {
            return Ok(false);
        }
        self.device.bind_to_thread()?;
        while let Some(algorithm) = self.cudnn.as_mut().and_then(|dnn| dnn.algorithm(pass, of)) {
            let workspace = self.workspace(algorithm.memory)?;
            let Some(dnn) = &mut self.cudnn else { break };
            // SAFETY: as the caller guarantees, and the workspace has the bytes that the algorithm
            // needs.
            let done = unsafe { dnn.run((pass, of), algorithm, addresses, workspace, added) };
            let failed = |why| {
                tracing::error!(why, ?pass, ?of, "cuDNN has failed");
                CudaError::Driver(DriverError(CUresult::CUDA_ERROR_LAUNCH_FAILED))
            };
            if done.map_err(failed)? {
                #[cfg(test)]
                DONE.set(DONE.get() + 1);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
