//! Names the figure of a saved state that no engine can have left there.

/// The name of the first figure that does not hold.
pub(super) fn first_broken<const N: usize>(
    figures: [(bool, &'static str); N],
) -> Option<&'static str> {
    figures.into_iter().find_map(|(holds, name)| (!holds).then_some(name))
}

/// More steps than any training makes: to count on from here overflows nothing, and f64 holds every
/// count exactly.
pub(crate) const MAX_COUNT: u64 = 1 << 53;
