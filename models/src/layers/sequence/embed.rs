//! Token ids to vectors, with the sinusoids of their positions.

#[cfg(feature = "cuda")]
mod on_cuda;

#[cfg(feature = "cuda")]
pub(super) use on_cuda::on_cuda;

use super::{Ids, Sequences};
use crate::layers::{buffer, element::Element, scratch::Scratch, LayerError, Misfit};
use dfdx::prelude::{
    Axis, BroadcastTo, Const, Cpu, CpuError, Device, Dtype, GatherTo, Gradients, HasShape, PutTape,
    Rank2, SplitTape, Tape, Tensor, TryAdd, TryMul,
};

/// The options of an embedding. By default it only looks up rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingOptions {
    /// What the rows are multiplied by. Default 1; in a transformer it is √M.
    pub scale: f64,
    /// Whether the sinusoids of the positions are added afterwards: `sin(p / 10000^(2i/M))` to
    /// feature 2i of position p, and the cosine of the same to feature 2i + 1. Default no.
    pub positions: bool,
}

impl Default for EmbeddingOptions {
    fn default() -> Self {
        Self { scale: 1.0, positions: false }
    }
}

/// Checks that all ids are in the vocabulary.
pub(super) fn check<const V: usize, Err>(ids: &[usize]) -> Result<(), LayerError<Err>> {
    match ids.iter().find(|id| **id >= V) {
        Some(id) => Err(LayerError::Shape {
            layer: format!("embedding of {V} tokens"),
            misfit: Misfit::TokenId { id: *id, tokens: V },
        }),
        None => Ok(()),
    }
}

/// The sinusoids of the positions, `width` features each.
fn sinusoids<E: Dtype>(length: usize, width: usize) -> Vec<E> {
    let frequencies: Vec<f64> = (0..width.div_ceil(2))
        .map(|pair| (-((2 * pair) as f64) * 10_000f64.ln() / width as f64).exp())
        .collect();
    let mut table = Vec::with_capacity(length * width);
    for position in 0..length {
        for feature in 0..width {
            let angle = position as f64 * frequencies.get(feature / 2).copied().unwrap_or_default();
            let value = if feature % 2 == 0 { angle.sin() } else { angle.cos() };
            // A float always has such a number.
            table.push(E::from_f64(value).unwrap_or_default());
        }
    }
    table
}

/// The embedding by dfdx's own operations, on any device.
pub(super) fn composed<E: Dtype, D: Device<E>, T: Tape<E, D>, const V: usize, const M: usize>(
    ids: Ids<D, T>,
    weight: &Tensor<Rank2<V, M>, E, D>,
    options: EmbeddingOptions,
) -> Result<Sequences<M, E, D, T>, D::Err> {
    let (ids, tape) = ids.split_tape();
    let &(batch, length) = ids.shape();
    let device = weight.device().clone();
    let y: Sequences<M, E, D, T> = weight.clone().put_tape(tape).try_gather(ids)?;
    let y = match E::from_f64(options.scale) {
        Some(scale) if options.scale != 1.0 => y.try_mul(scale)?,
        _ => y,
    };
    if options.positions {
        let shape = (length, Const::<M>);
        let table: Tensor<(usize, Const<M>), E, D> =
            device.try_tensor_from_vec(sinusoids(length, M), shape)?;
        y.try_add(table.retaped::<T>().try_broadcast_like::<_, Axis<0>>(&(batch, length, Const))?)
    } else {
        Ok(y)
    }
}

