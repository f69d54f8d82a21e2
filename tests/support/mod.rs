//! What the integration tests share: problems with known derivatives, a model's values and
//! gradients as plain numbers, and the rule once more, written on vectors.

pub mod examples;
#[path = "../../tlr/tests/needs/mod.rs"]
pub mod needs;
pub mod nested;
pub mod optimizers;
pub mod oracle;
pub mod quadratic;
#[path = "../../tlr/tests/random/mod.rs"]
pub mod random;
pub mod values;

#[cfg(doctest)]
mod pages;
