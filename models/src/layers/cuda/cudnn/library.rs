//! The functions of cuDNN that are called, by their names in the library.
//!
//! cudarc declares them too, but its feature `cudnn` links the library, and a program linked so
//! does not start where it is missing. Its declarations are also those of cuDNN 8, whose codes of
//! errors are others than those of cuDNN 9.

use std::ffi::{c_char, c_int, c_void, CStr};
use thiserror::Error;

/// The library's names on Linux and on Windows, the newest first.
pub(super) const NAMES: [&str; 4] =
    ["libcudnn.so.9", "libcudnn.so.8", "cudnn64_9.dll", "cudnn64_8.dll"];
/// The first version that can be told to compute in f32 without rounding factors to TF32.
const OLDEST: usize = 8000;

/// `cudnnHandle_t`.
pub(super) type Handle = *mut c_void;
/// A descriptor of a tensor, of filters or of a convolution.
pub(super) type Raw = *mut c_void;

/// `cudnnStatus_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Status(c_int);

impl Status {
    pub(super) fn ok(self) -> Result<(), Self> {
        if self.0 == 0 {
            Ok(())
        } else {
            Err(self)
        }
    }

    /// Whether cuDNN, or the GPU, lacks what was asked for: then nothing has been done. The codes
    /// of cuDNN 8, and those of cuDNN 9, which says more exactly what is lacking.
    pub(super) fn is_refusal(self) -> bool {
        const ARCH_MISMATCH_8: c_int = 6;
        const NOT_SUPPORTED_8: c_int = 9;
        matches!(self.0, ARCH_MISMATCH_8 | NOT_SUPPORTED_8 | 3000..4000)
    }
}

/// `cudnnConvolutionFwdAlgoPerf_t`, and the same for the other two passes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Candidate {
    pub(super) algorithm: c_int,
    pub(super) status: Status,
    time: f32,
    memory: usize,
    pub(super) determinism: c_int,
    math: c_int,
    reserved: [c_int; 3],
}

impl Candidate {
    pub(super) const NONE: Self = Self {
        algorithm: -1,
        status: Status(-1),
        time: 0.0,
        memory: 0,
        determinism: 0,
        math: 0,
        reserved: [0; 3],
    };
}

// As cuDNN's headers lay it out.
const _: () = assert!(size_of::<Candidate>() == 48);

/// The three operands in the order of the pass: the two that are read, and the one that is written.
type Choose =
    unsafe extern "C" fn(Handle, Raw, Raw, Raw, Raw, c_int, *mut c_int, *mut Candidate) -> Status;
type Workspace = unsafe extern "C" fn(Handle, Raw, Raw, Raw, Raw, c_int, *mut usize) -> Status;
type Run = unsafe extern "C" fn(
    Handle,
    *const c_void,
    Raw,
    *const c_void,
    Raw,
    *const c_void,
    Raw,
    c_int,
    *mut c_void,
    usize,
    *const c_void,
    Raw,
    *mut c_void,
) -> Status;
type Make = unsafe extern "C" fn(*mut *mut c_void) -> Status;
type Unmake = unsafe extern "C" fn(*mut c_void) -> Status;
/// Type and format, in this order or the other one, and four sizes.
type SetSizes = unsafe extern "C" fn(Raw, c_int, c_int, c_int, c_int, c_int, c_int) -> Status;
/// Padding, strides and dilation, each by height and width, the mode, and the type of the sums.
type SetConvolution =
    unsafe extern "C" fn(Raw, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int) -> Status;

/// How a kind of descriptor is made and destroyed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) make: Make,
    pub(super) unmake: Unmake,
}

/// The functions of a pass of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfPass {
    pub(super) choose: Choose,
    pub(super) workspace: Workspace,
    pub(super) run: Run,
}

