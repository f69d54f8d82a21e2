//! What the tests of the layers share.
#![allow(clippy::unwrap_used)]

use dfdx::prelude::*;

pub(super) type Owned = OwnedTape<f64, Cpu>;

/// The sum of (y + 1/2)², whose derivatives 2y + 1 differ everywhere.
pub(super) fn curved<S: Shape>(y: Tensor<S, f64, Cpu, Owned>) -> Tensor<Rank0, f64, Cpu, Owned> {
    (y + 0.5).square().sum::<Rank0, _>()
}

/// Checks that the two are the same up to rounding, for sums of at most some ten thousand terms in
/// another order.
pub(super) fn close(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    let scale = theirs.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours - theirs).abs() <= 1e-12 * scale, "{index}: {ours} for {theirs}");
    }
}

/// As [`close`], for several pairs at a time.
pub(super) fn all_close(ours: &[Vec<f64>], theirs: &[Vec<f64>]) {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).for_each(|(ours, theirs)| close(ours, theirs));
}

/// Compares `gradient` with central differences of `loss`, an element of `at` at a time. With steps
/// of 1e-5 their error is about 1e-10 of the loss's third derivative, and rounding 1e-16/1e-5 of
/// the loss.
pub(super) fn derivative<S: Shape>(
    at: &Tensor<S, f64, Cpu>,
    gradient: &Tensor<S, f64, Cpu>,
    loss: impl Fn(&Tensor<S, f64, Cpu>) -> f64,
) {
    let (values, gradient) = (at.as_vec(), gradient.as_vec());
    let scale = gradient.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
    for index in 0..values.len() {
        let moved = |by: f64| {
            let mut values = values.clone();
            values[index] += by;
            let mut moved = at.clone();
            moved.copy_from(&values);
            loss(&moved)
        };
        let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        let error = (gradient[index] - expected).abs();
        assert!(error <= 1e-7 * scale, "{index}: {} for {expected}", gradient[index]);
    }
}

/// Compares the gradient of `loss` with central differences.
pub(super) fn differences<S: Shape>(
    at: &Tensor<S, f64, Cpu>,
    loss: impl Fn(Tensor<S, f64, Cpu, Owned>) -> Tensor<Rank0, f64, Cpu, Owned>,
) {
    let gradient = loss(at.leaky_trace()).backward().get(at);
    derivative(at, &gradient, |at| loss(at.leaky_trace()).array());
}

/// Checks that `run` gives the same on one thread, on two and on five.
pub(super) fn same_for_any_threads<R: PartialEq + std::fmt::Debug + Send>(
    run: impl Fn() -> R + Sync,
) {
    let one = with_threads(1, &run);
    assert_eq!(one, with_threads(2, &run));
    assert_eq!(one, with_threads(5, &run));
}

/// The result of `work` in a pool of this many threads.
pub(super) fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}
