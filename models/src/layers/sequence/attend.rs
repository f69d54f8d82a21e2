//! Attention: scores, masked softmax and weighted sum.

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
    LayerError,
};
use dfdx::prelude::{
    Axes4, Axis, BroadcastTo, Const, Cpu, CpuError, Device, Dtype, Gradients, HasErr, HasShape,
    PermuteTo, PutTape, ReshapeTo, SplitTape, Storage, Tape, Tensor, TryAdd, TryMatMul, TryMul,
};
use rayon::prelude::*;
use std::sync::Arc;

/// How many sequences there are, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSizes {
    /// Sequences.
    pub batch: usize,
    /// Length of those that ask.
    pub queries: usize,
    /// Length of those that answer.
    pub keys: usize,
}

/// Which keys a query sees. By default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionMask {
    /// Query i sees keys 0 to i only.
    pub causal: bool,
    /// These keys are seen by no query.
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
    /// Where `pad` stands in `batch` sequences of ids of the same length; none if the ids cannot be
    /// divided so.
    pub fn of(ids: &[usize], batch: usize, pad: usize) -> Option<Self> {
        let length = ids.len().checked_div(batch).unwrap_or(0);
        (batch * length == ids.len()).then(|| Self {
            batch,
            length,
            padded: ids.iter().map(|id| *id == pad).collect(),
        })
    }

    /// Position by position, sequence by sequence.
    pub fn padded(&self) -> &[bool] {
        &self.padded
    }

    /// Of each of the `batch` sequences.
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

/// Whether the rows, the sizes and the mask agree.
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
    let what = if let Some((name, rows, length)) = wrong {
        let rows = rows.shape().0;
        format!("{rows} rows of {name}, and {batch} sequences of {length} ask for others")
    } else if let Some(padding) =
        mask.keys.as_ref().filter(|padding| (padding.batch, padding.length) != (batch, keys))
    {
        let (length, other) = (padding.length, padding.batch);
        format!("a padding of {other} sequences of {length} for {batch} of {keys} keys")
    } else {
        return Ok(());
    };
    Err(LayerError::Shape { layer: format!("attention of {M} features"), what })
}

/// By dfdx's own operations, on any device.
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
    // Two tensors for the mask: what is added to the scores, and by what the weights are multiplied.
    // A number far below any score stands for minus infinity, of which a row that sees nothing would
    // make NaN; after the softmax it is 0 just the same.
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

/// One head of a sequence of rows of `M`, side by side.
fn gather<E: Element>(rows: &[E], width: usize, head: usize, size: usize, into: &mut Vec<E>) {
    into.clear();
    for row in rows.chunks_exact(width.max(1)) {
        into.extend(row.iter().skip(head * size).take(size));
    }
}

/// The way back.
fn scatter<E: Element>(from: &[E], width: usize, head: usize, size: usize, rows: &mut [E]) {
    for (row, from) in rows.chunks_exact_mut(width.max(1)).zip(from.chunks_exact(size.max(1))) {
        row.iter_mut().skip(head * size).zip(from).for_each(|(row, from)| *row = *from);
    }
}

/// Rows of `width` zeros, in memory that is there.
fn zeros<E: Element>(into: &mut Vec<E>, len: usize) -> &mut [E] {
    into.clear();
    into.resize(len, E::ZERO);
    into
}

/// Scores to weights, one query a row.
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
        // Nothing is seen: nothing is averaged.
        if row.iter().all(|score| *score == unseen) {
            row.fill(E::ZERO);
            continue;
        }
        let share = E::of(1.0 / exponentials(row).1);
        vectorized(|| row.iter_mut().for_each(|score| *score = *score * share));
    }
}

/// In one pass each way, a thread a sequence. All tensors are contiguous, and agree with the sizes.
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
    // Pieces of each buffer that belong to one sequence, and of the weights to one head of it.
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
        // Apart from the gradients they are added to, as those may be one and the same.
        let mut dq = Scratch::any(batch * of_queries);
        let mut dk = Scratch::any(batch * of_keys);
        let mut dv = Scratch::any(batch * of_keys);
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

/// Multiplies elements by what dropout has for them.
fn drop_all<E: Element>(values: &mut [E], dropped: Dropped, first: usize) {
    vectorized(|| {
        for (index, value) in values.iter_mut().enumerate() {
            *value = *value * dropped.factor(first + index);
        }
    });
}

