//! What the tests of the operations share.
#![allow(clippy::unwrap_used)]

use dfdx::prelude::*;

pub(super) type Owned = OwnedTape<f64, Cpu>;

/// Σ y·(y + 1), whose derivative differs wherever y does.
pub(super) fn uneven<S>(y: Tensor<S, f64, Cpu, Owned>) -> Tensor<Rank0, f64, Cpu, Owned>
where
    S: Shape + ReduceShape<<S as Shape>::AllAxes>,
{
    (y.with_empty_tape().square() + y).sum()
}

/// Sums of at most some hundred terms in another order: 1e-12 of the largest.
pub(super) fn all_close(ours: &[Vec<f64>], theirs: &[Vec<f64>]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours.len(), theirs.len());
        let scale = theirs.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!((ours - theirs).abs() <= 1e-12 * scale, "{ours} for {theirs}");
        }
    }
}

/// Compares the gradient of `loss` with central differences. Their own error, at a step of 1e-5, is
/// some 1e-10 of the third derivative and 1e-11 of rounding: 1e-7 of the gradient's scale leaves
/// room, and any wrong factor is far above it.
pub(super) fn differences<S: Shape>(
    at: &Tensor<S, f64, Cpu>,
    loss: impl Fn(Tensor<S, f64, Cpu, Owned>) -> Tensor<Rank0, f64, Cpu, Owned>,
) {
    const STEP: f64 = 1e-5;
    let gradient = loss(at.leaky_trace()).backward().get(at).as_vec();
    let values = at.as_vec();
    let scale = gradient.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
    for (index, ours) in gradient.iter().enumerate() {
        let shifted = |step: f64| {
            let mut values = values.clone();
            values[index] += step;
            let mut moved = at.clone();
            moved.copy_from(&values);
            loss(moved.leaky_trace()).array()
        };
        let theirs = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
        assert!((ours - theirs).abs() <= 1e-7 * scale, "element {index}: {ours} for {theirs}");
    }
}

/// On one thread, two and five.
pub(super) fn same_for_any_threads<R: PartialEq + std::fmt::Debug + Send>(
    run: impl Fn() -> R + Sync,
) {
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&run)
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}
