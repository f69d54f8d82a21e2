//! [`Wires`]: what one GPU sends to others and receives from them, by NCCL.
//!
//! There are at most two operations at a time on a GPU: one that sends and one that receives. NCCL
//! makes the operations of one communicator one after the other, on whichever streams they are. So
//! a rank that sends and receives at once needs two communicators, and here each rank has one in
//! which it sends and the others receive. The two operations are on streams of their own: they do
//! not wait for the GPU's other work, and that work does not wait for them.
//!
//! NCCL's manual warns of operations of several communicators at once. Each blocks a part of the
//! GPU until the other rank takes part, and a call of CUDA may wait for all that is on a GPU. So
//! here an operation takes one block and begins when the other rank is there. No memory is
//! allocated or freed while an operation runs, and NCCL makes its connections before the first one.
//!
//! Each communicator is one that does not block: its calls return at once, and are asked later
//! whether they are through. Only then does the stream know of the operation.

use cudarc::{
    driver::{result, sys as cuda, CudaDevice},
    nccl::sys as nccl,
};
use dfdx::tensor::{Cuda, Storage};
use std::{
    ffi::CStr,
    fmt::Debug,
    mem::ManuallyDrop,
    os::raw::{c_char, c_int},
    ptr,
    sync::{
        atomic::{AtomicPtr, Ordering},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

/// The bytes of a piece: a part of a bucket of the default size, and the message's head.
pub(super) const NCCL_PIECE_BYTES: usize = (1 << 20) + 64;

/// What tells NCCL which communicator is meant.
pub(super) type Id = [u8; 128];

/// How long a GPU may take to leave an operation that was given up.
const LEAVING: Duration = Duration::from_secs(2);

pub(super) struct Wires {
    device: Arc<CudaDevice>,
    rank: usize,
    /// For each rank the communicator in which it sends.
    communicators: ManuallyDrop<Vec<Handle>>,
    outward: Channel,
    inward: Channel,
    /// Whether a communicator could not be ended.
    stuck: bool,
}

/// Where NCCL writes the communicator's address: at once, and once more from a thread of its own
/// when the communicator is made. So it must not move until then.
type Handle = Box<AtomicPtr<nccl::ncclComm>>;

/// One direction.
struct Channel {
    stream: cuda::CUstream,
    /// `NCCL_PIECE_BYTES` bytes on the GPU.
    memory: cuda::CUdeviceptr,
    /// The rank in whose communicator an operation is on its way.
    running: Option<usize>,
}

type Said<T> = Result<T, String>;

impl Wires {
    /// The wires of `rank`, which is in no communicator yet.
    pub(super) fn new(device: &Cuda, rank: usize) -> Said<Self> {
        // cudarc's handle of the device, by way of a buffer: see `snapshots/gpu.rs`.
        let buffer = Storage::<f32>::try_alloc_len(device, 1).map_err(cuda_words)?;
        let device = buffer.device();
        device.bind_to_thread().map_err(cuda_words)?;
        // If the second `Channel` cannot be made, the first one stays until the program ends.
        let (outward, inward) = (Channel::new()?, Channel::new()?);
        let communicators = ManuallyDrop::new(Vec::new());
        Ok(Self { device, rank, communicators, outward, inward, stuck: false })
    }

    /// An identity for a new communicator.
    pub(super) fn id() -> Said<Id> {
        let mut id = nccl::ncclUniqueId { internal: [0; 128] };
        // SAFETY: it is NCCL's own type, and NCCL does no more than fill it.
        #[allow(unsafe_code)]
        let result = unsafe { nccl::ncclGetUniqueId(&mut id) };
        check(result, ptr::null_mut())?;
        Ok(id.internal.map(|byte| byte as u8))
    }

    /// Begins to join the next communicator: that of rank 0 first, then that of rank 1 and so on.
    /// [`has_joined`](Self::has_joined) says when it is done.
    pub(super) fn join(&mut self, size: usize, id: &Id) -> Said<()> {
        self.bind()?;
        let number = |number: usize| c_int::try_from(number).map_err(|_| "too many ranks");
        let (size, rank) = (number(size)?, number(self.rank)?);
        let id = nccl::ncclUniqueId { internal: id.map(|byte| byte as c_char) };
        let mut config = config();
        let handle = Handle::default();
        // SAFETY: `config` is filled as NCCL's initializer fills it, and NCCL copies it. It writes
        // to `handle` now and once more when the communicator is made. The handle is on the heap
        // and stays where it is; it is freed only after `Drop` has ended the communicator. All
        // other reads of it are atomic.
        #[allow(unsafe_code)]
        let result =
            unsafe { nccl::ncclCommInitRankConfig(handle.as_ptr(), size, id, rank, &mut config) };
        let address = handle.load(Ordering::Acquire);
        self.communicators.push(handle);
        check(result, address)
    }

    /// Whether this rank is in the communicator of `of` by now.
    pub(super) fn has_joined(&self, of: usize) -> Said<bool> {
        is_through(self.communicator(of)?)
    }

    /// Begins to send a piece. It is copied before this returns.
    pub(super) fn send(&mut self, to: usize, piece: &[u8]) -> Said<()> {
        self.bind()?;
        let communicator = self.communicator(self.rank)?;
        let to = c_int::try_from(to).map_err(|_| "too many ranks")?;
        if self.outward.running.is_some() || piece.len() > NCCL_PIECE_BYTES {
            return Err("a piece is on its way already, or this one is too long".to_owned());
        }
        let Channel { stream, memory, .. } = self.outward;
        // SAFETY: `memory` has room for `NCCL_PIECE_BYTES`, and `piece` has no more. No operation
        // reads it: the last one is through, which `running` says. The stream has nothing but this
        // copy, which is waited for, so `piece` is borrowed for long enough. NCCL then reads
        // `memory`, which is neither written nor freed before the operation is through.
        #[allow(unsafe_code)]
        let result = unsafe {
            result::memcpy_htod_async(memory, piece, stream).map_err(cuda_words)?;
            result::stream::synchronize(stream).map_err(cuda_words)?;
            let (from, kind) = (memory as *const _, nccl::ncclDataType_t::ncclUint8);
            nccl::ncclSend(from, piece.len(), kind, to, communicator, stream.cast())
        };
        self.outward.running = Some(self.rank);
        check(result, communicator)
    }

    /// Begins to receive a piece of `len` bytes.
    pub(super) fn receive(&mut self, from: usize, len: usize) -> Said<()> {
        self.bind()?;
        let communicator = self.communicator(from)?;
        let number = c_int::try_from(from).map_err(|_| "too many ranks")?;
        if self.inward.running.is_some() || len > NCCL_PIECE_BYTES {
            return Err("a piece is on its way already, or this one is too long".to_owned());
        }
        let Channel { stream, memory, .. } = self.inward;
        // SAFETY: `memory` has room for `NCCL_PIECE_BYTES`, which are at least `len`. It is neither
        // read, written nor freed before the operation is through, which `running` says.
        #[allow(unsafe_code)]
        let result = unsafe {
            let (to, kind) = (memory as *mut _, nccl::ncclDataType_t::ncclUint8);
            nccl::ncclRecv(to, len, kind, number, communicator, stream.cast())
        };
        self.inward.running = Some(from);
        check(result, communicator)
    }

    /// Whether this rank's part of the piece that was sent last is done.
    pub(super) fn has_sent(&mut self) -> Said<bool> {
        let done = self.is_done(&self.outward)?;
        if done {
            self.outward.running = None;
        }
        Ok(done)
    }

    /// Whether the piece that is received is all there. It then is copied to `piece`.
    pub(super) fn has_received(&mut self, piece: &mut [u8]) -> Said<bool> {
        if !self.is_done(&self.inward)? {
            return Ok(false);
        }
        let Channel { stream, memory, .. } = self.inward;
        let piece = piece.get_mut(..NCCL_PIECE_BYTES.min(piece.len())).unwrap_or_default();
        // SAFETY: `memory` has at least as many bytes as `piece`, and no operation writes to them:
        // it is through. The stream has nothing but this copy, which is waited for, so `piece` is
        // borrowed for long enough.
        #[allow(unsafe_code)]
        unsafe {
            result::memcpy_dtoh_async(piece, memory, stream).map_err(cuda_words)?;
            result::stream::synchronize(stream).map_err(cuda_words)?;
        }
        self.inward.running = None;
        Ok(true)
    }

    fn is_done(&self, channel: &Channel) -> Said<bool> {
        let Some(of) = channel.running else { return Ok(true) };
        self.bind()?;
        // The stream knows of the operation only when NCCL is through with the call.
        Ok(is_through(self.communicator(of)?)? && channel.is_idle()?)
    }

    fn communicator(&self, of: usize) -> Said<nccl::ncclComm_t> {
        let found = self.communicators.get(of).map(|handle| handle.load(Ordering::Acquire));
        found.filter(|address| !address.is_null()).ok_or_else(|| "there is no link".to_owned())
    }

    /// Makes this GPU the one that CUDA calls of the calling thread act on.
    fn bind(&self) -> Said<()> {
        self.device.bind_to_thread().map_err(cuda_words)
    }

    /// Ends all communicators, and with them their operations on the GPU, which would otherwise
    /// wait for the other rank for ever. Returns whether all have ended.
    pub(super) fn hang_up(&mut self) -> bool {
        let mut all = self.bind().is_ok() && !self.stuck;
        for handle in self.communicators.iter() {
            let address = handle.swap(ptr::null_mut(), Ordering::AcqRel);
            if address.is_null() {
                continue;
            }
            // SAFETY: NCCL has made it and it was not ended before: its address is taken out of
            // the handle here, and nowhere else.
            #[allow(unsafe_code)]
            let result = unsafe { nccl::ncclCommAbort(address) };
            all &= result == nccl::ncclResult_t::ncclSuccess;
            // If it was still being made, NCCL may have written it once more.
            handle.store(ptr::null_mut(), Ordering::Release);
        }
        // It is not asked for again: the address is forgotten.
        self.stuck = !all;
        all
    }
}

/// The communicators are destroyed. No message has to be sent before: when a program ends in order,
/// all pieces have been received and their arrival confirmed, so no rank waits in one of them.
impl Drop for Wires {
    fn drop(&mut self) {
        let ended = self.hang_up();
        let until = Instant::now() + LEAVING;
        let idle = |channel: &Channel| loop {
            match channel.is_idle() {
                Ok(true) => return true,
                Ok(false) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
                _ => return false,
            }
        };
        if !ended || !idle(&self.outward) || !idle(&self.inward) {
            // The GPU may still read or write the memory, and NCCL the handles: they are left to
            // the end of the program.
            return;
        }
        for channel in [&self.outward, &self.inward] {
            // SAFETY: both come from `Channel::new`, and are freed here and nowhere else. The
            // stream has nothing left to do, so nothing uses the memory.
            #[allow(unsafe_code)]
            let _ = unsafe {
                (result::free_sync(channel.memory), result::stream::destroy(channel.stream))
            };
        }
        // SAFETY: they are dropped here and nowhere else, and not used after that. Every
        // communicator has ended, so NCCL writes to no handle.
        #[allow(unsafe_code)]
        unsafe {
            ManuallyDrop::drop(&mut self.communicators);
        }
    }
}

impl Channel {
    fn new() -> Said<Self> {
        let kind = result::stream::StreamKind::NonBlocking;
        let stream = result::stream::create(kind).map_err(cuda_words)?;
        // This memory does not come from cudarc's pool. NCCL may let one GPU write to the memory of
        // another one, which is not possible with memory of a pool. SAFETY: the bytes are written
        // before they are read: by a copy, or by NCCL.
        #[allow(unsafe_code)]
        let memory = unsafe { result::malloc_sync(NCCL_PIECE_BYTES) }.map_err(cuda_words)?;
        Ok(Self { stream, memory, running: None })
    }

    fn is_idle(&self) -> Said<bool> {
        // SAFETY: the stream is one that `new` has made, and it is destroyed only with `Wires`.
        #[allow(unsafe_code)]
        match unsafe { cuda::cuStreamQuery(self.stream) } {
            cuda::CUresult::CUDA_SUCCESS => Ok(true),
            cuda::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            error => Err(cuda_words(error)),
        }
    }
}

/// The configuration that NCCL's own initializer makes in version 2.18.1, which is the version of
/// this type, but for three settings: calls do not block, and an operation takes one block of a
/// GPU. So two of them find room beside anything else.
fn config() -> nccl::ncclConfig_t {
    nccl::ncclConfig_t {
        size: size_of::<nccl::ncclConfig_t>(),
        magic: 0xcafe_beef,
        version: 21_801,
        blocking: 0,
        cgaClusterSize: c_int::MIN,
        minCTAs: 1,
        maxCTAs: 1,
        netName: ptr::null(),
        splitShare: c_int::MIN,
    }
}

/// Whether a communicator is through with the last call.
fn is_through(communicator: nccl::ncclComm_t) -> Said<bool> {
    let mut state = nccl::ncclResult_t::ncclSuccess;
    // SAFETY: the communicator was made by NCCL and has not ended: `Wires` forgets its address when
    // it ends it. NCCL writes a result to `state`.
    #[allow(unsafe_code)]
    let result = unsafe { nccl::ncclCommGetAsyncError(communicator, &mut state) };
    check(result, communicator)?;
    check(state, communicator)?;
    Ok(state == nccl::ncclResult_t::ncclSuccess)
}

/// Takes the place of cudarc's own check, which takes a code for a success that is a failure in
/// later versions of NCCL.
fn check(result: nccl::ncclResult_t, communicator: nccl::ncclComm_t) -> Said<()> {
    use nccl::ncclResult_t::{ncclInProgress, ncclSuccess};
    if matches!(result, ncclSuccess | ncclInProgress) {
        return Ok(());
    }
    // SAFETY: NCCL gives back null or a text that ends with 0 and stays for as long as the program.
    // It is copied at once, before another call can change it.
    #[allow(unsafe_code)]
    let words = unsafe {
        let text = nccl::ncclGetLastError(communicator);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(match words.filter(|words| !words.is_empty()) {
        Some(words) => format!("NCCL: {result:?}: {}", words.trim_end()),
        None => format!("NCCL: {result:?}; with NCCL_DEBUG=WARN it says more"),
    })
}

fn cuda_words(error: impl Debug) -> String {
    format!("CUDA: {error:?}")
}