/// The embedding on the CPU, in one pass. The weight is contiguous, and `values` are the ids, all
/// of them below `V`.
pub(super) fn on_cpu<E: Element + Dtype, T: Tape<E, Cpu>, const V: usize, const M: usize>(
    ids: Ids<Cpu, T>,
    values: Vec<usize>,
    weight: Tensor<Rank2<V, M>, E, Cpu>,
    options: EmbeddingOptions,
) -> Result<Sequences<M, E, Cpu, T>, CpuError> {
    let (ids, mut tape) = ids.split_tape();
    let &(batch, length) = ids.shape();
    let device = weight.device().clone();
    let weight_values = Scratch::of(&weight);
    let positions = if options.positions { sinusoids::<E>(length, M) } else { Vec::new() };
    let scale = E::of(options.scale);
    let width = M.max(1);
    let mut y_values = buffer::zeros(&device, batch * length * M)?;
    for (row, (y, id)) in y_values.chunks_exact_mut(width).zip(&values).enumerate() {
        let weight = weight_values.chunks_exact(width).nth(*id).unwrap_or_default();
        y.iter_mut().zip(weight).for_each(|(y, weight)| *y = *weight * scale);
        let position = row.checked_rem(length).unwrap_or(0);
        if let Some(position) = positions.chunks_exact(width).nth(position) {
            y.iter_mut().zip(position).for_each(|(y, position)| *y += *position);
        }
    }
    let y = buffer::tensor(&device, y_values, (batch, length, Const::<M>))?;

    let ghosts = (weight.ghost(), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (weight, y) = ghosts;
        let y_gradient = buffer::take(gradients.get_or_alloc_mut(&y)?);
        let weight_gradient = gradients.get_or_alloc_mut(&weight)?;
        for (dy, id) in y_gradient.chunks_exact(width).zip(&values) {
            if let Some(weight) = weight_gradient.chunks_exact_mut(width).nth(*id) {
                weight.iter_mut().zip(dy).for_each(|(weight, dy)| *weight += *dy * scale);
            }
        }
        **gradients.get_or_alloc_mut(&y)? = y_gradient;
        Ok(())
    });
    Ok(y.put_tape(tape))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::check::*;
    use crate::layers::SequenceKernels;
    use dfdx::prelude::*;

    const OPTIONS: [EmbeddingOptions; 3] = [
        EmbeddingOptions { scale: 1.0, positions: false },
        EmbeddingOptions { scale: 2.5, positions: false },
        EmbeddingOptions { scale: 2.5, positions: true },
    ];

    fn ids(dev: &Cpu) -> Ids<Cpu> {
        // One id occurs three times, and one never.
        dev.tensor_from_vec(vec![3, 0, 3, 1, 3, 4], (2, 3))
    }

    // Fails for a wrong row, scale or position, or a gradient that forgets the first of a token's
    // uses.
    #[test]
    fn as_composed_of_dfdx_operations() {
        fn run<const M: usize>(options: EmbeddingOptions) {
            let dev = Cpu::seed_from_u64(7);
            let weight: Tensor<Rank2<5, M>, f64, _> = dev.sample_normal();
            let both = [
                Cpu::try_embedding(ids(&dev).leaky_traced(), &weight, options).unwrap(),
                composed(ids(&dev).leaky_traced(), &weight, options).unwrap(),
            ];
            let [ours, theirs] = both.map(|y: Sequences<M, f64, Cpu, Owned>| {
                let values = y.as_vec();
                vec![values, curved(y).backward().get(&weight).as_vec()]
            });
            all_close(&ours, &theirs);
        }
        for options in OPTIONS {
            run::<1>(options);
            run::<6>(options);
            run::<7>(options);
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let dev = Cpu::seed_from_u64(7);
        let weight: Tensor<Rank2<5, 3>, f64, _> = dev.sample_normal();
        for options in OPTIONS {
            differences(&weight, |weight| {
                let ids: Ids<Cpu, Owned> = ids(&dev).leaky_traced();
                curved(Cpu::try_embedding(ids, &weight.retaped(), options).unwrap())
            });
        }
    }

    // Position 2 of 4 features: sines and cosines of 2 and of 2/100.
    #[test]
    fn sinusoids_by_hand() {
        let table = sinusoids::<f64>(3, 4);
        let expected = [2f64.sin(), 2f64.cos(), 0.02f64.sin(), 0.02f64.cos()];
        for (ours, theirs) in table[8..].iter().zip(expected) {
            assert!((ours - theirs).abs() < 1e-15);
        }
        assert_eq!(table[..4], [0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn an_unknown_token_is_an_error() {
        let dev = Cpu::default();
        let weight: Tensor<Rank2<4, 3>, f64, _> = dev.zeros();
        let y = Cpu::try_embedding(ids(&dev), &weight, EmbeddingOptions::default());
        let misfit = Misfit::TokenId { id: 4, tokens: 4 };
        assert!(matches!(y, Err(LayerError::Shape { misfit: found, .. }) if found == misfit));
    }
}
