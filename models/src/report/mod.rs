//! What training runs leave behind: curves, maps, tables and CSV files.
//!
//! Everything here takes plain numbers, so that any training loop can use it.

mod axis;
pub(crate) mod color;
mod comparison;
mod curves;
mod epochs;
mod error;
mod events;
pub(crate) mod figure;
mod folder;
mod heatmap;
mod history;
mod legend;
#[cfg(test)]
pub(crate) mod probe;
pub(crate) mod svg;
mod table;
mod words;

pub use comparison::{Compared, Comparison};
pub use curves::{Curves, Rate};
pub use epochs::{read_epochs_csv, write_epochs_csv, Epoch};
pub use error::ReportError;
pub use events::EventFile;
pub(crate) use folder::Held;
pub use folder::{write, OutFolder};
pub use heatmap::{HeatCell, HeatMap, HeatPanel};
pub use history::{rates, write_history_csv};
pub use table::EpochTable;
pub use words::{count, number};
