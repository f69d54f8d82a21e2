//! Attention: scores, masked softmax and weighted sum.

#[cfg(feature = "cuda")]
mod on_cuda;

use super::{
    dropout::{DropoutRate, Dropped},
    QueryKeyValue, Rows,
};
use crate::layers::{
    buffer,
    element::Element,
    gemm::{self, Matrix},
    scratch::Scratch,
    shares::Shares,
    simd::{exponentials, vectorized},
    LayerError, Misfit,
};
use dfdx::prelude::{
    Axes4, Axis, BroadcastTo, Const, Cpu, CpuError, Device, Dtype, Gradients, HasErr, HasShape,
    PermuteTo, PutTape, ReshapeTo, SplitTape, Storage, Tape, Tensor, TryAdd, TryMatMul, TryMul,
};
#[cfg(feature = "cuda")]
pub(super) use on_cuda::{on_cuda, Plan};
use rayon::prelude::*;
use std::sync::Arc;

/// How many sequences there are, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSizes {
    /// How many sequences there are.
    pub batch: usize,
    /// The length of the sequences of queries.
    pub queries: usize,
    /// The length of the sequences of keys and values.
    pub keys: usize,
}

/// Which keys a query sees. By default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionMask {
    /// Query i sees keys 0 to i only.
    pub causal: bool,
    /// The keys that no query sees.
    pub keys: Option<KeyPadding>,
}

/// The positions of a batch of sequences that hold nothing but padding.
///
/// # Example
/// ```
/// use tlr_models::layers::KeyPadding;
///
/// let padding = KeyPadding::of(&[7, 8, 0, 9, 0, 0], 2, 0).ok_or("6 ids are two sequences")?;
/// assert_eq!(padding.padded(), [false, false, true, false, true, true]);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPadding {
    batch: usize,
    length: usize,
    padded: Arc<[bool]>,
}

impl KeyPadding {
    /// Where `pad` stands in `batch` sequences of equal length. `None` if ids are left over.
    ///
    /// Example: [`KeyPadding`].
    pub fn of(ids: &[usize], batch: usize, pad: usize) -> Option<Self> {
        let length = ids.len().checked_div(batch).unwrap_or(0);
        (batch * length == ids.len()).then(|| Self {
            batch,
            length,
            padded: ids.iter().map(|id| *id == pad).collect(),
        })
    }

    /// Whether each position is padding, sequence by sequence.
    pub fn padded(&self) -> &[bool] {
        &self.padded
    }

    /// The length of each sequence.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl AttentionMask {
    /// Whether query `query` of a sequence sees its key `key`.
    fn sees(&self, keys: usize, sequence: usize, query: usize, key: usize) -> bool {
        let padded = |padding: &KeyPadding| {
            padding.padded.get(sequence * keys + key).copied().unwrap_or_default()
        };
        !(self.causal && key > query || self.keys.as_ref().is_some_and(padded))
    }
}

/// Checks that the rows, the sizes and the mask agree.
pub(super) fn check<E, D, T, const M: usize>(
    q: &Rows<usize, M, E, D, T>,
    k: &Rows<usize, M, E, D, T>,
    v: &Rows<usize, M, E, D, T>,
    sizes: AttentionSizes,
    mask: &AttentionMask,
) -> Result<(), LayerError<<D as HasErr>::Err>>
where
    E: Dtype,
    D: Storage<E>,
{
    let AttentionSizes { batch, queries, keys } = sizes;
    let wrong = [("queries", q, queries), ("keys", k, keys), ("values", v, keys)]
        .into_iter()
        .find(|(_, rows, length)| batch.checked_mul(*length) != Some(rows.shape().0));
    let misfit = if let Some((of, rows, length)) = wrong {
        Misfit::SequenceRows { of, rows: rows.shape().0, batch, length }
    } else if let Some(padding) =
        mask.keys.as_ref().filter(|padding| (padding.batch, padding.length) != (batch, keys))
    {
        Misfit::Padding { padding: (padding.batch, padding.length), keys: (batch, keys) }
    } else {
        return Ok(());
    };
    Err(LayerError::Shape { layer: format!("attention of {M} features"), misfit })
}

