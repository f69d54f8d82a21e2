//! Snapshots in a GPU's memory. CUDA kernels do what [`products`](super::products) does on the
//! host.

use super::{
    launch::{kernels, names, KernelName, Kernels, Launch, Row},
    resident::Resident,
};
use crate::{
    engine::WindowProducts,
    error::{DeviceError, Error},
    tensors::{device_error, Elements},
};
use cudarc::{
    driver::{CudaDevice, CudaFunction, CudaSlice, DevicePtr, DevicePtrMut, DeviceSlice},
    nvrtc,
};
use dfdx::{
    shapes::Dtype,
    tensor::{Cuda, Storage},
};
use std::{fmt::Debug, marker::PhantomData, sync::Arc};

const SOURCE: &str = concat!(include_str!("window.cu"), include_str!("half.cu"));
const MODULE: &str = "tlr_window";

pub(super) fn failed(error: impl Debug + 'static) -> Error {
    device_error(format!("{error:?}"), &error)
}

/// Allocates `len` zeros in the memory of `device`. `None` if no kernel exists for the element
/// type.
pub(crate) fn zeros<E: Dtype>(device: &Cuda, len: usize) -> Result<Option<CudaSlice<E>>, Error> {
    if kernels::<E>().is_none() {
        return Ok(None);
    }
    // dfdx does not expose cudarc's handle of the device, but each of its buffers does.
    let buffer = Storage::<E>::try_alloc_len(device, 1).map_err(failed)?;
    buffer.device().alloc_zeros(len).map(Some).map_err(failed)
}

/// Copies `values` to new memory on the device of `slice`.
pub(crate) fn beside<E: Dtype>(slice: &CudaSlice<E>, values: &[E]) -> Result<CudaSlice<E>, Error> {
    slice.device().htod_sync_copy(values).map_err(failed)
}

pub(crate) fn read<E: Dtype>(slice: &CudaSlice<E>) -> Result<Vec<E>, Error> {
    slice.device().dtoh_sync_copy(slice).map_err(failed)
}

/// The address of the elements from index `first` on of a tensor, if it is known and `len` of them
/// are there.
fn address<E: Dtype>(from: &Elements<'_, E>, first: usize, len: usize) -> Option<u64> {
    let enough = first.checked_add(len).is_some_and(|end| end <= from.len());
    let address = from.address(from.len()).filter(|_| enough)?;
    Some(address + (first * size_of::<E>()) as u64)
}

/// A copy of `len` elements of a tensor, from index `first` on.
fn copy<E: Dtype>(from: &Elements<'_, E>, first: usize, len: usize) -> Vec<E> {
    from.to_vec().get(first..first + len).unwrap_or_default().to_vec()
}

/// Copies the elements of a tensor from index `first` on into `slice`.
pub(crate) fn take<E: Dtype>(
    slice: &mut CudaSlice<E>,
    from: &Elements<'_, E>,
    first: usize,
) -> Result<(), Error> {
    let device = slice.device();
    let len = slice.len();
    if len == 0 {
        return Ok(());
    }
    let Some(address) = address(from, first, len) else {
        return device.htod_sync_copy_into(&copy(from, first, len), slice).map_err(failed);
    };
    // `from` borrows a tensor with `len` elements at this address, so the copy reads valid memory.
    // dfdx uses the same stream, so the copy runs before anything that dfdx does to the tensor
    // later.
    device.dtod_copy(&Borrowed { address, len, element: PhantomData }, slice).map_err(failed)
}

/// The elements of a tensor that dfdx owns, as the source of a copy.
struct Borrowed<E> {
    address: u64,
    len: usize,
    element: PhantomData<E>,
}

impl<E> DeviceSlice<E> for Borrowed<E> {
    fn len(&self) -> usize {
        self.len
    }
}

impl<E> DevicePtr<E> for Borrowed<E> {
    fn device_ptr(&self) -> &u64 {
        &self.address
    }
}

/// The rows of one kernel launch, each with the addresses of one tensor's snapshots and weights.
pub(crate) struct Rows<'a, E> {
    rows: Vec<Row>,
    device: Option<Arc<CudaDevice>>,
    /// Copies of weights whose address on the GPU is unknown. They live until the kernels have run.
    copies: Vec<CudaSlice<E>>,
    marker: PhantomData<&'a mut E>,
}

