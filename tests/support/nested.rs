//! Tensors as JSON has them.

use serde::Deserialize;

/// A tensor of any rank.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Nested {
    /// A number.
    Value(f64),
    /// Tensors of one rank less.
    Rows(Vec<Nested>),
}

impl Nested {
    /// Its values, in order.
    pub fn flatten(&self) -> Vec<f64> {
        match self {
            Self::Value(value) => vec![*value],
            Self::Rows(rows) => rows.iter().flat_map(Self::flatten).collect(),
        }
    }
}
