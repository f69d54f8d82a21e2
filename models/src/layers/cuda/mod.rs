//! What the layers share on CUDA: our own kernels and cuBLAS, on dfdx's memory and in its stream.
//!
//! The kernels are the `.cu` files here, compiled by NVRTC when a layer first runs in a dtype. A
//! layer's `on_cuda.rs` knows tensors and gradients, and hands on their addresses. Nothing here
//! waits for the GPU: memory that is freed or overwritten after a launch comes after it in the
//! stream, too.

mod channels;
#[cfg(feature = "cudnn")]
mod convolve;
#[cfg(feature = "cudnn")]
mod cudnn;
mod gpu;
mod launch;
mod memory;
mod multiply;
mod sizes;

pub(super) use channels::{row_shares, Channels};
#[cfg(feature = "cudnn")]
pub(super) use cudnn::{Convolution, Pass, Precision};
pub(super) use gpu::Gpu;
pub(super) use launch::{kernels, Grid, Kind};
pub(super) use memory::{address, kept, Input, Output};
pub(super) use multiply::{Matrix, Product};
pub(super) use sizes::{Dropping, Part, Scores, Window};

use dfdx::prelude::{Cuda, HasErr};

/// dfdx's error on CUDA, as the layers' signatures name it.
pub(super) type CudaErr = <Cuda as HasErr>::Err;

#[cfg(test)]
mod tests;
