//! Batch normalization on the CPU, forwards and backwards, on all threads.

use super::{
    channel::{apply, passing, Channel, TOGETHER},
    sums::{sum, sums},
    Normalized,
};
use crate::layers::{
    buffer,
    element::Element,
    scratch::Scratch,
    shares::{least, Shares as _},
    simd::vectorized,
    Planes,
};
use dfdx::prelude::{
    Cpu, CpuError, Dim, Dtype, Gradients, HasShape, NoneTape, PutTape, Rank1, SplitTape, Tape,
    Tensor, TensorFromVec,
};
use rayon::prelude::*;

/// Normalizes by the statistics of the batch, in training. A thread first takes the statistics of
/// one channel, and then a few planes. `x` is contiguous.
pub(in crate::layers) fn train_on_cpu<B, H, W, E, T, const C: usize, const RELU: bool>(
    x: Planes<B, C, H, W, E, Cpu, T>,
    [weight, bias]: [&Tensor<Rank1<C>, E, Cpu>; 2],
    eps: f64,
) -> Normalized<B, H, W, E, Cpu, T, C>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype + Element,
    T: Tape<E, Cpu>,
{
    let (x, mut tape) = x.split_tape();
    let shape = *x.shape();
    let pixels = (shape.2.size() * shape.3.size()).max(1);
    let device = x.device().clone();
    let x_values = Scratch::of(&x);
    let (weight_values, bias_values) = (Scratch::of(weight), Scratch::of(bias));
    let count = (shape.0.size() * pixels) as f64;
    // The planes of a channel.
    fn planes<E>(
        values: &[E],
        pixels: usize,
        (channel, channels): (usize, usize),
    ) -> impl Iterator<Item = &[E]> {
        values.chunks_exact(pixels).skip(channel).step_by(channels.max(1))
    }
    let statistics: Vec<(f64, f64)> = (0..C)
        .into_par_iter()
        .with_min_len(least(x_values.len()))
        .map(|channel| {
            let planes = || planes(&x_values, pixels, (channel, C));
            let mean = sum(planes(), |x| x) / count;
            let center: E = E::of(mean);
            (mean, sum(planes(), |x| (x - center) * (x - center)) / count)
        })
        .collect();
    let channels: Vec<_> = statistics
        .iter()
        .zip(weight_values.iter().zip(bias_values.iter()))
        .map(|(&(mean, var), (weight, bias))| Channel::new(mean, var, eps, *weight, *bias))
        .collect();
    let mut y_values = buffer::zeros(&device, x_values.len())?;
    apply::<E, RELU>(&channels, pixels, &x_values, &mut y_values);
    let y = buffer::tensor(&device, y_values, shape)?;
    let statistic = |of: fn(&(f64, f64)) -> f64| {
        let values = statistics.iter().map(|statistics| E::of(of(statistics))).collect();
        device.try_tensor_from_vec::<Rank1<C>>(values, Default::default())
    };
    let (means, vars) = (statistic(|s| s.0)?, statistic(|s| s.1)?);

    let ghosts = (x.ghost(), weight.ghost(), bias.ghost(), y.ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cpu>| {
        let (x, weight, bias, y) = ghosts;
        let upstream = buffer::take(gradients.get_or_alloc_mut(&y)?);
        let sums: Vec<[f64; 2]> = channels
            .par_iter()
            .with_min_len(least(x_values.len()))
            .enumerate()
            .map(|(index, &channel)| {
                let planes = |values| planes(values, pixels, (index, C));
                sums::<E, RELU>(planes(&x_values).zip(planes(&upstream)), channel)
            })
            .collect();
        let x_gradient = gradients.get_or_alloc_mut(&x)?;
        let together = TOGETHER * pixels;
        let groups = x_gradient
            .shared_chunks_mut(together)
            .zip(x_values.par_chunks(together).zip(upstream.par_chunks(together)));
        groups.enumerate().for_each(|(group, (to, (x, upstream)))| {
            vectorized(|| {
                let planes = x.chunks_exact(pixels).zip(upstream.chunks_exact(pixels));
                let planes = to.chunks_exact_mut(pixels).zip(planes);
                for (plane, (to, (x, upstream))) in planes.enumerate() {
                    let index = (group * TOGETHER + plane) % C;
                    let (channel, sums) = (channels[index], sums[index]);
                    // slope·(g − mean(g) − x̂·mean(g·x̂)), with x̂ = (x − mean)·inverse.
                    let inverse = channel.inverse.to();
                    let mean: E = E::of(sums[0] / count);
                    let along: E = E::of(sums[1] / count * inverse * inverse);
                    for ((to, x), upstream) in to.iter_mut().zip(x).zip(upstream) {
                        let gradient = passing::<E, RELU>(*upstream, *x, channel);
                        *to += channel.slope * (gradient - mean - (*x - channel.mean) * along);
                    }
                }
            });
        });
        let weight_gradient = gradients.get_or_alloc_mut(&weight)?;
        for ((to, sums), channel) in weight_gradient.iter_mut().zip(&sums).zip(&channels) {
            *to += E::of(sums[1] * channel.inverse.to());
        }
        let bias_gradient = gradients.get_or_alloc_mut(&bias)?;
        bias_gradient.iter_mut().zip(&sums).for_each(|(to, sums)| *to += E::of(sums[0]));
        **gradients.get_or_alloc_mut(&y)? = upstream;
        Ok(())
    });
    Ok((y.put_tape(tape), means, vars))
}

/// Normalizes by the running statistics. All threads share the planes. `x` is contiguous.
pub(in crate::layers) fn infer_on_cpu<B, H, W, E, const C: usize, const RELU: bool>(
    x: Planes<B, C, H, W, E, Cpu, NoneTape>,
    tensors: [&Tensor<Rank1<C>, E, Cpu>; 4],
    eps: f64,
) -> Result<Planes<B, C, H, W, E, Cpu, NoneTape>, CpuError>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype + Element,
{
    let shape = *x.shape();
    let pixels = (shape.2.size() * shape.3.size()).max(1);
    let [mean, var, weight, bias] = tensors.map(Scratch::of);
    let channels: Vec<_> =
        (0..C).map(|c| Channel::new(mean[c].to(), var[c].to(), eps, weight[c], bias[c])).collect();
    let values = Scratch::of(&x);
    let mut y = buffer::zeros(x.device(), values.len())?;
    apply::<E, RELU>(&channels, pixels, &values, &mut y);
    buffer::tensor(x.device(), y, shape)
}
