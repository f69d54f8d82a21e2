//! The models, data sets and reports behind the examples and tests of `tlr`.
//!
//! "The paper" is Retsinas, Sfikas, Filntisis and Maragos, *Newton-based Trainable Learning Rate*,
//! ICASSP 2023 ([their code](https://github.com/georgeretsi/NTLR)).
//!
//! * [`data`]: images and sentences to train on, drawn by the crate itself or
//!   read from files, and the mini-batches made of them;
//! * [`layers`]: the operations that the models are made of;
//! * [`Mlp`]: the paper's perceptron, and [`train`]: training it;
//! * [`resnet`]: residual networks for images;
//! * [`Seq2SeqTransformer`]: the transformer for translation, and [`search`]: decoding with it;
//! * [`baselines`]: the optimizers that `tlr` is compared with, and `lab`, with the feature of that
//!   name: the tasks that all of them are compared on;
//! * [`sweep`]: many training runs, over a grid of options;
//! * [`weights`]: weights from PyTorch, and to files;
//! * [`report`]: the curves, tables and CSV files that a training run leaves behind.
//!
//! On the CPU the layers share their work among rayon's threads, with the same result for any
//! number of them. Train on one of these threads, by `rayon::scope(|_| …)`: from outside, every
//! layer wakes a thread and waits for it.
//!
//! Settings, such as [`train::Options`], are structs with public fields. Write them with
//! `..Default::default()`, for a later version may have more fields.

#![warn(missing_debug_implementations)]

pub mod baselines;
pub mod data;
// Without the feature, the tests of the code that needs no models still run. Some of that code only
// the models use.
#[cfg(any(test, feature = "lab"))]
#[cfg_attr(not(feature = "lab"), allow(dead_code))]
pub mod lab;
pub mod layers;
pub mod report;
pub mod resnet;
pub mod search;
pub mod sweep;
pub mod train;
pub mod weights;

mod device;
mod mlp;
#[cfg(test)]
#[path = "../../tlr/tests/needs/mod.rs"]
mod needs;
mod transformer;
mod translate;

pub use mlp::Mlp;
pub use transformer::{padded, shifted, Pad, Seq2Seq, Seq2SeqTransformer};
