//! Convolutions by cuDNN: their descriptors, and which algorithm they are done by.

use super::library::{Candidate, Handle, Kept, Library, Missing, OfPass, Raw, Status, NAMES};
use crate::layers::cuda::launch::Kind;
use std::{
    collections::BTreeMap,
    ffi::{c_int, c_void},
    ptr,
};

/// An algorithm that needs more bytes than this for itself is not taken. The limit is not the
/// memory that is free at the moment: then another algorithm might be taken in the next run, and
/// round otherwise.
const MOST_MEMORY: usize = 1 << 30;
/// More candidates than cuDNN has for any pass.
const CANDIDATES: usize = 16;

/// A pass of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers) enum Pass {
    /// The outputs, from images and filters.
    Forward = 0,
    /// The images' gradient, from the filters and the outputs' gradient.
    Images = 1,
    /// The filters' gradient, from the images and the outputs' gradient.
    Filters = 2,
}

/// A convolution as cuDNN takes it: the sizes of PyTorch's layout, in the order of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::layers) struct Convolution {
    pub(in crate::layers) precision: Precision,
    pub(in crate::layers) images: [c_int; 4],
    pub(in crate::layers) filters: [c_int; 4],
    pub(in crate::layers) outputs: [c_int; 4],
    pub(in crate::layers) padding: c_int,
    pub(in crate::layers) stride: c_int,
    pub(in crate::layers) dilation: c_int,
    pub(in crate::layers) groups: c_int,
}

/// The types of the elements. Their products are summed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::layers) enum Precision {
    F32,
    F16,
}

impl Precision {
    /// `None` for the types that our own kernels take.
    pub(in crate::layers) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::F32 => Some(Self::F32),
            Kind::F16 => Some(Self::F16),
            Kind::F64 => None,
        }
    }

    /// cuDNN's numbers for the element type, and for the arithmetic that it may use. f32 stays f32,
    /// as with cuBLAS: TF32 has no more digits than f16. f16 may use tensor cores, whose products
    /// of f16 are exact.
    fn numbers(self) -> (c_int, c_int) {
        const TENSOR_OP_MATH: c_int = 1;
        const FMA_MATH: c_int = 3;
        match self {
            Self::F32 => (FLOAT, FMA_MATH),
            Self::F16 => (2, TENSOR_OP_MATH),
        }
    }
}

/// `CUDNN_DATA_FLOAT`.
const FLOAT: c_int = 0;

/// An algorithm by cuDNN's number, and the bytes that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layers::cuda) struct Algorithm {
    number: c_int,
    pub(in crate::layers::cuda) memory: usize,
}

/// A descriptor, which is destroyed when this is dropped.
#[derive(Debug)]
struct Descriptor {
    raw: Raw,
    kept: Kept,
}

impl Descriptor {
    #[allow(unsafe_code)]
    fn new(kept: Kept) -> Result<Self, Status> {
        let mut raw = ptr::null_mut();
        // SAFETY: the call writes an address, or fails.
        let status = unsafe { (kept.make)(&mut raw) };
        status.ok().map(|()| Self { raw, kept })
    }
}

impl Drop for Descriptor {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the descriptor was made, and nobody else destroys it. There is nothing to do
        // about an error.
        unsafe { (self.kept.unmake)(self.raw) };
    }
}

/// A convolution's descriptors, and the algorithms of its passes, the fastest first. The algorithms
/// of a pass are looked for when it is first done.
#[derive(Debug)]
struct Known {
    images: Descriptor,
    filters: Descriptor,
    outputs: Descriptor,
    convolution: Descriptor,
    algorithms: [Option<Vec<Algorithm>>; 3],
}

impl Known {
    #[allow(unsafe_code)]
    fn new(library: &Library, of: &Convolution) -> Result<Self, Status> {
        const NCHW: c_int = 0;
        const CROSS_CORRELATION: c_int = 1;
        let (dtype, math) = of.precision.numbers();
        let images = Descriptor::new(library.tensors)?;
        let filters = Descriptor::new(library.filters)?;
        let outputs = Descriptor::new(library.tensors)?;
        let convolution = Descriptor::new(library.convolutions)?;
        let Convolution { padding, stride, dilation, .. } = *of;
        // SAFETY: the descriptors are there, and of the kinds that these functions take.
        unsafe {
            for (tensor, [n, c, h, w]) in [(&images, of.images), (&outputs, of.outputs)] {
                (library.set_tensor)(tensor.raw, NCHW, dtype, n, c, h, w).ok()?;
            }
            let [k, c, h, w] = of.filters;
            (library.set_filters)(filters.raw, dtype, NCHW, k, c, h, w).ok()?;
            (library.set_convolution)(
                convolution.raw,
                padding,
                padding,
                stride,
                stride,
                dilation,
                dilation,
                CROSS_CORRELATION,
                FLOAT,
            )
            .ok()?;
            (library.set_groups)(convolution.raw, of.groups).ok()?;
            (library.set_math)(convolution.raw, math).ok()?;
        }
        Ok(Self { images, filters, outputs, convolution, algorithms: [None, None, None] })
    }

    /// The descriptors of the two operands that a pass reads, and of the one that it writes.
    fn operands(&self, pass: Pass) -> [Raw; 3] {
        let (images, filters, outputs) = (self.images.raw, self.filters.raw, self.outputs.raw);
        match pass {
            Pass::Forward => [images, filters, outputs],
            Pass::Images => [filters, outputs, images],
            Pass::Filters => [images, outputs, filters],
        }
    }