/// Why there is no cuDNN.
#[derive(Debug, Error)]
pub(in crate::layers::cuda) enum Missing {
    /// No library could be loaded, or it lacks a function.
    #[error(transparent)]
    Library(#[from] libloading::Error),
    #[error("its version {0} is older than {OLDEST}")]
    Old(usize),
    #[error("it does not start: {0}")]
    Failed(String),
}

/// cuDNN, loaded.
#[derive(Debug)]
pub(in crate::layers::cuda) struct Library {
    error_text: unsafe extern "C" fn(Status) -> *const c_char,
    pub(super) create: Make,
    pub(super) destroy: Unmake,
    pub(super) set_stream: unsafe extern "C" fn(Handle, *mut c_void) -> Status,
    pub(super) tensors: Kept,
    pub(super) filters: Kept,
    pub(super) convolutions: Kept,
    pub(super) set_tensor: SetSizes,
    pub(super) set_filters: SetSizes,
    pub(super) set_convolution: SetConvolution,
    pub(super) set_groups: unsafe extern "C" fn(Raw, c_int) -> Status,
    pub(super) set_math: unsafe extern "C" fn(Raw, c_int) -> Status,
    /// Forward, the images' gradient, the filters' gradient.
    pub(super) passes: [OfPass; 3],
    /// The library, which has all of these functions.
    _loaded: Loaded,
}

impl Library {
    /// Loads the first library that has one of these names.
    #[allow(unsafe_code)]
    pub(in crate::layers::cuda) fn open(names: &[&str]) -> Result<Self, Missing> {
        let loaded = Loaded::first(names)?;
        // SAFETY: each of these has the type of its field in cuDNN 8 and 9.
        unsafe {
            let version: unsafe extern "C" fn() -> usize = loaded.function("GetVersion")?;
            let version = version();
            if version < OLDEST {
                return Err(Missing::Old(version));
            }
            let kept = |name: &str| -> Result<_, Missing> {
                let make = loaded.function(&format!("Create{name}Descriptor"))?;
                Ok(Kept { make, unmake: loaded.function(&format!("Destroy{name}Descriptor"))? })
            };
            let pass = |name: &str| -> Result<_, Missing> {
                Ok(OfPass {
                    choose: loaded.function(&format!("GetConvolution{name}Algorithm_v7"))?,
                    workspace: loaded.function(&format!("GetConvolution{name}WorkspaceSize"))?,
                    run: loaded.function(&format!("Convolution{name}"))?,
                })
            };
            Ok(Self {
                error_text: loaded.function("GetErrorString")?,
                create: loaded.function("Create")?,
                destroy: loaded.function("Destroy")?,
                set_stream: loaded.function("SetStream")?,
                tensors: kept("Tensor")?,
                filters: kept("Filter")?,
                convolutions: kept("Convolution")?,
                set_tensor: loaded.function("SetTensor4dDescriptor")?,
                set_filters: loaded.function("SetFilter4dDescriptor")?,
                set_convolution: loaded.function("SetConvolution2dDescriptor")?,
                set_groups: loaded.function("SetConvolutionGroupCount")?,
                set_math: loaded.function("SetConvolutionMathType")?,
                passes: [pass("Forward")?, pass("BackwardData")?, pass("BackwardFilter")?],
                _loaded: loaded,
            })
        }
    }

    /// A status in cuDNN's words.
    #[allow(unsafe_code)]
    pub(super) fn words(&self, status: Status) -> String {
        // SAFETY: cuDNN has a text of its own for each number, which stays.
        let text = unsafe { CStr::from_ptr((self.error_text)(status)) };
        text.to_string_lossy().into_owned()
    }
}

#[derive(Debug)]
struct Loaded(libloading::Library);

impl Loaded {
    /// The first of these libraries that can be loaded, or why the first name could not be.
    #[allow(unsafe_code)]
    fn first(names: &[&str]) -> Result<Self, libloading::Error> {
        let mut missing = None;
        for name in names {
            // SAFETY: cuDNN asks nothing of the program when it is loaded.
            match unsafe { libloading::Library::new(name) } {
                Ok(library) => return Ok(Self(library)),
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        Err(missing.unwrap_or(libloading::Error::DlOpenUnknown))
    }

    /// # Safety
    /// The function of this name is of type `F`.
    #[allow(unsafe_code)]
    unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, libloading::Error> {
        // SAFETY: as the caller guarantees.
        let function = unsafe { self.0.get::<F>(format!("cudnn{name}\0").as_bytes()) }?;
        Ok(*function)
    }
}
