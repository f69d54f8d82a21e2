//! Which device trains.

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

/// What is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda,
}

impl Device {
    /// The device that is there.
    pub(crate) fn find(self) -> Result<Place, String> {
        match self {
            Self::Cpu => Ok(Place::Cpu),
            Self::Cuda => gpu(),
            Self::Auto => Ok(gpu().unwrap_or(Place::Cpu)),
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu() -> Result<Place, String> {
    use tlr_models::train::TrainDevice;
    let found = dfdx::prelude::Cuda::find();
    found.map(|()| Place::Cuda).map_err(|error| format!("--device cuda: {error}"))
}

#[cfg(not(feature = "cuda"))]
fn gpu() -> Result<Place, String> {
    Err("--device cuda: this program was built without CUDA; \
         `cargo run --release --features cuda --example …` builds it with CUDA"
        .to_owned())
}

/// Runs an expression with the type of the device that is used as `$D`. Needs [`Place`] in scope.
macro_rules! on_device {
    ($place:expr, $D:ident => $body:expr) => {
        match $place {
            Place::Cpu => {
                type $D = dfdx::prelude::Cpu;
                $body
            }
            #[cfg(feature = "cuda")]
            Place::Cuda => {
                type $D = dfdx::prelude::Cuda;
                $body
            }
        }
    };
}
pub(crate) use on_device;
