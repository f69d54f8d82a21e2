//! The rows.

mod drift;
mod functions;
mod linear;

use super::table::Row;

/// All rows.
pub(crate) fn all() -> Vec<Row> {
    [linear::rows(), drift::rows(), functions::rows()].into_iter().flatten().collect()
}
