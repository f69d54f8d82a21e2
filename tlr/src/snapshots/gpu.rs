//! Snapshots in a GPU's memory. CUDA kernels do what [`products`](super::products) does on the
//! host.

use crate::{engine::WindowProducts, error::Error, tensors::Elements};
use cudarc::{
    driver::{
        CudaDevice, CudaFunction, CudaSlice, DevicePtr, DevicePtrMut, DeviceSlice, LaunchAsync,
        LaunchConfig,
    },
    nvrtc,
};
use dfdx::{
    shapes::Dtype,
    tensor::{Cuda, Storage},
};
use std::{any::TypeId, fmt::Debug, marker::PhantomData, sync::Arc};

const SOURCE: &str = include_str!("window.cu");
const MODULE: &str = "tlr_window";
const TOTAL: &str = "total";
/// `THREADS` and `CHUNK` must equal the constants in `window.cu`.
const THREADS: u32 = 256;
const CHUNK: usize = 4096;

/// The names of the kernels for one element type.
struct Kernels {
    shift: &'static str,
    square: &'static str,
}

macro_rules! kernels {
    ($name:literal) => {
        Kernels { shift: concat!("shift_", $name), square: concat!("square_", $name) }
    };
}

const F32: Kernels = kernels!("f32");
const F64: Kernels = kernels!("f64");
const F16: Kernels = kernels!("f16");

fn kernels<E: 'static>() -> Option<&'static Kernels> {
    let element = TypeId::of::<E>();
    if element == TypeId::of::<f32>() {
        return Some(&F32);
    }
    if element == TypeId::of::<f64>() {
        return Some(&F64);
    }
    #[cfg(feature = "f16")]
    if element == TypeId::of::<half::f16>()
        || element == TypeId::of::<dfdx::dtypes::AMP<half::f16>>()
    {
        return Some(&F16);
    }
    None
}

