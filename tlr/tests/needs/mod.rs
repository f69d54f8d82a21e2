//! What a test needs and not every machine has: a program, a GPU, data beside the checkout.
//!
//! A test that lacks something says so on stderr and passes. The variable `TLR_ALL` says what has
//! to be there: a list of words such as `valgrind mnist`, or `1` for everything. A test that lacks
//! one of these fails. `.ci/run` lists all that it finds.
// Public for tests/support, which is a library.
#![allow(unreachable_pub)]

use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Whether a test can be made that needs `what`, a word of `TLR_ALL`.
///
/// # Panics
/// If it is not there, and `TLR_ALL` asks for it.
#[allow(clippy::panic)]
pub fn found(what: &str, is_there: bool) -> bool {
    let asked = std::env::var("TLR_ALL").unwrap_or_default();
    if is_there {
        return true;
    }
    assert!(!asks_for(what, &asked), "there is no {what}, and TLR_ALL asks for it");
    let test = std::thread::current();
    let test = test.name().unwrap_or("a test");
    // By the handle: the harness would keep what a test prints that passes.
    let _ = writeln!(std::io::stderr(), "left out: {test}, because there is no {what}");
    false
}

/// What has this path in `shared`, the folder beside the checkout.
#[allow(dead_code)] // Not all tests need data.
pub fn shared(path: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checkout = package.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    checkout.unwrap_or(package).join("../shared").join(path)
}

/// Whether such a list has this word.
pub fn asks_for(what: &str, list: &str) -> bool {
    list == "1" || list.split_whitespace().any(|word| word == what)
}
