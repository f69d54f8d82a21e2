//! What a GPU keeps from one launch to the next: the tables of addresses, and room for sums.

use super::launch::{KernelName, Launch, THREADS};
use cudarc::driver::{
    sys, CudaDevice, CudaFunction, CudaSlice, DevicePtr, DeviceSlice, DriverError, LaunchAsync,
    LaunchConfig,
};
use std::{ffi::c_void, ptr, slice, sync::Arc};

/// The most sums that a kernel takes over a group.
const MOST_SUMS: usize = 4;
/// How many tables of one kernel are kept. A and B swap their memory at the end of each window, so
/// a kernel sees one of two sets of addresses.
const TABLES: usize = 2;

/// What is kept for the snapshots of one model. `None` before the first launch.
#[derive(Debug, Default)]
pub(crate) struct Resident(Option<Room>);

impl Resident {
    /// Launches a kernel once, and waits for the sums of each group.
    ///
    /// # Safety
    /// All memory of the launch's table that the kernel reads must hold as many elements as the
    /// table says. Nothing else may access the memory that the kernel writes.
    #[allow(unsafe_code)]
    pub(super) unsafe fn sums<const N: usize>(
        &mut self,
        device: &Arc<CudaDevice>,
        kernel: (KernelName<N>, CudaFunction),
        launch: Launch,
    ) -> Result<Vec<[f64; N]>, DriverError> {
        // SAFETY: as the caller guarantees.
        self.with_room(device, launch, |room, launch| unsafe { room.sums(kernel, launch) })
    }

    /// Launches a kernel that takes no sums, and does not wait for it.
    ///
    /// # Safety
    /// As for [`sums`](Self::sums).
    #[allow(unsafe_code)]
    pub(super) unsafe fn launch<const N: usize>(
        &mut self,
        device: &Arc<CudaDevice>,
        kernel: (KernelName<N>, CudaFunction),
        launch: Launch,
    ) -> Result<(), DriverError> {
        // SAFETY: as the caller guarantees.
        self.with_room(device, launch, |room, launch| unsafe { room.launch(kernel, launch) })
    }

    /// Does something with room that is enough for the launch.
    fn with_room<T>(
        &mut self,
        device: &Arc<CudaDevice>,
        launch: Launch,
        work: impl FnOnce(&mut Room, Launch) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let room = match self.0.take().filter(|room| room.is_enough(device, &launch)) {
            Some(room) => room,
            None => Room::new(device, &launch)?,
        };
        let done = work(self.0.insert(room), launch);
        if done.is_err() {
            // A launch may have been left half-way, with counts that are not 0. What it still
            // writes to is freed only after it.
            let _ = device.synchronize();
            self.0 = None;
        }
        done
    }
}

/// A table of addresses on the GPU, and the same on the host, to compare with.
#[derive(Debug)]
struct Table {
    kernel: &'static str,
    words: Vec<u64>,
    on_gpu: CudaSlice<u64>,
}

#[derive(Debug)]
struct Room {
    device: Arc<CudaDevice>,
    /// The table that was used last comes last.
    tables: Vec<Table>,
    /// Up to [`MOST_SUMS`] numbers a block.
    blocks: CudaSlice<f64>,
    /// How many blocks of each group are through: 0 between two launches.
    ended: CudaSlice<u32>,
    /// Up to [`MOST_SUMS`] numbers a group.
    groups: CudaSlice<f64>,
    /// The memory of the host in which the numbers of the groups arrive.
    landing: Landing,
}

impl Room {
    fn new(device: &Arc<CudaDevice>, launch: &Launch) -> Result<Self, DriverError> {
        Ok(Self {
            device: device.clone(),
            tables: Vec::new(),
            blocks: device.alloc_zeros(MOST_SUMS * launch.blocks as usize)?,
            ended: device.alloc_zeros(launch.groups)?,
            groups: device.alloc_zeros(MOST_SUMS * launch.groups)?,
            landing: Landing::new(device, MOST_SUMS * launch.groups)?,
        })
    }

    fn is_enough(&self, device: &Arc<CudaDevice>, launch: &Launch) -> bool {
        self.device.cu_device() == device.cu_device()
            && self.ended.len() >= launch.groups
            && self.blocks.len() >= MOST_SUMS * launch.blocks as usize
    }

    /// See [`Resident::sums`].
    ///
    /// # Safety
    /// As there.
    #[allow(unsafe_code)]
    unsafe fn sums<const N: usize>(
        &mut self,
        kernel: (KernelName<N>, CudaFunction),
        launch: Launch,
    ) -> Result<Vec<[f64; N]>, DriverError> {
        let groups: Vec<_> = (0..launch.groups).map(|group| launch.has_blocks(group)).collect();
        // SAFETY: as the caller guarantees.
        unsafe { self.launch(kernel, launch) }?;
        let sums = self.landing.fetch(&self.device, &self.groups, N * groups.len())?;
        let (sums, _) = sums.as_chunks::<N>();
        let of_group = |(sums, written): (&[f64; N], bool)| if written { *sums } else { [0.0; N] };
        Ok(sums.iter().zip(groups).map(of_group).collect())
    }

