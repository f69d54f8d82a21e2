//! Arithmetic over the slices of several tensors: sums in f64, and changes of all elements or of
//! none.

use super::{PeerError, Real, Tensors};
use std::ops::Deref;

/// The elements of tensor `index` in each of the buffers, none if there is no such tensor.
fn at<E, const N: usize>(buffers: [&Tensors<E>; N], index: usize) -> [&[E]; N] {
    buffers.map(|buffer| buffer.get(index).map(Vec::as_slice).unwrap_or_default())
}

/// The sums over each tensor of what `term` makes of a weight, its gradient and its buffers.
pub(super) fn sums_by_tensor<E: Real, W, const N: usize, const K: usize>(
    weights: &[W],
    gradients: &[&[E]],
    buffers: [&Tensors<E>; N],
    term: impl Fn(f64, f64, [f64; N]) -> [f64; K],
) -> Vec<[f64; K]>
where
    W: Deref<Target = [E]>,
{
    let tensors = weights.iter().zip(gradients).enumerate();
    tensors
        .map(|(index, (weights, gradients))| {
            let buffers = at(buffers, index);
            let mut sums = [0.0; K];
            for (i, (w, g)) in weights.iter().zip(*gradients).enumerate() {
                let own = buffers.map(|buffer| buffer.get(i).map_or(0.0, |value| value.wide()));
                for (sum, term) in sums.iter_mut().zip(term(w.wide(), g.wide(), own)) {
                    *sum += term;
                }
            }
            sums
        })
        .collect()
}

/// The sums of [`sums_by_tensor`] over all tensors together.
pub(super) fn sums<E: Real, W, const N: usize, const K: usize>(
    weights: &[W],
    gradients: &[&[E]],
    buffers: [&Tensors<E>; N],
    term: impl Fn(f64, f64, [f64; N]) -> [f64; K],
) -> [f64; K]
where
    W: Deref<Target = [E]>,
{
    total(&sums_by_tensor(weights, gradients, buffers, term))
}

/// The sum of all tensors' sums.
pub(super) fn total<const K: usize>(by_tensor: &[[f64; K]]) -> [f64; K] {
    by_tensor.iter().fold([0.0; K], |all, own| std::array::from_fn(|k| all[k] + own[k]))
}

/// Gives each weight and each element of its buffers the values that `new` makes of the tensor's
/// index, the weight, its gradient and its buffers.
///
/// # Errors
/// [`PeerError::NonFinite`], if a weight or an element would not be finite. All values are as they
/// were then: they are computed twice, and written the second time only.
pub(super) fn transform<E: Real, const N: usize>(
    step: u64,
    weights: &mut [&mut [E]],
    gradients: &[&[E]],
    mut buffers: [&mut Tensors<E>; N],
    new: impl Fn(usize, f64, f64, [f64; N]) -> (f64, [f64; N]),
) -> Result<(), PeerError> {
    let is_finite = |value: &f64| E::round(*value).wide().is_finite();
    for (index, (weights, gradients)) in weights.iter().zip(gradients).enumerate() {
        let buffers = buffers.each_ref().map(|buffer| &**buffer);
        let buffers = at(buffers, index);
        let (mut weights_finite, mut buffers_finite) = (true, true);
        for (i, (w, g)) in weights.iter().zip(*gradients).enumerate() {
            let own = buffers.map(|buffer| buffer.get(i).map_or(0.0, |value| value.wide()));
            let (w, own) = new(index, w.wide(), g.wide(), own);
            weights_finite &= is_finite(&w);
            buffers_finite &= own.iter().all(is_finite);
        }
        if !weights_finite {
            return Err(PeerError::NonFinite { what: "a weight", step });
        }
        if !buffers_finite {
            return Err(PeerError::NonFinite { what: "an element of the rule's state", step });
        }
    }
    for (index, (weights, gradients)) in weights.iter_mut().zip(gradients).enumerate() {
        let mut buffers = buffers
            .each_mut()
            .map(|buffer| buffer.get_mut(index).map(Vec::as_mut_slice).unwrap_or_default());
        for (i, (weight, g)) in weights.iter_mut().zip(*gradients).enumerate() {
            let own = buffers.each_ref().map(|buffer| buffer.get(i).map_or(0.0, |v| v.wide()));
            let (w, own) = new(index, weight.wide(), g.wide(), own);
            *weight = E::round(w);
            for (buffer, value) in buffers.iter_mut().zip(own) {
                if let Some(place) = buffer.get_mut(i) {
                    *place = E::round(value);
                }
            }
        }
    }
    Ok(())
}

/// `Ok` if all of a rule's sums are finite.
pub(super) fn finite_sums(step: u64, sums: &[f64]) -> Result<(), PeerError> {
    if sums.iter().all(|sum| sum.is_finite()) {
        Ok(())
    } else {
        Err(PeerError::NonFinite { what: "a sum over the gradients", step })
    }
}

/// Whether all elements are finite.
pub(super) fn all_finite<E: Real>(tensors: &[&[E]]) -> bool {
    tensors.iter().all(|tensor| tensor.iter().all(|value| value.wide().is_finite()))
}

/// Zeros in the shapes of these tensors.
pub(super) fn zeros<E: Real>(weights: &[&mut [E]]) -> Tensors<E> {
    weights.iter().map(|tensor| vec![E::default(); tensor.len()]).collect()
}

/// Copies of these tensors.
pub(super) fn copies<E: Real>(weights: &[&mut [E]]) -> Tensors<E> {
    weights.iter().map(|tensor| tensor.to_vec()).collect()
}

/// The length of each tensor of each of these buffers.
pub(super) fn lens<E, const N: usize>(buffers: [&Tensors<E>; N]) -> Vec<Vec<usize>> {
    buffers.map(|buffer| buffer.iter().map(Vec::len).collect()).into()
}