impl<'a, E: Dtype> Rows<'a, E> {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), device: None, copies: Vec::new(), marker: PhantomData }
    }

    /// Adds a row with A and B of a part of a tensor, and the elements of W from index `first` on.
    pub(crate) fn shift(
        &mut self,
        group: usize,
        before: &'a mut CudaSlice<E>,
        last: &'a CudaSlice<E>,
        now: &Elements<'_, E>,
        first: usize,
    ) -> Result<(), Error> {
        let before = *before.device_ptr_mut();
        let now = self.address(last, now, first)?;
        self.add(Row { group, before, now, ..Row::default() }, last);
        Ok(())
    }

    /// Adds a row with a snapshot of a part of a tensor, and the elements of W and the gradient
    /// from index `first` on.
    pub(crate) fn way(
        &mut self,
        group: usize,
        from: &'a CudaSlice<E>,
        now: &Elements<'_, E>,
        gradient: &Gradient,
        first: usize,
    ) -> Result<(), Error> {
        if gradient.len != now.len() || from.len() > now.len().saturating_sub(first) {
            return Err(Error::Device(DeviceError::new(
                "a gradient has not the length of its tensor",
            )));
        }
        let gradient = gradient.address + (first * size_of::<E>()) as u64;
        let now = self.address(from, now, first)?;
        self.add(Row { group, now, gradient, ..Row::default() }, from);
        Ok(())
    }

    /// Adds a row with B of a tensor.
    pub(crate) fn square(&mut self, group: usize, last: &'a CudaSlice<E>) {
        self.add(Row { group, ..Row::default() }, last);
    }

    fn add(&mut self, row: Row, last: &'a CudaSlice<E>) {
        self.rows.push(Row { last: *last.device_ptr(), len: last.len(), ..row });
        self.device = Some(last.device());
    }

    /// The address of as many elements of W as B has, from index `first` on.
    fn address(
        &mut self,
        last: &CudaSlice<E>,
        now: &Elements<'_, E>,
        first: usize,
    ) -> Result<u64, Error> {
        if let Some(address) = address(now, first, last.len()) {
            return Ok(address);
        }
        let copy = beside(last, &copy(now, first, last.len()))?;
        let address = *copy.device_ptr();
        self.copies.push(copy);
        Ok(address)
    }

    /// Computes the dot products of each group, and writes W to the memory of A.
    ///
    /// # Safety
    /// The weights given to every call of [`shift`](Self::shift) must still be allocated, and must
    /// not have been written to since. Every row is one of `shift`.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn dots(
        self,
        resident: &mut Resident,
        groups: usize,
    ) -> Result<Vec<WindowProducts>, Error> {
        // SAFETY: every row has A, B and W with `len` elements each. A and B are slices of this
        // length that `self` borrows, A mutably, so nothing else reads or writes A. W are `len`
        // elements of a tensor, and the caller guarantees that it is still there.
        let sums = unsafe { self.sum(resident, |kernels| kernels.shift, groups) }?;
        Ok(sums.into_iter().map(|[across, own]| WindowProducts { across, own }).collect())
    }

    /// Computes ⟨g,d⟩, ‖d‖², ‖g‖² and ‖P‖² of each group, where d = W − P and P is the snapshot.
    ///
    /// # Safety
    /// The weights and gradients given to every call of [`way`](Self::way) must still be allocated,
    /// and must not have been written to since. Every row is one of `way`.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn slopes(
        self,
        resident: &mut Resident,
        groups: usize,
    ) -> Result<Vec<[f64; 4]>, Error> {
        // SAFETY: every row has `len` elements of a snapshot, of W and of a gradient: `way` has
        // compared their lengths. The kernel reads these three and writes to no row. The snapshot
        // is a slice that `self` borrows, and the caller guarantees that the others are still
        // there.
        unsafe { self.sum(resident, |kernels| kernels.slope, groups) }
    }

    /// Computes ‖B‖² of each group.
    pub(crate) fn squares(self, resident: &mut Resident, groups: usize) -> Result<Vec<f64>, Error> {
        // SAFETY: this kernel reads only B of each row, which is a slice of `len` elements that
        // `self` borrows. It writes to no row.
        #[allow(unsafe_code)]
        let sums = unsafe { self.sum(resident, |kernels| kernels.square, groups) }?;
        Ok(sums.into_iter().map(|[square]| square).collect())
    }

    /// Launches a kernel that takes N sums over the rows of each group.
    ///
    /// # Safety
    /// All memory of a row that the kernel reads must hold `len` elements. Nothing else may access
    /// the memory of a row that the kernel writes.
    #[allow(unsafe_code)]
    unsafe fn sum<const N: usize>(
        self,
        resident: &mut Resident,
        kernel: impl FnOnce(&Kernels) -> KernelName<N>,
        groups: usize,
    ) -> Result<Vec<[f64; N]>, Error> {
        let zeros = || Ok(vec![[0.0; N]; groups]);
        let (Some(device), Some(kernels)) = (&self.device, kernels::<E>()) else { return zeros() };
        let Some(launch) = Launch::new(self.rows, groups)? else { return zeros() };
        let kernel = kernel(kernels);
        let function = function(device, kernel.0)?;
        // SAFETY: as the caller guarantees.
        unsafe { resident.sums(device, (kernel, function), launch) }.map_err(failed)
    }
}

/// Where the elements of a gradient are.
pub(crate) struct Gradient {
    pub(crate) address: u64,
    pub(crate) len: usize,
    pub(crate) device: Arc<CudaDevice>,
}

impl Gradient {
    pub(crate) fn of<E>(slice: &CudaSlice<E>) -> Self {
        Self { address: *slice.device_ptr(), len: slice.len(), device: slice.device() }
    }
}

/// Looks up a kernel, after compiling all of them for this device on the first call.
pub(super) fn function(
    device: &Arc<CudaDevice>,
    name: &'static str,
) -> Result<CudaFunction, Error> {
    if !device.has_func(MODULE, name) {
        let ptx = nvrtc::compile_ptx(SOURCE).map_err(failed)?;
        device.load_ptx(ptx, MODULE, &names()).map_err(failed)?;
    }
    device
        .get_func(MODULE, name)
        .ok_or_else(|| Error::Device(DeviceError::new(format!("no kernel `{name}`"))))
}