fn failed(error: impl Debug) -> Error {
    Error::Device(format!("{error:?}"))
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

/// Copies the elements of a tensor into `slice`, which has the same length.
pub(crate) fn take<E: Dtype>(
    slice: &mut CudaSlice<E>,
    from: &Elements<'_, E>,
) -> Result<(), Error> {
    let device = slice.device();
    let len = slice.len();
    let Some(address) = from.address(len) else {
        return device.htod_sync_copy_into(&from.to_vec(), slice).map_err(failed);
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

/// The table of tensors for one kernel launch.
pub(crate) struct Window<'a, E> {
    rows: Vec<Row>,
    device: Option<Arc<CudaDevice>>,
    /// Copies of weights whose address on the GPU is unknown. They live until the kernels have run.
    copies: Vec<CudaSlice<E>>,
    marker: PhantomData<&'a mut E>,
}

/// The addresses of A, B and W of one tensor, each with `len` elements. Unused addresses are 0.
struct Row {
    group: usize,
    before: u64,
    last: u64,
    now: u64,
    len: usize,
}

impl<'a, E: Dtype> Window<'a, E> {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), device: None, copies: Vec::new(), marker: PhantomData }
    }

    /// Adds a row with A, B and W of a tensor.
    pub(crate) fn shift(
        &mut self,
        group: usize,
        before: &'a mut CudaSlice<E>,
        last: &'a CudaSlice<E>,
        now: &Elements<'_, E>,
    ) -> Result<(), Error> {
        let now = match now.address(last.len()) {
            Some(address) => address,
            None => {
                let copy = beside(last, &now.to_vec())?;
                let address = *copy.device_ptr();
                self.copies.push(copy);
                address
            }
        };
        let before = *before.device_ptr_mut();
        self.rows.push(Row { group, before, last: *last.device_ptr(), now, len: last.len() });
        self.device = Some(last.device());
        Ok(())
    }

    /// Adds a row with B of a tensor.
    pub(crate) fn square(&mut self, group: usize, last: &'a CudaSlice<E>) {
        let (before, now) = (0, 0);
        self.rows.push(Row { group, before, last: *last.device_ptr(), now, len: last.len() });
        self.device = Some(last.device());
    }

    /// Computes the dot products of each group, and writes W to the memory of A.
    ///
    /// # Safety
    /// The weights given to every call of [`shift`](Self::shift) must still be allocated, and must
    /// not have been written to since.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn dots(self, groups: usize) -> Result<Vec<WindowProducts>, Error> {
        // SAFETY: every row has A, B and W with `len` elements each. A and B are slices of this
        // length that `self` borrows, A mutably, so nothing else reads or writes A. W is a tensor
        // with `len` elements, and the caller guarantees that it is still there.
        unsafe { self.sum(|kernels| kernels.shift, groups) }
    }

    /// Computes ‖B‖² of each group.
    pub(crate) fn squares(self, groups: usize) -> Result<Vec<f64>, Error> {
        // SAFETY: this kernel reads only B of each row, which is a slice of `len` elements that
        // `self` borrows. It writes to no row.
        #[allow(unsafe_code)]
        let sums = unsafe { self.sum(|kernels| kernels.square, groups) }?;
        Ok(sums.into_iter().map(|dots| dots.own).collect())
    }

    /// Launches a kernel on all rows and adds up the results of each group.
    ///
    /// # Safety
    /// All memory of a row that the kernel reads must hold `len` elements. Nothing else may access
    /// the memory of a row that the kernel writes.
    #[allow(unsafe_code)]
    unsafe fn sum(
        mut self,
        kernel: impl FnOnce(&Kernels) -> &'static str,
        groups: usize,
    ) -> Result<Vec<WindowProducts>, Error> {
        let (Some(device), Some(kernels)) = (&self.device, kernels::<E>()) else {
            return Ok(vec![WindowProducts::default(); groups]);
        };
        self.rows.sort_by_key(|row| row.group);
        let mut table = Vec::with_capacity(5 * self.rows.len());
        let mut first = vec![0; groups + 1];
        let mut blocks = 0;
        for row in &self.rows {
            table.extend([row.before, row.last, row.now, row.len as u64, blocks]);
            blocks += row.len.div_ceil(CHUNK) as u64;
            // All later groups begin after the blocks of this row. Later rows move them further.
            first.iter_mut().skip(row.group + 1).for_each(|first| *first = blocks);
        }
        let config = |blocks: u32| LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        let (Ok(blocks), Ok(grid)) = (u32::try_from(blocks), u32::try_from(groups)) else {
            return Err(Error::Device("more elements than a GPU has blocks for".to_owned()));
        };
        if blocks == 0 || grid == 0 {
            return Ok(vec![WindowProducts::default(); groups]);
        }
        let sum = function(device, kernel(kernels))?;
        let total = function(device, TOTAL)?;
        let run = || {
            let table = device.htod_sync_copy(&table)?;
            let first = device.htod_sync_copy(&first)?;
            let mut sums = device.alloc_zeros::<f64>(2 * blocks as usize)?;
            let mut totals = device.alloc_zeros::<f64>(2 * groups)?;
            // SAFETY: the caller guarantees the memory of each row. A block of `sum` finds
            // its row in `table`, whose length it is given, and writes two numbers to `sums`, which
            // has room for two per block. A block of `total` reads its own and the next entry of
            // `first`, which has one entry more than there are groups. It reads the sums between
            // these entries, all below `blocks`, and writes two numbers to `totals`, which has room
            // for two per group. The kernels run one after the other in the same stream, and all
            // memory allocated here is freed after them in that stream.
            unsafe {
                sum.launch(config(blocks), (&table, self.rows.len() as u64, &mut sums))?;
                total.launch(config(grid), (&sums, &first, &mut totals))?;
            }
            device.dtoh_sync_copy(&totals)
        };
        let totals = run().map_err(failed)?;
        let (totals, _) = totals.as_chunks::<2>();
        Ok(totals.iter().map(|&[across, own]| WindowProducts { across, own }).collect())
    }
}

/// Looks up a kernel, after compiling all of them for this device on the first call.
fn function(device: &Arc<CudaDevice>, name: &'static str) -> Result<CudaFunction, Error> {
    if !device.has_func(MODULE, name) {
        let ptx = nvrtc::compile_ptx(SOURCE).map_err(failed)?;
        let names = [F32, F64, F16].map(|kernels| [kernels.shift, kernels.square]);
        let names = [names.as_flattened(), &[TOTAL]].concat();
        device.load_ptx(ptx, MODULE, &names).map_err(failed)?;
    }
    device.get_func(MODULE, name).ok_or_else(|| Error::Device(format!("no kernel `{name}`")))
}
