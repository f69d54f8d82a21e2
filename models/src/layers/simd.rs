//! The widest registers that the machine at hand has.

/// Compiles `work` once for each generation of them, and runs the widest: the compiler's own vectorization
/// then is not held to what any machine has.
#[inline(always)]
pub(super) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
