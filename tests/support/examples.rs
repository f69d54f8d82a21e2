//! The examples, run as a user runs them.

use std::path::PathBuf;

/// The built example. `cargo test` builds all of them, beside the tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let profile = test.ancestors().nth(2).unwrap_or(&test);
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}