/// Attention by dfdx's own operations, on any device.
pub(super) fn composed<E, D, T, const M: usize, const H: usize>(
    (q, k, v): QueryKeyValue<M, E, D, T>,
    AttentionSizes { batch, queries, keys }: AttentionSizes,
    mask: &AttentionMask,
    dropout: DropoutRate,
) -> Result<Rows<usize, M, E, D, T>, D::Err>
where
    E: Dtype,
    D: Device<E>,
    T: Tape<E, D>,
{
    const { assert!(H > 0 && M.is_multiple_of(H), "the heads have to divide the features") };
    let device = q.device().clone();
    let scores = (batch, Const::<H>, queries, keys);
    // Two tensors for the mask: one is added to the scores, and the weights are multiplied by the
    // other. A number far below any score stands for minus infinity, which would make NaN in a row
    // that sees nothing. After the softmax both give 0.
    let mut hidden = Vec::with_capacity(batch * queries * keys);
    let mut alive = Vec::with_capacity(batch * queries);
    let one = E::from_f64(1.0).unwrap_or_default();
    let lowest = E::from_f64(-1e30).unwrap_or_default();
    for sequence in 0..batch {
        for query in 0..queries {
            let sees = |key: &usize| mask.sees(keys, sequence, query, *key);
            let any = (0..keys).any(|key| sees(&key));
            alive.push(if any { one } else { E::default() });
            hidden.extend(
                (0..keys).map(|key| if any && !sees(&key) { lowest } else { E::default() }),
            );
        }
    }
    let hidden: Tensor<(usize, usize, usize), E, D> =
        device.try_tensor_from_vec(hidden, (batch, queries, keys))?;
    let alive: Tensor<(usize, usize), E, D> =
        device.try_tensor_from_vec(alive, (batch, queries))?;

    let q = q.try_reshape_like(&(batch, queries, Const::<H>, M / H))?;
    let k = k.try_reshape_like(&(batch, keys, Const::<H>, M / H))?;
    let v = v.try_reshape_like(&(batch, keys, Const::<H>, M / H))?;
    let q = q.try_permute::<_, Axes4<0, 2, 1, 3>>()?;
    let k = k.try_permute::<_, Axes4<0, 2, 3, 1>>()?;
    let v = v.try_permute::<_, Axes4<0, 2, 1, 3>>()?;
    let scale = E::from_f64(scale::<M, H>()).unwrap_or_default();
    let weights = q
        .try_matmul(k)?
        .try_mul(scale)?
        .try_add(hidden.retaped::<T>().try_broadcast_like::<_, Axis<1>>(&scores)?)?
        .try_softmax::<Axis<3>>()?;
    let alive: Tensor<(usize, Const<H>, usize), E, D> =
        alive.try_broadcast_like::<_, Axis<1>>(&(batch, Const::<H>, queries))?;
    let weights =
        weights.try_mul(alive.retaped::<T>().try_broadcast_like::<_, Axis<3>>(&scores)?)?;
    let weights = if dropout.get() > 0.0 { weights.try_dropout(dropout.get())? } else { weights };
    weights
        .try_matmul(v)?
        .try_permute::<_, Axes4<0, 2, 1, 3>>()?
        .try_reshape_like(&(batch * queries, Const::<M>))
}

fn scale<const M: usize, const H: usize>() -> f64 {
    1.0 / ((M / H) as f64).sqrt()
}

/// Copies one head out of a sequence of rows, into rows of its own.
fn gather<E: Element>(rows: &[E], width: usize, head: usize, size: usize, into: &mut Vec<E>) {
    into.clear();
    for row in rows.chunks_exact(width.max(1)) {
        into.extend(row.iter().skip(head * size).take(size));
    }
}

/// Writes one head's rows to their places in the sequence's.
fn scatter<E: Element>(from: &[E], width: usize, head: usize, size: usize, rows: &mut [E]) {
    for (row, from) in rows.chunks_exact_mut(width.max(1)).zip(from.chunks_exact(size.max(1))) {
        row.iter_mut().skip(head * size).zip(from).for_each(|(row, from)| *row = *from);
    }
}

/// `len` zeros, in the memory of `into`.
fn zeros<E: Element>(into: &mut Vec<E>, len: usize) -> &mut [E] {
    into.clear();
    into.resize(len, E::ZERO);
    into
}

