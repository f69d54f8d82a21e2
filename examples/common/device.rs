//! Which device trains, and in which numbers.

use clap::ValueEnum;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// The processor
    Cpu,
    /// The first NVIDIA GPU
    Cuda,
    /// The GPU where there is one, and else the processor
    Auto,
}

/// In which numbers a model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// 32 bits a number
    F32,
    /// 16 bits a number, on a GPU. Weights are kept in 32 bits too
    F16,
}

/// What is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda,
    /// The GPU, in f16.
    #[cfg(feature = "cuda")]
    CudaHalf,
}

impl Device {
    /// The device that is there, if it has these numbers.
    pub(crate) fn find(self, precision: Precision) -> Result<Place, String> {
        match (self, precision) {
            (_, Precision::F16) => half(self),
            (Self::Cpu, _) => Ok(Place::Cpu),
            (Self::Cuda, _) => gpu(),
            (Self::Auto, _) => Ok(gpu().unwrap_or(Place::Cpu)),
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu() -> Result<Place, String> {
    use tlr_models::train::TrainDevice;
    let found = dfdx::prelude::Cuda::find();
    found.map(|()| Place::Cuda).map_err(|error| format!("--device cuda: {error}"))
}

#[cfg(feature = "cuda")]
fn half(device: Device) -> Result<Place, String> {
    use tlr_models::train::TrainDevice;
    if device == Device::Cpu {
        return Err("--precision f16 is for a GPU: add --device cuda, or leave it out, as the \
                    processor trains in f32"
            .to_owned());
    }
    let found = dfdx::prelude::Cuda::find();
    found.map(|()| Place::CudaHalf).map_err(|error| format!("--precision f16: {error}, in f32"))
}

#[cfg(not(feature = "cuda"))]
fn gpu() -> Result<Place, String> {
    Err("--device cuda: this program was built without CUDA; \
         `cargo run --release --features cuda --example …` builds it with CUDA"
        .to_owned())
}

#[cfg(not(feature = "cuda"))]
fn half(_: Device) -> Result<Place, String> {
    Err("--precision f16 is for a GPU, and this program was built without CUDA; \
         `cargo run --release --features cuda --example … -- --device cuda --precision f16` \
         builds it with CUDA and uses one"
        .to_owned())
}

/// Runs an expression with the type of the device that is used as `$D`, and that of its numbers as
/// `$E`. Needs [`Place`] in scope.
#[allow(unused_macros)] // `reproduce` has places of its own.
macro_rules! on_device {
    ($place:expr, $D:ident, $E:ident => $body:expr) => {
        match $place {
            Place::Cpu => {
                type $D = dfdx::prelude::Cpu;
                type $E = f32;
                $body
            }
            #[cfg(feature = "cuda")]
            Place::Cuda => {
                type $D = dfdx::prelude::Cuda;
                type $E = f32;
                $body
            }
            #[cfg(feature = "cuda")]
            Place::CudaHalf => {
                type $D = dfdx::prelude::Cuda;
                type $E = dfdx::dtypes::AMP<dfdx::dtypes::f16>;
                $body
            }
        }
    };
}
#[allow(unused_imports)] // As above.
pub(crate) use on_device;
