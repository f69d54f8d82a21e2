//! What is said on stderr, beside the results on stdout.

use std::io::Write;

/// Prints a line on stderr. An error in that is ignored: there is nowhere else to report it.
pub(crate) fn warn(line: std::fmt::Arguments<'_>) {
    // In one piece, because other processes of the run may write there too.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
