//! What is said on stderr, beside the results on stdout.

use std::io::Write;

/// A line on stderr. If nobody can read it, nobody can be told.
pub(crate) fn warn(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