    /// The algorithms that give the same bits in every run and need no more than [`MOST_MEMORY`].
    /// cuDNN orders them by what it knows of GPUs, and measures nothing: so the next run takes the
    /// same one.
    #[allow(unsafe_code)]
    fn choose(&self, handle: Handle, of: &OfPass, pass: Pass) -> Result<Vec<Algorithm>, Status> {
        const DETERMINISTIC: c_int = 1;
        let [first, second, to] = self.operands(pass);
        let convolution = self.convolution.raw;
        let mut candidates = [Candidate::NONE; CANDIDATES];
        let mut found = 0;
        // SAFETY: handle and descriptors are there, and there is room for as many candidates.
        unsafe {
            (of.choose)(
                handle,
                first,
                second,
                convolution,
                to,
                CANDIDATES as c_int,
                &mut found,
                candidates.as_mut_ptr(),
            )
        }
        .ok()?;
        let found = candidates.iter().take(usize::try_from(found).unwrap_or_default());
        let good = found.filter(|one| one.status.ok().is_ok() && one.determinism == DETERMINISTIC);
        let algorithms = good.filter_map(|one| {
            let (number, mut memory) = (one.algorithm, 0);
            // The memory that the algorithm needs with this descriptor. This call fails if the
            // algorithm would.
            // SAFETY: as above.
            let status = unsafe {
                (of.workspace)(handle, first, second, convolution, to, number, &mut memory)
            };
            (status.ok().is_ok() && memory <= MOST_MEMORY).then_some(Algorithm { number, memory })
        });
        Ok(algorithms.collect())
    }
}

/// cuDNN on a GPU.
#[derive(Debug)]
pub(in crate::layers::cuda) struct Cudnn {
    /// The convolutions that have been asked for; `None` if cuDNN refuses one. Its descriptors are
    /// destroyed before the handle and the library.
    known: BTreeMap<Convolution, Option<Known>>,
    handle: Handle,
    library: Library,
}

// SAFETY: handle and descriptors may be used on any thread, by one at a time.
#[allow(unsafe_code)]
unsafe impl Send for Cudnn {}

impl Cudnn {
    /// Loads cuDNN for the GPU that the thread is bound to. cuDNN's work goes to the stream.
    ///
    /// # Safety
    /// The stream is of this GPU, and stays.
    #[allow(unsafe_code)]
    pub(in crate::layers::cuda) unsafe fn new(stream: *mut c_void) -> Result<Self, Missing> {
        let library = Library::open(&NAMES)?;
        let mut handle = ptr::null_mut();
        // SAFETY: the call writes an address, or fails.
        let made = unsafe { (library.create)(&mut handle) };
        made.ok().map_err(|status| Missing::Failed(library.words(status)))?;
        let cudnn = Self { known: BTreeMap::new(), handle, library };
        // SAFETY: the handle is there, and so is the stream, as the caller guarantees.
        let set = unsafe { (cudnn.library.set_stream)(handle, stream) };
        set.ok().map_err(|status| Missing::Failed(cudnn.library.words(status)))?;
        Ok(cudnn)
    }

    /// The algorithm of a pass. `None` if cuDNN has none to offer.
    pub(in crate::layers::cuda) fn algorithm(
        &mut self,
        pass: Pass,
        of: &Convolution,
    ) -> Option<Algorithm> {
        let (library, handle) = (&self.library, self.handle);
        let known = self.known.entry(*of).or_insert_with(|| {
            let refused = |status| tracing::debug!(?of, why = library.words(status), "not cuDNN's");
            Known::new(library, of).map_err(refused).ok()
        });
        let known = known.as_mut()?;
        let place = pass as usize;
        if known.algorithms[place].is_none() {
            let chosen = known.choose(handle, &library.passes[place], pass);
            let refused = |status| {
                tracing::debug!(?of, ?pass, why = library.words(status), "no algorithm");
                Vec::new()
            };
            known.algorithms[place] = Some(chosen.unwrap_or_else(refused));
        }
        known.algorithms[place].as_ref()?.first().copied()
    }

    /// Does a pass, by the algorithm that was named for it. The result is written, or added to what
    /// is there. `false` if cuDNN refuses the algorithm: then it has done nothing, and will not
    /// name it again.
    ///
    /// # Errors
    /// What cuDNN says of a failure.
    ///
    /// # Safety
    /// The addresses are those of the pass's operands, the last of which is written. The workspace
    /// has as many bytes as the algorithm needs.
    #[allow(unsafe_code)]
    pub(in crate::layers::cuda) unsafe fn run(
        &mut self,
        (pass, of): (Pass, &Convolution),
        algorithm: Algorithm,
        addresses: [u64; 3],
        workspace: u64,
        added: bool,
    ) -> Result<bool, String> {
        let Some(known) = self.known.get_mut(of).and_then(Option::as_mut) else {
            return Ok(false);
        };
        let [first, second, to] = known.operands(pass);
        let [from_first, from_second, result] = addresses.map(|address| address as *mut c_void);
        let (one, onto) = (1.0_f32, if added { 1.0_f32 } else { 0.0 });
        // SAFETY: as the caller guarantees; the two factors are read before the call returns.
        let status = unsafe {
            (self.library.passes[pass as usize].run)(
                self.handle,
                (&raw const one).cast(),
                first,
                from_first,
                second,
                from_second,
                known.convolution.raw,
                algorithm.number,
                workspace as *mut c_void,
                algorithm.memory,
                (&raw const onto).cast(),
                to,
                result,
            )
        };
        if status.is_refusal() {
            let algorithms = known.algorithms[pass as usize].iter_mut();
            algorithms.for_each(|algorithms| algorithms.retain(|other| *other != algorithm));
            return Ok(false);
        }
        status.ok().map(|()| true).map_err(|status| self.library.words(status))
    }
}

impl Drop for Cudnn {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        self.known.clear();
        // SAFETY: the handle was made, and all that was made with it is gone.
        unsafe { (self.library.destroy)(self.handle) };
    }
}
