//! Limits a number of threads to what the cores have use for.

use tlr_models::report::count;

/// Threads a core has use for: more only wait for each other.
const THREADS_A_CORE: usize = 4;

/// The number of threads that was asked for, or as many as are of use, with a note that says so.
pub(crate) fn capped(asked: usize, flag: &str) -> (usize, Option<String>) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = cores * THREADS_A_CORE;
    if asked <= most {
        return (asked, None);
    }
    (
        most,
        Some(format!(
            "note: {flag} {asked} is more than there is use for with {}: {most} are used",
            count(cores, "core")
        )),
    )
}
