//! The dot products that decisions are made from.

use super::exact;
use serde::{Deserialize, Serialize};
use std::{iter::Sum, ops::AddAssign};

/// The dot products of the displacements of two windows in a row, over one group of tensors.
///
/// A, B and W are the weights two windows ago, one window ago, and now.
///
/// Example: [`engine`](super).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowProducts {
    /// ⟨A−B, B−W⟩.
    #[serde(with = "exact")]
    pub across: f64,
    /// ⟨B−W, B−W⟩.
    #[serde(with = "exact")]
    pub own: f64,
}

impl AddAssign for WindowProducts {
    fn add_assign(&mut self, other: Self) {
        self.across += other.across;
        self.own += other.own;
    }
}

impl Sum for WindowProducts {
    fn sum<I: Iterator<Item = Self>>(products: I) -> Self {
        let mut total = Self::default();
        products.for_each(|products| total += products);
        total
    }
}

/// What one batch's gradient says of the way that a group of tensors has gone since a snapshot.
///
/// B is the snapshot, and W are the weights now. d = W − B is the way. (A displacement s has the
/// opposite sign: old weights minus new ones.) g is the gradient at W. It comes from a batch whose
/// step is not part of d, so noise does not bias ⟨g,d⟩. There are two exceptions: a window of one
/// step, and a window's end with [`Config::settle`](super::Config::settle) off. There g is the
/// gradient of the window's last step, which is part of d.
///
/// On a quadratic piece of the loss, ⟨g,d⟩/‖d‖ grows linearly along the way: from −‖g‖ at its
/// beginning, through 0 at the lowest point.
///
/// # Example
/// Two groups as one: the slopes ⟨g,d⟩ add up, and so do the squares of the norms.
/// ```
/// use tlr::engine::Slope;
///
/// let body = Slope { along: -0.4, moved: 3.0, gradient: 2.0, norm: 5.0, weights: 90 };
/// let head = Slope { along: -0.1, moved: 4.0, gradient: 0.0, norm: 0.0, weights: 10 };
/// let both: Slope = [body, head].into_iter().sum();
/// assert_eq!((both.along, both.moved, both.weights), (-0.5, 5.0, 100));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slope {
    /// ⟨g,d⟩.
    #[serde(with = "exact")]
    pub along: f64,
    /// ‖d‖.
    #[serde(with = "exact")]
    pub moved: f64,
    /// ‖g‖.
    #[serde(with = "exact")]
    pub gradient: f64,
    /// ‖B‖.
    #[serde(with = "exact")]
    pub norm: f64,
    /// The number of weights.
    pub weights: u64,
}

/// A way is downhill if the cosine between way and gradient is below minus this number. The cosine
/// that noise alone makes is smaller.
const DOWNHILL: f64 = 0.05;
/// The least size that weights are taken to have: they may start at 0.
const SMALL: f64 = 0.01;
/// A way that is longer than this many times the weights' norm is never useful.
const FAR_OUT: f64 = 10.0;

impl Slope {
    /// ⟨g,d⟩/‖d‖: by how much the loss changes per length of the way, at its end. None if
    /// nothing has moved.
    pub(crate) fn per_length(&self) -> Option<f64> {
        (self.moved > 0.0).then(|| self.along / self.moved)
    }

    /// Whether the loss falls along the way, noise aside.
    pub(crate) fn is_downhill(&self) -> bool {
        self.along < -DOWNHILL * self.gradient * self.moved
    }

    /// ‖B‖, and no less than that of as many [`SMALL`] weights: what a way is compared with.
    pub(crate) fn size(&self) -> f64 {
        self.norm.max(SMALL * (self.weights as f64).sqrt())
    }

    /// Whether the way is longer than [`FAR_OUT`] times the weights' norm, or the norm of as many
    /// weights of size 1. No ramp and no window needs a longer one.
    pub(crate) fn is_far_out(&self) -> bool {
        self.moved > FAR_OUT * self.norm.max((self.weights as f64).sqrt())
    }

    /// Whether all figures are numbers.
    pub(crate) fn is_finite(&self) -> bool {
        [self.along, self.moved, self.gradient, self.norm].iter().all(|figure| figure.is_finite())
    }
}