    /// See [`Resident::launch`].
    ///
    /// # Safety
    /// As for [`Resident::sums`].
    #[allow(unsafe_code)]
    unsafe fn launch<const N: usize>(
        &mut self,
        (KernelName(name), function): (KernelName<N>, CudaFunction),
        launch: Launch,
    ) -> Result<(), DriverError> {
        self.bring(name, launch.table)?;
        let Some(table) = self.tables.last() else { return Ok(()) };
        let config = LaunchConfig {
            grid_dim: (launch.blocks, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        let table = &table.on_gpu;
        let work = (table, launch.tensors, &mut self.blocks, &mut self.ended, &mut self.groups);
        // SAFETY: the caller guarantees the memory of each row. A block finds its row in the table,
        // whose length it is given, and writes N of the up to `MOST_SUMS` numbers that `blocks` has
        // room for. It counts itself in `ended`, at the group of its row, which is below the number
        // of groups. The last block of a group reads the sums between two of the numbers behind the
        // rows, all at most the number of blocks, and writes N numbers to `groups`. Nothing else
        // uses this memory, and all of it is freed in the order of the stream.
        unsafe { function.launch(config, work) }
    }

    /// Makes sure that the last table is this one. The table is copied to the GPU only if it is not
    /// there yet.
    fn bring(&mut self, kernel: &'static str, words: Vec<u64>) -> Result<(), DriverError> {
        let of_kernel = |table: &Table| table.kernel == kernel;
        let same = |table: &Table| of_kernel(table) && table.words == words;
        if let Some(known) = self.tables.iter().position(same) {
            let table = self.tables.remove(known);
            self.tables.push(table);
            return Ok(());
        }
        let full = self.tables.iter().filter(|table| of_kernel(table)).count() == TABLES;
        let oldest = self.tables.iter().position(of_kernel).filter(|_| full);
        let oldest = oldest.map(|oldest| self.tables.remove(oldest).on_gpu);
        // Neither copy is waited for: the slice keeps what is copied, and the launch comes after it
        // in the stream. The memory that an older copy was made from may be freed: CUDA has copied
        // pageable memory like this before the call returns, to the GPU or to memory of its own.
        let on_gpu = match oldest.filter(|on_gpu| on_gpu.len() == words.len()) {
            Some(mut on_gpu) => {
                self.device.htod_copy_into(words.clone(), &mut on_gpu)?;
                on_gpu
            }
            None => self.device.htod_copy(words.clone())?,
        };
        self.tables.push(Table { kernel, words, on_gpu });
        Ok(())
    }
}

/// Memory of the host that a GPU writes to by itself, while the host goes on.
#[derive(Debug)]
struct Landing {
    device: Arc<CudaDevice>,
    at: *mut f64,
    len: usize,
}

// SAFETY: the memory belongs to the whole program, and `fetch` has it by `&mut`.
#[allow(unsafe_code)]
unsafe impl Send for Landing {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Landing {}

impl Landing {
    fn new(device: &Arc<CudaDevice>, len: usize) -> Result<Self, DriverError> {
        device.bind_to_thread()?;
        let mut at: *mut c_void = ptr::null_mut();
        // SAFETY: the driver writes an address to `at`, of memory for `len` numbers.
        #[allow(unsafe_code)]
        unsafe { sys::cuMemHostAlloc(&mut at, len * size_of::<f64>(), 0) }.result()?;
        Ok(Self { device: device.clone(), at: at.cast(), len })
    }

    /// The first `len` numbers of `from`, once all that was launched before is done. This is the
    /// only wait of a launch.
    fn fetch(
        &mut self,
        device: &Arc<CudaDevice>,
        from: &CudaSlice<f64>,
        len: usize,
    ) -> Result<Vec<f64>, DriverError> {
        let len = len.min(self.len).min(from.len());
        device.bind_to_thread()?;
        // SAFETY: there are `len` numbers at both ends. Nobody looks at `at` or frees it until the
        // copy is done: this function has it by `&mut`, and waits, as the caller does if it fails.
        #[allow(unsafe_code)]
        unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                self.at.cast(),
                *from.device_ptr(),
                len * size_of::<f64>(),
                *device.cu_stream(),
            )
        }
        .result()?;
        device.synchronize()?;
        // SAFETY: the copy has written these numbers, and is done.
        #[allow(unsafe_code)]
        let numbers = unsafe { slice::from_raw_parts(self.at, len) };
        Ok(numbers.to_vec())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // An error could only be ignored: the memory then stays with the program.
        if self.device.bind_to_thread().is_ok() {
            // SAFETY: the driver has given this memory to `new`, and nothing is written to it now.
            #[allow(unsafe_code)]
            let _ = unsafe { sys::cuMemFreeHost(self.at.cast()) };
        }
    }
}
