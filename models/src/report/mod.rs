//! What a training run leaves behind: curves, a table and a CSV file.
//!
//! Everything here takes plain numbers, so that any training loop can use it.

mod curves;
mod epochs;
mod error;
mod history;

pub use curves::{Curves, Rate};
pub use epochs::{table, write_epochs_csv, Epoch};
pub use error::ReportError;
pub use history::{rates, write_history_csv};
