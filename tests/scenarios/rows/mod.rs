//! The rows.

mod drift;
mod functions;
mod layers;
mod linear;
mod modules;
mod networks;

use super::table::Row;

/// All rows.
pub(crate) fn all() -> Vec<Row> {
    let rows = [linear::rows(), drift::rows(), functions::rows(), layers::rows(), networks::rows()];
    rows.into_iter().flatten().collect()
}