/// Turns scores into weights. Each row is a query.
fn masked_softmax<E: Element>(
    scores: &mut [E],
    keys: usize,
    scale: f64,
    sees: impl Fn(usize, usize) -> bool,
) {
    let scale = E::of(scale);
    let unseen = E::neg_infinity();
    for (query, row) in scores.chunks_exact_mut(keys.max(1)).enumerate() {
        for (key, score) in row.iter_mut().enumerate() {
            *score = if sees(query, key) { *score * scale } else { unseen };
        }
        // The query sees no key: all its weights are 0.
        if row.iter().all(|score| *score == unseen) {
            row.fill(E::ZERO);
            continue;
        }
        let share = E::of(1.0 / exponentials(row).1);
        vectorized(|| row.iter_mut().for_each(|score| *score = *score * share));
    }
}

/// Attention on the CPU, in one pass each way. A thread takes one sequence at a time. All tensors
/// are contiguous, and agree with the sizes.
pub(super) fn on_cpu<E: Element + Dtype, T: Tape<E, Cpu>, const M: usize, const H: usize>(
    (q, k, v): QueryKeyValue<M, E, Cpu, T>,
    AttentionSizes { batch, queries, keys }: AttentionSizes,
    mask: &AttentionMask,
    dropout: DropoutRate,
) -> Result<Rows<usize, M, E, Cpu, T>, CpuError> {
    const { assert!(H > 0 && M.is_multiple_of(H), "the heads have to divide the features") };
    let size = M / H;
    let scale = scale::<M, H>();
    let ((q, q_tape), (k, k_tape), (v, v_tape)) = (q.split_tape(), k.split_tape(), v.split_tape());
    let mut tape = q_tape.merge(k_tape).merge(v_tape);
    let device = q.device().clone();
    let dropped = Dropped::new(dropout, &device);
    let (q_values, k_values, v_values) = (Scratch::of(&q), Scratch::of(&k), Scratch::of(&v));
    let mut y_values = buffer::zeros(&device, batch * queries * M)?;
    // After the softmax, before dropout: (batch, H, queries, keys).
    let mut weights = Scratch::any(batch * H * queries * keys);
    // The lengths of one sequence's queries and keys, and of one head's weights.
    let (of_queries, of_keys, of_head) = (queries * M, keys * M, queries * keys);
    y_values
        .shared_chunks_mut(of_queries.max(1))
        .zip(weights.par_chunks_mut((H * of_head).max(1)))
        .zip(q_values.par_chunks(of_queries.max(1)))
        .zip(k_values.par_chunks(of_keys.max(1)))
        .zip(v_values.par_chunks(of_keys.max(1)))
        .enumerate()
        .for_each(|(sequence, ((((y, weights), q), k), v))| {
            let [mut q_head, mut k_head, mut v_head, mut y_head, mut kept] =
                [const { Vec::new() }; 5];
            for (head, weights) in weights.chunks_exact_mut(of_head.max(1)).enumerate() {
                gather(q, M, head, size, &mut q_head);
                gather(k, M, head, size, &mut k_head);
                gather(v, M, head, size, &mut v_head);
                weights.fill(E::ZERO);
                gemm::add_product(
                    weights,
                    Matrix::new(&q_head, queries, size),
                    Matrix::new(&k_head, keys, size).transposed(),
                );
                masked_softmax(weights, keys, scale, |query, key| {
                    mask.sees(keys, sequence, query, key)
                });
                let kept = match dropped {
                    Some(dropped) => {
                        let first = (sequence * H + head) * of_head;
                        drop_weights(weights, dropped, first, &mut kept)
                    }
                    None => weights,
                };
                let y_head = zeros(&mut y_head, queries * size);
                gemm::add_product(
                    y_head,
                    Matrix::new(kept, queries, keys),
                    Matrix::new(&v_head, keys, size),
                );
                scatter(y_head, M, head, size, y);
            }
        });
    let y = buffer::tensor(&device, y_values, (batch * queries, Const::<M>))?;

    let ghosts = (q.ghost(), k.ghost(), v.ghost(), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (q, k, v, y) = ghosts;
        let y_gradient = buffer::take(gradients.get_or_alloc_mut(&y)?);
        // Kept apart from the gradients that they are added to: those may be one and the same.
        // Without keys or queries nothing is written here.
        let mut dq = Scratch::zeros(batch * of_queries);
        let mut dk = Scratch::zeros(batch * of_keys);
        let mut dv = Scratch::zeros(batch * of_keys);
        dq.shared_chunks_mut(of_queries.max(1))
            .zip(dk.par_chunks_mut(of_keys.max(1)))
            .zip(dv.par_chunks_mut(of_keys.max(1)))
            .zip(y_gradient.par_chunks(of_queries.max(1)))
            .zip(weights.par_chunks((H * of_head).max(1)))
            .zip(q_values.par_chunks(of_queries.max(1)))
            .zip(k_values.par_chunks(of_keys.max(1)))
            .zip(v_values.par_chunks(of_keys.max(1)))
            .enumerate()
            .for_each(|(sequence, (((((((dq, dk), dv), dy), weights), q), k), v))| {
                let [mut q_head, mut k_head, mut v_head, mut dy_head] = [const { Vec::new() }; 4];
                let [mut kept, mut scores, mut product] = [const { Vec::new() }; 3];
                for (head, weights) in weights.chunks_exact(of_head.max(1)).enumerate() {
                    gather(q, M, head, size, &mut q_head);
                    gather(k, M, head, size, &mut k_head);
                    gather(v, M, head, size, &mut v_head);
                    gather(dy, M, head, size, &mut dy_head);
                    let upstream = Matrix::new(&dy_head, queries, size);
                    let first = (sequence * H + head) * of_head;
                    let kept = match dropped {
                        Some(dropped) => drop_weights(weights, dropped, first, &mut kept),
                        None => weights,
                    };
                    let kept = Matrix::new(kept, queries, keys).transposed();
                    let product_v = zeros(&mut product, keys * size);
                    gemm::add_product(product_v, kept, upstream);
                    scatter(product_v, M, head, size, dv);

                    let scores = zeros(&mut scores, of_head);
                    let values = Matrix::new(&v_head, keys, size).transposed();
                    gemm::add_product(scores, upstream, values);
                    if let Some(dropped) = dropped {
                        drop_all(scores, dropped, first);
                    }
                    softmax_gradient(scores, weights, keys, scale);

                    let scores = Matrix::new(scores, queries, keys);
                    let product_q = zeros(&mut product, queries * size);
                    gemm::add_product(product_q, scores, Matrix::new(&k_head, keys, size));
                    scatter(product_q, M, head, size, dq);
                    let product_k = zeros(&mut product, keys * size);
                    let queries = Matrix::new(&q_head, queries, size);
                    gemm::add_product(product_k, scores.transposed(), queries);
                    scatter(product_k, M, head, size, dk);
                }
            });
        **gradients.get_or_alloc_mut(&y)? = y_gradient;
        for (ghost, gradient) in [(q, dq), (k, dk), (v, dv)] {
            let into = gradients.get_or_alloc_mut(&ghost)?;
            vectorized(|| into.iter_mut().zip(gradient.iter()).for_each(|(into, d)| *into += *d));
        }
        Ok(())
    });
    Ok(y.put_tape(tape))
}

