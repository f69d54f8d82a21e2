//! Copies between a model and its master in f32, in a GPU's memory.

pub(crate) use super::gradients::on_gpu;
use super::{
    gpu::{failed, function},
    launch::{kernels, KernelName, Launch, Row},
    resident::Resident,
};
use crate::error::Error;
use cudarc::driver::CudaDevice;
use std::sync::Arc;

/// A copy of `len` elements from one address to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) len: usize,
}

/// What a kernel has found out about one tensor's gradient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) is_zero: bool,
    pub(crate) is_finite: bool,
}

/// What one model's copies keep from one launch to the next.
#[derive(Debug, Default)]
pub(crate) struct Converter {
    resident: Resident,
    device: Option<Arc<CudaDevice>>,
}

impl Converter {
    /// Writes the gradients of a model, times `factor`, to the gradients of its master. The answer
    /// has what was seen of each tensor's gradient. `None` if no kernel exists for `E`.
    ///
    /// # Safety
    /// The sources hold elements of type `E`, and nothing else has the memory that is written.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn unscale<E: 'static>(
        &mut self,
        device: Arc<CudaDevice>,
        copies: &[Transfer],
        factor: f32,
    ) -> Result<Option<Vec<Seen>>, Error> {
        let Some(kernels) = kernels::<E>() else { return Ok(None) };
        let seen = |[others, infinite]: [f64; 2]| Seen {
            is_zero: others == 0.0,
            is_finite: infinite == 0.0,
        };
        let factor = u64::from(factor.to_bits());
        let rows = rows(copies).map(|row| Row { now: factor, ..row }).collect();
        let Some(launch) = Launch::new(rows, copies.len())? else {
            return Ok(Some(vec![seen([0.0; 2]); copies.len()]));
        };
        let kernel = (kernels.unscale, function(&device, kernels.unscale.0)?);
        // SAFETY: as the caller guarantees. The kernel reads from the address that a row has for B,
        // and writes to the one for A. In the place of W's address a row has the factor.
        let sums = unsafe { self.resident.sums(&device, kernel, launch) }.map_err(failed)?;
        self.device = Some(device);
        Ok(Some(sums.into_iter().map(seen).collect()))
    }

    /// Copies elements of type `E` to the master, as f32. `false` if no kernel exists for `E`, or
    /// before the first [`unscale`](Self::unscale).
    ///
    /// # Safety
    /// As for [`unscale`](Self::unscale).
    #[allow(unsafe_code)]
    pub(crate) unsafe fn widen<E: 'static>(&mut self, copies: &[Transfer]) -> Result<bool, Error> {
        // SAFETY: as the caller guarantees.
        unsafe { self.copy(kernels::<E>().map(|kernels| kernels.widen), copies) }
    }

    /// Copies elements of the master, rounded to type `E`. `false` as for [`widen`](Self::widen).
    ///
    /// # Safety
    /// The sources hold elements in f32, and nothing else has the memory that is written.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn narrow<E: 'static>(&mut self, copies: &[Transfer]) -> Result<bool, Error> {
        // SAFETY: as the caller guarantees.
        unsafe { self.copy(kernels::<E>().map(|kernels| kernels.narrow), copies) }
    }

    /// # Safety
    /// The kernel is one of those in `half.cu` that take no sums. Each source holds the elements
    /// that the kernel reads, and nothing else has the memory that it writes.
    #[allow(unsafe_code)]
    unsafe fn copy(
        &mut self,
        kernel: Option<KernelName<1>>,
        copies: &[Transfer],
    ) -> Result<bool, Error> {
        let (Some(kernel), Some(device)) = (kernel, &self.device) else { return Ok(false) };
        let Some(launch) = Launch::new(rows(copies).collect(), copies.len())? else {
            return Ok(true);
        };
        let kernel = (kernel, function(device, kernel.0)?);
        // SAFETY: as the caller guarantees.
        unsafe { self.resident.launch(device, kernel, launch) }.map_err(failed)?;
        Ok(true)
    }
}

/// A row for each copy, and a group for each row.
fn rows(copies: &[Transfer]) -> impl Iterator<Item = Row> {
    let row = |(group, copy): (usize, &Transfer)| Row {
        group,
        before: copy.to,
        last: copy.from,
        len: copy.len,
        ..Row::default()
    };
    copies.iter().enumerate().map(row)
}
