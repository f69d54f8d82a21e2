//! A model's weights alone, read from safetensors files, such as PyTorch's, and written to them.
//!
//! [`load`] asks that all of the model is in the file and all of the file in the model, each tensor
//! with its shape. Otherwise one error names everything that differs, and the model is as it was.
//! [`Names`] says what a model's tensors are called in the file, and what is left out of the model
//! or of the file: the head, for instance, if the model has another number of classes.
//!
//! Files hold f64, f32, f16 or bf16, and the model is f32 or f64, in any combination: widening is
//! exact, narrowing rounds to nearest, and a number that would become infinite is an error. Numbers
//! without tensors, such as a norm's epsilon, are the model's own and stay.
//!
//! [`save`] writes f32. (All that training depends on is in a [`Checkpoint`](tlr::Checkpoint).)

mod error;
mod load;
mod names;
mod save;

pub use error::{WeightsDifference, WeightsError};
pub use load::{load, load_bytes};
pub use names::{Location, Names};
pub use save::{note, save};