/// The weights that dropout leaves. `first` is the index of the first of them among all.
fn drop_weights<'a, E: Element>(
    weights: &[E],
    dropped: Dropped,
    first: usize,
    into: &'a mut Vec<E>,
) -> &'a [E] {
    into.clear();
    into.extend_from_slice(weights);
    drop_all(into, dropped, first);
    into
}

/// Multiplies each element by its factor of dropout.
fn drop_all<E: Element>(values: &mut [E], dropped: Dropped, first: usize) {
    vectorized(|| {
        for (index, value) in values.iter_mut().enumerate() {
            *value = *value * dropped.factor(first + index);
        }
    });
}

/// Turns the weights' gradients into those of the scores. Masked weights have a gradient of 0.
fn softmax_gradient<E: Element>(gradient: &mut [E], weights: &[E], keys: usize, scale: f64) {
    let width = keys.max(1);
    for (gradient, weights) in gradient.chunks_exact_mut(width).zip(weights.chunks_exact(width)) {
        vectorized(|| {
            let mean: f64 = gradient.iter().zip(weights).map(|(g, w)| g.to() * w.to()).sum();
            for (gradient, weight) in gradient.iter_mut().zip(weights) {
                *gradient = E::of(weight.to() * (gradient.to() - mean) * scale);
            }
        });
    }
}

#[cfg(test)]
mod tests;