/// Gradients of the weights to gradients of the scores. Where the weight is 0, for being masked, so is
/// the gradient.
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::check::*;
    use crate::layers::SequenceKernels;
    use dfdx::prelude::*;

    type Matrix<const M: usize> = Tensor<(usize, Const<M>), f64, Cpu>;

    fn rows<const M: usize>(dev: &Cpu, rows: usize) -> Matrix<M> {
        dev.sample_like(&(rows, Const), rand_distr::StandardNormal)
    }

    /// The last key of the first sequence is padding, and all of the last sequence.
    fn padding(batch: usize, keys: usize) -> KeyPadding {
        let ids: Vec<usize> = (0..batch * keys)
            .map(|index| usize::from(index == keys - 1 || index / keys == batch - 1))
            .collect();
        KeyPadding::of(&ids, batch, 1).unwrap()
    }

    fn masks(batch: usize, keys: usize) -> [AttentionMask; 4] {
        [(false, None), (true, None), (false, Some(())), (true, Some(()))].map(|(causal, some)| {
            AttentionMask { causal, keys: some.map(|()| padding(batch, keys)) }
        })
    }

    type Inputs<const M: usize> = QueryKeyValue<M, f64, Cpu, Owned>;

    fn run<const M: usize, const H: usize>(
        sizes: AttentionSizes,
        mask: &AttentionMask,
        attention: impl Fn(
            Inputs<M>,
            AttentionSizes,
            &AttentionMask,
            DropoutRate,
        ) -> Rows<usize, M, f64, Cpu, Owned>,
    ) -> Vec<Vec<f64>> {
        let dev = Cpu::seed_from_u64(7);
        let q = rows::<M>(&dev, sizes.batch * sizes.queries);
        let k = rows::<M>(&dev, sizes.batch * sizes.keys);
        let v = rows::<M>(&dev, sizes.batch * sizes.keys);
        let inputs = (q.leaky_trace(), k.leaky_trace(), v.leaky_trace());
        let y = attention(inputs, sizes, mask, DropoutRate::NONE);
        let values = y.as_vec();
        let g = curved(y).backward();
        vec![values, g.get(&q).as_vec(), g.get(&k).as_vec(), g.get(&v).as_vec()]
    }

    // dfdx's own operations are the oracle. Fails for a wrong head, scale, mask or transposition.
    fn equals_composed<const M: usize, const H: usize>() {
        for (batch, queries, keys) in [(1, 1, 1), (2, 3, 5), (3, 6, 6), (2, 5, 2)] {
            let sizes = AttentionSizes { batch, queries, keys };
            for mask in masks(batch, keys) {
                let ours = run::<M, H>(sizes, &mask, |inputs, sizes, mask, rate| {
                    Cpu::try_attention::<_, M, H>(inputs, sizes, mask, rate).unwrap()
                });
                let theirs = run::<M, H>(sizes, &mask, |inputs, sizes, mask, rate| {
                    composed::<_, _, _, M, H>(inputs, sizes, mask, rate).unwrap()
                });
                all_close(&ours, &theirs);
            }
        }
    }

    #[test]
    fn as_composed_of_dfdx_operations() {
        equals_composed::<1, 1>();
        equals_composed::<6, 1>();
        equals_composed::<6, 2>();
        equals_composed::<8, 8>();
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let dev = Cpu::seed_from_u64(7);
        let sizes = AttentionSizes { batch: 2, queries: 3, keys: 3 };
        let (q, k, v) = (rows::<4>(&dev, 6), rows::<4>(&dev, 6), rows::<4>(&dev, 6));
        for mask in masks(2, 3) {
            let attend = |q, k, v| {
                let y = Cpu::try_attention::<_, 4, 2>((q, k, v), sizes, &mask, DropoutRate::NONE);
                curved(y.unwrap())
            };
            differences(&q, |q| attend(q, k.retaped(), v.retaped()));
            differences(&k, |k| attend(q.retaped(), k, v.retaped()));
            differences(&v, |v| attend(q.retaped(), k.retaped(), v));
        }
    }

    // What is masked has no influence at all, not even by a NaN or by being huge.
    #[test]
    fn masked_keys_have_no_influence() {
        let sizes = AttentionSizes { batch: 2, queries: 3, keys: 4 };
        let mask = AttentionMask { causal: false, keys: Some(padding(2, 4)) };
        let dev = Cpu::seed_from_u64(7);
        let (q, k, v) = (rows::<4>(&dev, 6), rows::<4>(&dev, 8), rows::<4>(&dev, 8));
        let mut other = (k.as_vec(), v.as_vec());
        for index in 12..16 {
            (other.0[index], other.1[index]) = (1e200, 17.0);
        }
        let attend = |k: Vec<f64>, v: Vec<f64>| {
            let rows = |values| dev.tensor_from_vec(values, (8, Const::<4>));
            let inputs = (q.clone(), rows(k), rows(v));
            Cpu::try_attention::<_, 4, 2>(inputs, sizes, &mask, DropoutRate::NONE).unwrap().as_vec()
        };
        assert_eq!(attend(k.as_vec(), v.as_vec()), attend(other.0, other.1));
    }

    // The last sequence is all padding. Fails with NaN if its softmax is 0/0.
    #[test]
    fn a_query_that_sees_nothing_gets_zeros() {
        let sizes = AttentionSizes { batch: 2, queries: 3, keys: 3 };
        for mask in &masks(2, 3)[2..] {
            let [y, q, k, v] = &run::<4, 2>(sizes, mask, |inputs, sizes, mask, rate| {
                Cpu::try_attention::<_, 4, 2>(inputs, sizes, mask, rate).unwrap()
            })[..] else {
                unreachable!()
            };
            assert_eq!(y[12..], [0.0; 12]);
            assert_eq!(q[12..], [0.0; 12]);
            assert_eq!(k[12..], [0.0; 12]);
            assert_eq!(v[12..], [0.0; 12]);
            assert!(q[..12].iter().any(|g| *g != 0.0));
        }
    }

    // The upper triangle is 0: the first query copies the first value.
    #[test]
    fn causal() {
        let dev = Cpu::seed_from_u64(7);
        let (q, k, v) = (rows::<4>(&dev, 5), rows::<4>(&dev, 5), rows::<4>(&dev, 5));
        let sizes = AttentionSizes { batch: 1, queries: 5, keys: 5 };
        let mask = AttentionMask { causal: true, keys: None };
        let inputs = (q, k, v.clone());
        let y = Cpu::try_attention::<_, 4, 2>(inputs, sizes, &mask, DropoutRate::NONE).unwrap();
        for (y, v) in y.as_vec()[..4].iter().zip(v.as_vec()) {
            assert!((y - v).abs() < 1e-15);
        }
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let sizes = AttentionSizes { batch: 7, queries: 33, keys: 40 };
        let mask = AttentionMask { causal: true, keys: Some(padding(7, 40)) };
        same_for_any_threads(|| {
            run::<24, 3>(sizes, &mask, |inputs, sizes, mask, _| {
                let rate = DropoutRate::new(0.2).unwrap();
                Cpu::try_attention::<_, 24, 3>(inputs, sizes, mask, rate).unwrap()
            })
        });
    }

    // The derivative by v in the direction of v is y, dropout or not, as y is linear in v; and by the
    // scores, seen through finite differences on a device that draws the same each time.
    #[test]
    fn dropout_is_the_same_backwards() {
        let sizes = AttentionSizes { batch: 2, queries: 4, keys: 4 };
        let rate = DropoutRate::new(0.5).unwrap();
        let at = |step: f64| {
            let dev = Cpu::seed_from_u64(11);
            let (q, k, v) = (rows::<6>(&dev, 8), rows::<6>(&dev, 8), rows::<6>(&dev, 8));
            let along = rows::<6>(&dev, 8);
            let q = q + along.clone() * step;
            let inputs = (q.leaky_trace(), k.leaky_trace(), v.leaky_trace());
            let mask = AttentionMask { causal: true, keys: None };
            let y = Cpu::try_attention::<_, 6, 2>(inputs, sizes, &mask, rate).unwrap();
            let dropped = y.as_vec();
            let c = rows::<6>(&dev, 8);
            let loss = (y * c).sum::<Rank0, _>();
            let value: f64 = loss.array();
            let g = loss.backward();
            let by_q: f64 = (g.get(&q) * along).sum::<Rank0, _>().array();
            let by_v: f64 = (g.get(&v) * v).sum::<Rank0, _>().array();
            (dropped, value, by_q, by_v)
        };
        let (dropped, value, by_q, by_v) = at(0.0);
        // In a causal mask the first query sees one key: dropped in some head, or doubled.
        assert!(dropped.contains(&0.0));
        assert!((by_v - value).abs() < 1e-12);
        let difference = (at(1e-5).1 - at(-1e-5).1) / 2e-5;
        assert!((difference - by_q).abs() < 1e-8, "{by_q} for {difference}");
    }

    // q = k = v. Fails if one gradient replaces another.
    #[test]
    fn all_inputs_can_be_one_tensor() {
        let dev = Cpu::seed_from_u64(7);
        let x = rows::<4>(&dev, 6);
        let sizes = AttentionSizes { batch: 2, queries: 3, keys: 3 };
        differences(&x, |x| {
            let inputs = (x.with_empty_tape(), x.with_empty_tape(), x);
            let mask = AttentionMask::default();
            curved(Cpu::try_attention::<_, 4, 2>(inputs, sizes, &mask, DropoutRate::NONE).unwrap())
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_errors() {
        let dev = Cpu::default();
        let attend = |sizes, mask: &AttentionMask| {
            let inputs = (rows::<4>(&dev, 6), rows::<4>(&dev, 8), rows::<4>(&dev, 8));
            Cpu::try_attention::<_, 4, 2>(inputs, sizes, mask, DropoutRate::NONE)
        };
        let fits = AttentionSizes { batch: 2, queries: 3, keys: 4 };
        let mask = AttentionMask::default();
        assert!(attend(fits, &mask).is_ok());
        for sizes in [
            AttentionSizes { batch: 1, ..fits },
            AttentionSizes { queries: 4, ..fits },
            AttentionSizes { keys: 3, ..fits },
        ] {
            assert!(matches!(attend(sizes, &mask), Err(LayerError::Shape { .. })));
        }
        let mask = AttentionMask { causal: false, keys: Some(padding(4, 2)) };
        assert!(matches!(attend(fits, &mask), Err(LayerError::Shape { .. })));
    }
}
