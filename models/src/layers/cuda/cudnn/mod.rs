//! cuDNN's convolutions, with the library looked for when a program runs: one that was built with
//! the feature `cudnn` starts without it, and then convolves by own kernels.

mod convolution;
mod library;

pub(super) use convolution::Cudnn;
pub(in crate::layers) use convolution::{Convolution, Pass, Precision};
#[cfg(test)]
pub(super) use library::{Library, Missing};
