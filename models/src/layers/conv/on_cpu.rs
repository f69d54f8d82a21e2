//! A convolution on the CPU, forwards and backwards: directly, or by columns and matrix products.

use super::{columns, direct, geometry, Conv2dOptions, Convolved, Filters, Geometry, Planes};
use crate::layers::{
    buffer,
    element::Element,
    scratch::Scratch,
    simd::{self, vectorized},
};
use dfdx::prelude::{
    Const, Cpu, CpuError, Dim, Dtype, Gradients, HasShape, PutTape, Rank1, SplitTape, Tape, Tensor,
};
use rayon::prelude::*;

/// A convolution on the CPU: each thread takes some images. All tensors are contiguous.
pub(in crate::layers) fn on_cpu<
    B,
    H,
    W,
    E,
    T,
    const I: usize,
    const O: usize,
    const K: usize,
    const G: usize,
>(
    x: Planes<B, I, H, W, E, Cpu, T>,
    weight: Filters<I, O, K, G, E, Cpu>,
    bias: Option<Tensor<Rank1<O>, E, Cpu>>,
    options: Conv2dOptions,
) -> Convolved<B, O, E, Cpu, T>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype + Element,
    T: Tape<E, Cpu>,
{
    let (x, mut tape) = x.split_tape();
    let &(batch, _, height, width) = x.shape();
    let size = (batch.size(), height.size(), width.size());
    let geometry = geometry::<I, O, K, G, CpuError>(size, options.sliding)?;
    let device = x.device().clone();
    let x_values = Scratch::of(&x);
    let weight_values = Scratch::of(&weight);

    let mut y_values = buffer::zeros(&device, geometry.batch * geometry.out_image())?;
    if let Some(bias) = &bias {
        let planes = y_values.chunks_exact_mut(geometry.out_pixels());
        let bias = Scratch::of(bias);
        planes.zip(bias.iter().cycle()).for_each(|(plane, bias)| plane.fill(*bias));
    }
    forward(&geometry, &x_values, &weight_values, &mut y_values);
    let shape = (batch, Const::<O>, geometry.out_height, geometry.out_width);
    let y = buffer::tensor(&device, y_values, shape)?;

    let ghosts = (x.ghost(), weight.ghost(), bias.map(|bias| bias.ghost()), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, weight, bias, y) = ghosts;
        let y_gradient = buffer::take(gradients.get_or_alloc_mut(&y)?);
        if let Some(bias) = bias {
            let bias_gradient = gradients.get_or_alloc_mut(&bias)?;
            let mut sums = Scratch::<f64>::zeros(O);
            vectorized(|| {
                let planes = y_gradient.chunks_exact(geometry.out_pixels());
                for (plane, channel) in planes.zip((0..O).cycle()) {
                    sums[channel] += simd::sum(plane, E::to);
                }
            });
            bias_gradient.iter_mut().zip(sums.iter()).for_each(|(to, sum)| *to += E::of(*sum));
        }
        let mut weight_gradient = buffer::take(gradients.get_or_alloc_mut(&weight)?);
        let mut x_gradient = match options.input_gradient {
            true => Some(buffer::take(gradients.get_or_alloc_mut(&x)?)),
            false => None,
        };
        backward(
            &geometry,
            &x_values,
            &weight_values,
            &y_gradient,
            x_gradient.as_deref_mut(),
            &mut weight_gradient,
        );
        **gradients.get_or_alloc_mut(&weight)? = weight_gradient;
        if let Some(x_gradient) = x_gradient {
            **gradients.get_or_alloc_mut(&x)? = x_gradient;
        }
        **gradients.get_or_alloc_mut(&y)? = y_gradient;
        Ok(())
    });
    Ok(y.put_tape(tape))
}

/// The sums of the weights' gradients have at most this many parts, which are added at the end, in
/// order: the result does not depend on the number of threads.
const PARTS: usize = 8;

/// How many elements all parts have together, at most.
const PARTS_ELEMENTS: usize = 16 << 20;

/// `y` ← `y` + the convolution of `x` with `weight`, by the way that suits its sizes.
fn forward<E: Element>(g: &Geometry, x: &[E], weight: &[E], y: &mut [E]) {
    if x.is_empty() || y.is_empty() {
        return;
    }
    if let (true, Some(x), Some(weight)) = (direct::suits(g), E::singles(x), E::singles(weight))
        && let Some(y) = E::singles_mut(y)
    {
        return direct::forward(g, x, weight, y);
    }
    columns::forward(g, x, weight, y);
}

/// Adds what some images contribute to the gradients, by the way that suits the sizes.
fn part<E: Element>(
    g: &Geometry,
    x: &[E],
    weight: &[E],
    y_gradient: &[E],
    mut x_gradient: Option<&mut [E]>,
    weight_gradient: &mut [E],
) {
    let singles = (E::singles(x), E::singles(weight), E::singles(y_gradient));
    if let (true, (Some(x), Some(weight), Some(y_gradient))) = (direct::suits(g), singles) {
        let x_gradient = x_gradient.as_deref_mut().and_then(E::singles_mut);
        if let Some(weight_gradient) = E::singles_mut(weight_gradient) {
            return direct::part(g, x, weight, y_gradient, x_gradient, weight_gradient);
        }
    }
    columns::part(g, x, weight, y_gradient, x_gradient, weight_gradient);
}

/// Adds to the gradients of the input, where it is wanted, and of the weight.
fn backward<E: Element>(
    g: &Geometry,
    x: &[E],
    weight: &[E],
    y_gradient: &[E],
    x_gradient: Option<&mut [E]>,
    weight_gradient: &mut [E],
) {
    if x.is_empty() || y_gradient.is_empty() || weight.is_empty() {
        return;
    }
    // Whole units, so that a part's blocks are the same whatever the number of parts.
    let together = match direct::suits(g) && E::singles(x).is_some() {
        true => direct::together(g),
        false => g.together(),
    };
    let units = g.batch.div_ceil(together);
    let parts = PARTS.min(units).min((PARTS_ELEMENTS / weight.len()).max(1));
    let images = units.div_ceil(parts) * together;
    let mut sums = Scratch::zeros(g.batch.div_ceil(images) * weight.len());
    let work = sums
        .par_chunks_exact_mut(weight.len())
        .with_min_len(g.least())
        .zip(x.par_chunks(images * g.image()))
        .zip(y_gradient.par_chunks(images * g.out_image()));
    match x_gradient {
        Some(x_gradient) => {
            work.zip(x_gradient.par_chunks_mut(images * g.image())).for_each(
                |(((sum, x), y_gradient), x_gradient)| {
                    part(g, x, weight, y_gradient, Some(x_gradient), sum);
                },
            );
        }
        None => work.for_each(|((sum, x), y_gradient)| part(g, x, weight, y_gradient, None, sum)),
    }
    for sum in sums.chunks_exact(weight.len()) {
        weight_gradient.iter_mut().zip(sum).for_each(|(total, sum)| *total += *sum);
    }
}
