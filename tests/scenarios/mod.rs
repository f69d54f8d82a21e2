//! The table: its rows, its columns, and how its cells are judged.

mod arrival;
mod base;
mod data;
mod expected;
mod job;
mod report;
mod rows;
mod table;
mod ways;

pub(crate) use {
    arrival::arrive,
    base::Base,
    table::{early_and_late, judge},
};
