//! [`HostFacts`]: momentum and precision, which an engine cannot see.

/// Facts about the base optimizer and the weights' type that an engine needs.
///
/// Example: [`engine`](super).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostFacts {
    /// β of the base optimizer, in [0, 1): how much of an update is left over from the one before.
    /// 0 for plain gradient descent.
    pub momentum: f64,
    /// The distance between 1 and the next larger number of the weights' type: `f32::EPSILON` for
    /// f32.
    pub epsilon: f64,
}
