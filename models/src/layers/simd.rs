//! The widest registers that the machine at hand has.

use super::element::Element;
use pulp::NullaryFnOnce;

/// Compiles `work` once for each generation of registers, and runs the version for the widest ones
/// that the machine has. Without this the compiler vectorizes for registers that every machine has.
#[inline(always)]
pub(super) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Replaces each value by e to the power of the value less the largest one. Returns the largest,
/// and the sum of the results in f64.
pub(super) fn exponentials<E: Element>(values: &mut [E]) -> (E, f64) {
    pulp::Arch::new().dispatch(Exponentials(values))
}

/// The work of [`exponentials`]. This is a type, because the compiler does not inline a closure of
/// this size.
struct Exponentials<'a, E>(&'a mut [E]);

impl<E: Element> NullaryFnOnce for Exponentials<'_, E> {
    type Output = (E, f64);

    #[inline(always)]
    fn call(self) -> (E, f64) {
        let most = largest(self.0);
        self.0.iter_mut().for_each(|value| *value = (*value - most).exponential());
        (most, sum(self.0, E::to))
    }
}

/// How many sums are taken at a time: enough to fill the registers. In a single sum each addition
/// would wait for the one before it.
const LANES: usize = 32;

/// Σ term(x), in f64.
#[inline(always)]
pub(super) fn sum<X: Copy>(x: &[X], term: impl Fn(X) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += term(*x);
    }
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += term(*x);
        }
    }
    lanes.iter().sum()
}

/// Σ x·y, in f64.
#[inline(always)]
pub(super) fn sum_of_products<E: Element>(x: &[f64], y: &[E]) -> f64 {
    let mut lanes = [0.0; LANES];
    let mut add = |x: &[f64], y: &[E]| {
        for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += x * y.to();
        }
    };
    let (x, y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    add(x.remainder(), y.remainder());
    x.zip(y).for_each(|(x, y)| add(x, y));
    lanes.iter().sum()
}

/// The largest value; NaN is left out. Minus infinity if there is none.
#[inline(always)]
fn largest<E: Element>(x: &[E]) -> E {
    let mut lanes = [E::neg_infinity(); LANES];
    let mut take = |x: &[E]| {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    };
    let chunks = x.chunks_exact(LANES);
    take(chunks.remainder());
    chunks.for_each(take);
    lanes.into_iter().fold(E::neg_infinity(), |a, b| if b > a { b } else { a })
}
