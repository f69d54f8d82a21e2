//! cuDNN's convolutions. The library is looked for when a program runs: a program that was built
//! with the feature `cudnn` starts without it, and then convolves by our own kernels.

mod convolution;
mod library;

pub(super) use convolution::Cudnn;
pub(in crate::layers) use convolution::{Convolution, Pass, Precision};
#[cfg(test)]
pub(super) use library::{Library, Missing};
