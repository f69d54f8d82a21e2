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
    /// The device that is there, which a GPU is tried for.
    pub(crate) fn find(self) -> Result<Place, String> {
        match (self, gpu()) {
            (Self::Cpu, _) | (Self::Auto, Err(_)) => Ok(Place::Cpu),
            (_, Ok(place)) => Ok(place),
            (Self::Cuda, Err(why)) => Err(why),
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu() -> Result<Place, String> {
    use tlr_models::train::TrainDevice;
    let opened = dfdx::prelude::Cuda::open(0);
    opened.map(|_| Place::Cuda).map_err(|error| format!("--device cuda: {error}"))
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