impl Sum for Slope {
    /// The slope of several groups, as if they were one.
    fn sum<I: Iterator<Item = Self>>(slopes: I) -> Self {
        slopes.fold(Self::default(), |all, slope| Self {
            along: all.along + slope.along,
            moved: all.moved.hypot(slope.moved),
            gradient: all.gradient.hypot(slope.gradient),
            norm: all.norm.hypot(slope.norm),
            weights: all.weights.saturating_add(slope.weights),
        })
    }
}

/// The dot products between the averaged update directions of two windows in a row, over one group
/// of trainable tensors: u₋ = u_{k-1} and u = u_k of the paper. A window's direction is its
/// displacement over the rate.
///
/// In an exact step (`step_lookahead`) ⟨u,g⟩, ⟨u,ĝ⟩ and ⟨ĝ,ĝ⟩ take their places, with g the
/// gradient at the weights and ĝ the gradient ahead. Derivative and curvature are then exact, and
/// so are the rules that are made of them. [`cosine`](Self::cosine) is that of an angle only around
/// plain gradient descent, where u is g.
///
/// # Example
/// ```
/// use tlr::engine::DirectionProducts;
///
/// let products = DirectionProducts { uu: 4.0, un: 1.0, nn: 1.0 };
/// assert_eq!((products.curvature(), products.cosine()), (3.0, 0.5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectionProducts {
    /// ⟨u₋,u₋⟩.
    #[serde(with = "exact")]
    pub uu: f64,
    /// ⟨u₋,u⟩: minus the first derivative of the loss with respect to the rate (Eq. 3).
    #[serde(with = "exact")]
    pub un: f64,
    /// ⟨u,u⟩.
    #[serde(with = "exact")]
    pub nn: f64,
}

impl DirectionProducts {
    /// ⟨u₋,u₋⟩ − ⟨u₋,u⟩: the rate times the second derivative of the loss with respect to the rate
    /// (Eq. 7).
    ///
    /// Example: [`DirectionProducts`].
    pub fn curvature(&self) -> f64 {
        self.uu - self.un
    }

    /// The cosine of the angle between the two directions, 0 if one of them vanishes.
    ///
    /// Example: [`DirectionProducts`].
    pub fn cosine(&self) -> f64 {
        let norms = self.uu.sqrt() * self.nn.sqrt();
        if norms > 0.0 {
            (self.un / norms).clamp(-1.0, 1.0)
        } else {
            0.0
        }
    }

    /// ρ = ⟨u₋,u⟩/√(⟨u₋,u₋⟩·max(⟨u₋,u₋⟩, ⟨u,u⟩)): the part of u₋ that is left in u. It is never
    /// more than the cosine.
    pub(crate) fn persistence(&self) -> f64 {
        (self.un / self.uu * (self.uu / self.nn).sqrt().min(1.0)).min(1.0)
    }

    /// Whether all three are numbers.
    pub(crate) fn is_finite(&self) -> bool {
        self.uu.is_finite() && self.un.is_finite() && self.nn.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOPE: Slope = Slope { along: -0.4, moved: 4.0, gradient: 2.0, norm: 2.0, weights: 9 };

    // At their limits, by hand. Fails with another limit, and if equality counts.
    #[test]
    fn slopes_at_their_limits() {
        assert_eq!(SLOPE.per_length(), Some(-0.1));
        assert_eq!(Slope::default().per_length(), None);
        // A cosine of −0.05.
        assert!(!SLOPE.is_downhill());
        assert!(Slope { along: -0.41, ..SLOPE }.is_downhill());
        // Nine weights of 0.01, and of 1.
        assert_eq!(SLOPE.size(), 2.0);
        assert_eq!(Slope { norm: 0.0, ..SLOPE }.size(), 0.03);
        let moved = |moved, norm| Slope { moved, norm, ..SLOPE }.is_far_out();
        assert!(!moved(30.0, 2.0) && moved(30.1, 2.0));
        assert!(!moved(40.0, 4.0) && moved(40.1, 4.0));
    }
}
