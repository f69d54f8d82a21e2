//! Batch normalization of images.

use super::{
    buffer,
    element::Element,
    scratch::Scratch,
    shares::{least, Shares},
    simd::vectorized,
    Kernels, LayerError, Planes,
};
use dfdx::{
    nn::{BuildOnDevice, Module, ModuleMut, ModuleVisitor, ScalarOptions, TensorOptions},
    prelude::{
        Axes3, BroadcastTo, Cpu, CpuError, Device, Dim, Dtype, Gradients, HasErr, HasShape, MeanTo,
        NoneTape, OwnedTape, PutTape, Rank1, SplitTape, Tape, Tensor, TensorFromVec, TryAdd,
        TryDiv, TryMul, TrySub,
    },
};
use pulp::NullaryFnOnce;
use rayon::prelude::*;
use tlr::{TensorCollection, TrainableLr};

/// Normalizes each channel of a batch of images, then scales and shifts it, then rectifies it if RELU is true.
///
/// y = (x − mean) / √(var + eps) · weight + bias, with mean and (biased) variance over batch, height and width.
/// Training (`forward_mut` with a tape) takes those of the batch and moves the running ones towards them:
/// running ← (1 − momentum)·running + momentum·new, the variance without bias. Inference (`forward` without a
/// tape) takes the running ones. As in PyTorch, names included; sums are in f64. Training with a single value
/// per channel is [`LayerError::Shape`].
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::builder::BatchNorm2d;
///
/// let dev = Cpu::default();
/// let mut norm = dev.build_module::<BatchNorm2d<1>, f32>();
/// let x = dev.tensor([[[[1.0, 3.0]]]]);
/// let y = norm.forward_mut(x.leaky_trace());
/// assert!((y.as_vec()[1] - 1.0).abs() < 1e-5);
/// assert!((norm.running_mean.array()[0] - 0.1 * 2.0).abs() < 1e-6);
/// ```
#[derive(Clone, Debug, TrainableLr)]
#[tlr(group)]
pub struct BatchNorm2d<const C: usize, const RELU: bool, E: Dtype, D: Device<E>> {
    /// At first 1.
    pub weight: Tensor<Rank1<C>, E, D>,
    /// At first 0.
    pub bias: Tensor<Rank1<C>, E, D>,
    /// At first 0; not trained.
    pub running_mean: Tensor<Rank1<C>, E, D>,
    /// At first 1; not trained.
    pub running_var: Tensor<Rank1<C>, E, D>,
    /// Added to the variance. Default 1e-5.
    pub eps: f64,
    /// How far the running statistics move. Default 0.1.
    pub momentum: f64,
}

/// Builds a [`BatchNorm2d`](super::BatchNorm2d).
#[derive(Clone, Copy, Debug, Default)]
pub struct Builder<const C: usize, const RELU: bool = false>;

impl<const C: usize, const RELU: bool, E: Dtype, D: Device<E>> BuildOnDevice<D, E>
    for Builder<C, RELU>
{
    type Built = BatchNorm2d<C, RELU, E, D>;
}

impl<const C: usize, const RELU: bool, E: Dtype, D: Device<E>> TensorCollection<E, D>
    for BatchNorm2d<C, RELU, E, D>
{
    type To<E2: Dtype, D2: Device<E2>> = BatchNorm2d<C, RELU, E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        visitor.visit_fields(
            (
                Self::tensor(
                    "weight",
                    |s| &s.weight,
                    |s| &mut s.weight,
                    TensorOptions::reset_to_ones(),
                ),
                Self::tensor("bias", |s| &s.bias, |s| &mut s.bias, TensorOptions::reset_to_zeros()),
                Self::tensor(
                    "running_mean",
                    |s| &s.running_mean,
                    |s| &mut s.running_mean,
                    TensorOptions::detached(|mean| mean.try_fill_with_zeros()),
                ),
                Self::tensor(
                    "running_var",
                    |s| &s.running_var,
                    |s| &mut s.running_var,
                    TensorOptions::detached(|var| var.try_fill_with_ones()),
                ),
                Self::scalar("eps", |s| &s.eps, |s| &mut s.eps, ScalarOptions::from_default(1e-5)),
                Self::scalar(
                    "momentum",
                    |s| &s.momentum,
                    |s| &mut s.momentum,
                    ScalarOptions::from_default(0.1),
                ),
            ),
            |(weight, bias, running_mean, running_var, eps, momentum)| BatchNorm2d {
                weight,
                bias,
                running_mean,
                running_var,
                eps,
                momentum,
            },
        )
    }
}

impl<B, H, W, E, D, const C: usize, const RELU: bool> Module<Planes<B, C, H, W, E, D, NoneTape>>
    for BatchNorm2d<C, RELU, E, D>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Kernels<E>,
{
    type Output = Planes<B, C, H, W, E, D, NoneTape>;
    type Error = LayerError<D::Err>;

    fn try_forward(
        &self,
        x: Planes<B, C, H, W, E, D, NoneTape>,
    ) -> Result<Self::Output, Self::Error> {
        Ok(D::try_infer_batch_norm2d(x, self)?)
    }
}

impl<B, H, W, E, D, const C: usize, const RELU: bool>
    ModuleMut<Planes<B, C, H, W, E, D, OwnedTape<E, D>>> for BatchNorm2d<C, RELU, E, D>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Kernels<E>,
{
    type Output = Planes<B, C, H, W, E, D, OwnedTape<E, D>>;
    type Error = LayerError<D::Err>;

    fn try_forward_mut(
        &mut self,
        x: Planes<B, C, H, W, E, D, OwnedTape<E, D>>,
    ) -> Result<Self::Output, Self::Error> {
        let &(batch, _, height, width) = x.shape();
        let values = batch.size() * height.size() * width.size();
        if values < 2 {
            return Err(LayerError::Shape {
                layer: format!("batch norm of {C} channels"),
                what: format!(
                    "{values} value(s) in a channel, which have no variance; train with more"
                ),
            });
        }
        let (y, mean, var) = D::try_train_batch_norm2d(x, self)?;
        let unbiased = values as f64 / (values as f64 - 1.0);
        self.running_mean.try_axpy(1.0 - self.momentum, &mean, self.momentum)?;
        self.running_var.try_axpy(1.0 - self.momentum, &var, self.momentum * unbiased)?;
        Ok(y)
    }
}

/// What training gives: the result, and the mean and biased variance of each channel.
pub(super) type Normalized<B, H, W, E, D, T, const C: usize> = Result<
    (Planes<B, C, H, W, E, D, T>, Tensor<Rank1<C>, E, D>, Tensor<Rank1<C>, E, D>),
    <D as HasErr>::Err,
>;

/// By dfdx's own operations, on any device.
pub(super) fn train_composed<B, H, W, E, D, T, const C: usize, const RELU: bool>(
    x: Planes<B, C, H, W, E, D, T>,
    norm: &BatchNorm2d<C, RELU, E, D>,
) -> Normalized<B, H, W, E, D, T, C>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Device<E>,
    T: Tape<E, D>,
{
    let shape = *x.shape();
    let mean = x.retaped::<T>().try_mean::<Rank1<C>, Axes3<0, 2, 3>>()?;
    let means = mean.retaped::<NoneTape>();
    let centered = x.try_sub(mean.try_broadcast_like(&shape)?)?;
    let var = centered.retaped::<T>().try_square()?.try_mean::<Rank1<C>, Axes3<0, 2, 3>>()?;
    let vars = var.retaped::<NoneTape>();
    let deviation = var.try_add(E::from_f64(norm.eps).unwrap_or_default())?.try_sqrt()?;
    let scale = norm.weight.retaped::<T>().try_div(deviation)?.try_broadcast_like(&shape)?;
    let y =
        centered.try_mul(scale)?.try_add(norm.bias.retaped::<T>().try_broadcast_like(&shape)?)?;
    let y = if RELU { y.try_relu()? } else { y };
    Ok((y, means, vars))
}

/// By dfdx's own operations, on any device.
#[allow(clippy::type_complexity)]
pub(super) fn infer_composed<B, H, W, E, D, const C: usize, const RELU: bool>(
    x: Planes<B, C, H, W, E, D, NoneTape>,
    norm: &BatchNorm2d<C, RELU, E, D>,
) -> Result<Planes<B, C, H, W, E, D, NoneTape>, D::Err>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Device<E>,
{
    let shape = *x.shape();
    let deviation =
        norm.running_var.clone().try_add(E::from_f64(norm.eps).unwrap_or_default())?.try_sqrt()?;
    let scale = norm.weight.clone().try_div(deviation)?.try_broadcast_like(&shape)?;
    let centered = x.try_sub(norm.running_mean.clone().try_broadcast_like(&shape)?)?;
    let y = centered.try_mul(scale)?.try_add(norm.bias.clone().try_broadcast_like(&shape)?)?;
    if RELU {
        y.try_relu()
    } else {
        Ok(y)
    }
}

/// A channel's mean, the factor 1/√(var + eps), and y = (x − mean)·slope + bias: centered first, since little is
/// left of numbers that are far from 0.
#[derive(Clone, Copy)]
struct Channel<E> {
    mean: E,
    inverse: E,
    slope: E,
    bias: E,
}

impl<E: Dtype + Element> Channel<E> {
    fn new(mean: f64, var: f64, eps: f64, weight: E, bias: E) -> Self {
        let inverse = 1.0 / (var + eps).sqrt();
        let slope = inverse * weight.to();
        Self { mean: E::of(mean), inverse: E::of(inverse), slope: E::of(slope), bias }
    }
}

/// Planes of a few pixels that are taken together: one call of what the widest registers run takes as long as a plane.
const TOGETHER: usize = 8;

/// y = (x − mean)·slope + bias on each plane, rectified or not.
fn apply<E: Element, const RELU: bool>(
    channels: &[Channel<E>],
    pixels: usize,
    x: &[E],
    y: &mut [E],
) {
    let planes = y.shared_chunks_mut(TOGETHER * pixels).zip(x.par_chunks(TOGETHER * pixels));
    planes.enumerate().for_each(|(group, (y, x))| {
        vectorized(|| {
            let planes = y.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels));
            for (plane, (y, x)) in planes.enumerate() {
                let Channel { mean, slope, bias, .. } =
                    channels[(group * TOGETHER + plane) % channels.len()];
                for (y, x) in y.iter_mut().zip(x) {
                    let value = (*x - mean) * slope + bias;
                    *y = if RELU && value < E::ZERO { E::ZERO } else { value };
                }
            }
        });
    });
}

/// Sums in as many lanes as fit the registers: the compiler may then use them.
const LANES: usize = 32;
/// Terms that a lane holds at most before it joins a sum in f64.
const TERMS: usize = 128;

/// N sums over planes, in f64.
struct Lanes<E, const N: usize> {
    lanes: [[E; LANES]; N],
    terms: usize,
    totals: [f64; N],
}

impl<E: Element, const N: usize> Lanes<E, N> {
    #[inline(always)]
    fn new() -> Self {
        Self { lanes: [[E::ZERO; LANES]; N], terms: 0, totals: [0.0; N] }
    }

    /// Room for so many terms more.
    #[inline(always)]
    fn expect(&mut self, terms: usize) {
        if self.terms + terms > TERMS {
            self.flush();
        }
        self.terms += terms;
    }

    #[inline(always)]
    fn flush(&mut self) {
        for (total, lanes) in self.totals.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|lane| lane.to()).sum::<f64>();
            *lanes = [E::ZERO; LANES];
        }
        self.terms = 0;
    }

    #[inline(always)]
    fn totals(mut self) -> [f64; N] {
        self.flush();
        self.totals
    }
}

/// Σ term(x) over planes.
fn sum<'a, E: Element>(planes: impl Iterator<Item = &'a [E]>, term: impl Fn(E) -> E) -> f64 {
    pulp::Arch::new().dispatch(Sum { planes, term })
}

/// Σ g and Σ g·(x − mean) over planes of x and what came back, g being the gradient where it passes.
fn sums<'a, E: Element, const RELU: bool>(
    planes: impl Iterator<Item = (&'a [E], &'a [E])>,
    channel: Channel<E>,
) -> [f64; 2] {
    pulp::Arch::new().dispatch(Sums::<_, _, RELU> { planes, channel })
}

/// A type, as is [`Sums`], because the compiler does not inline a closure of this size.
struct Sum<P, F> {
    planes: P,
    term: F,
}

impl<'a, E: Element, P: Iterator<Item = &'a [E]>, F: Fn(E) -> E> NullaryFnOnce for Sum<P, F> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut sums = Lanes::<E, 1>::new();
        for plane in self.planes {
            for part in plane.chunks(TERMS * LANES) {
                sums.expect(part.len().div_ceil(LANES));
                let [lanes] = &mut sums.lanes;
                let (chunks, rest) = part.as_chunks::<LANES>();
                for chunk in chunks {
                    for (lane, x) in lanes.iter_mut().zip(chunk) {
                        *lane += (self.term)(*x);
                    }
                }
                for (lane, x) in lanes.iter_mut().zip(rest) {
                    *lane += (self.term)(*x);
                }
            }
        }
        let [total] = sums.totals();
        total
    }
}

struct Sums<P, E, const RELU: bool> {
    planes: P,
    channel: Channel<E>,
}

impl<'a, E: Element, P: Iterator<Item = (&'a [E], &'a [E])>, const RELU: bool> NullaryFnOnce
    for Sums<P, E, RELU>
{
    type Output = [f64; 2];

    #[inline(always)]
    fn call(self) -> [f64; 2] {
        let mut sums = Lanes::<E, 2>::new();
        for (x, gradient) in self.planes {
            let parts = x.chunks(TERMS * LANES).zip(gradient.chunks(TERMS * LANES));
            for (x, gradient) in parts {
                sums.expect(x.len().div_ceil(LANES));
                let [plain, centered] = &mut sums.lanes;
                let ((x, x_rest), (gradient, gradient_rest)) =
                    (x.as_chunks::<LANES>(), gradient.as_chunks::<LANES>());
                for (x, gradient) in x.iter().zip(gradient) {
                    for lane in 0..LANES {
                        let gradient = passing::<E, RELU>(gradient[lane], x[lane], self.channel);
                        plain[lane] += gradient;
                        centered[lane] += gradient * (x[lane] - self.channel.mean);
                    }
                }
                for (lane, (x, gradient)) in x_rest.iter().zip(gradient_rest).enumerate() {
                    let gradient = passing::<E, RELU>(*gradient, *x, self.channel);
                    plain[lane] += gradient;
                    centered[lane] += gradient * (*x - self.channel.mean);
                }
            }
        }
        sums.totals()
    }
}

/// The gradient, if the rectifier let `x` pass.
#[inline(always)]
fn passing<E: Element, const RELU: bool>(gradient: E, x: E, channel: Channel<E>) -> E {
    if RELU && (x - channel.mean) * channel.slope + channel.bias <= E::ZERO {
        E::ZERO
    } else {
        gradient
    }
}

/// A channel's statistics at a time, then a plane at a time, on all threads. `x` is contiguous.
pub(super) fn train_on_cpu<B, H, W, E, T, const C: usize, const RELU: bool>(
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
    // A channel's planes.
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

/// A plane at a time, on all threads. `x` is contiguous.
pub(super) fn infer_on_cpu<B, H, W, E, const C: usize, const RELU: bool>(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layers::{builder, check};
    use dfdx::prelude::*;

    type Images<const C: usize> = Tensor<(usize, Const<C>, usize, usize), f64, Cpu>;
    type Norm<const C: usize, const RELU: bool> = BatchNorm2d<C, RELU, f64, Cpu>;

    /// Values far from 0 and 1, so that it matters which is subtracted and divided by.
    fn problem<const C: usize, const RELU: bool>(
        shape: (usize, usize, usize),
    ) -> (Images<C>, Norm<C, RELU>) {
        let dev = Cpu::seed_from_u64(4);
        let x: Images<C> =
            dev.sample_like(&(shape.0, Const, shape.1, shape.2), rand_distr::StandardNormal);
        let mut norm = dev.build_module::<builder::BatchNorm2d<C, RELU>, f64>();
        norm.weight = dev.sample_normal();
        norm.bias = dev.sample_normal();
        norm.running_mean = dev.sample_normal();
        norm.running_var = dev.sample_uniform();
        (x * 3.0 + 5.0, norm)
    }

    fn agrees<const C: usize, const RELU: bool>(shape: (usize, usize, usize)) {
        let (x, norm) = problem::<C, RELU>(shape);
        let ours = Cpu::try_train_batch_norm2d(x.leaky_trace(), &norm).unwrap();
        let theirs = train_composed(x.leaky_trace(), &norm).unwrap();
        check::close(&ours.0.as_vec(), &theirs.0.as_vec());
        check::close(&ours.1.as_vec(), &theirs.1.as_vec());
        check::close(&ours.2.as_vec(), &theirs.2.as_vec());
        let (ours, theirs) = (check::curved(ours.0).backward(), check::curved(theirs.0).backward());
        check::close(&ours.get(&x).as_vec(), &theirs.get(&x).as_vec());
        check::close(&ours.get(&norm.weight).as_vec(), &theirs.get(&norm.weight).as_vec());
        check::close(&ours.get(&norm.bias).as_vec(), &theirs.get(&norm.bias).as_vec());

        let theirs = infer_composed(x.clone(), &norm).unwrap();
        check::close(&norm.forward(x).as_vec(), &theirs.as_vec());
    }

    // dfdx's own operations are the oracle. Fails for a wrong mean, factor or mask, in either direction.
    #[test]
    fn as_composed_of_dfdx_operations() {
        agrees::<1, false>((2, 1, 1));
        agrees::<3, false>((4, 5, 7));
        agrees::<3, true>((4, 5, 7));
        agrees::<16, true>((3, 8, 8));
        agrees::<5, false>((1, 33, 3));
    }

    // Central differences. Fails where both forms were wrong.
    #[test]
    fn gradients_are_derivatives() {
        let (x, norm) = problem::<2, true>((3, 4, 3));
        let loss = |x: &Images<2>, norm: &Norm<2, true>| {
            check::curved(Cpu::try_train_batch_norm2d(x.leaky_trace(), norm).unwrap().0)
        };
        let gradients = loss(&x, &norm).backward();
        check::derivative(&x, &gradients.get(&x), |x| loss(x, &norm).array());
        let with = |change: &dyn Fn(&mut Norm<2, true>)| {
            let mut norm = norm.clone();
            change(&mut norm);
            loss(&x, &norm).array()
        };
        check::derivative(&norm.weight, &gradients.get(&norm.weight), |weight| {
            with(&|norm| norm.weight = weight.clone())
        });
        check::derivative(&norm.bias, &gradients.get(&norm.bias), |bias| {
            with(&|norm| norm.bias = bias.clone())
        });
    }

    // By hand: values 1 and 3 have mean 2, variance 1, and 2 without bias.
    #[test]
    fn running_statistics_move_by_the_momentum() {
        let dev = Cpu::default();
        let mut norm = dev.build_module::<builder::BatchNorm2d<1>, f64>();
        norm.momentum = 0.25;
        let x = dev.tensor([[[[1.0, 3.0]]]]);
        let y = norm.forward_mut(x.leaky_trace());
        check::close(&y.as_vec(), &[-1.0, 1.0].map(|y: f64| y / (1.0 + 1e-5f64).sqrt()));
        check::close(&norm.running_mean.as_vec(), &[0.25 * 2.0]);
        check::close(&norm.running_var.as_vec(), &[0.75 + 0.25 * 2.0]);
        let before = (norm.running_mean.as_vec(), norm.running_var.as_vec());
        norm.forward(x);
        assert_eq!((norm.running_mean.as_vec(), norm.running_var.as_vec()), before);
    }

    // Fails if a channel is split among threads.
    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let with = |threads| {
            check::with_threads(threads, || {
                let (x, norm) = problem::<7, true>((9, 10, 10));
                let (y, mean, var) = Cpu::try_train_batch_norm2d(x.leaky_trace(), &norm).unwrap();
                let (y, statistics) = (
                    y.as_vec()
                        .into_iter()
                        .zip(check::curved(y).backward().get(&x).as_vec())
                        .collect::<Vec<_>>(),
                    (mean.as_vec(), var.as_vec()),
                );
                (y, statistics)
            })
        };
        let one = with(1);
        assert_eq!(one, with(2));
        assert_eq!(one, with(5));
    }

    // A mean far from 0 in f32: sums of squares minus squares of sums would lose it all.
    #[test]
    fn a_large_mean_in_f32() {
        let dev = Cpu::seed_from_u64(2);
        let noise: Tensor<Rank4<8, 1, 32, 32>, f32, _> = dev.sample_normal();
        let mut norm = dev.build_module::<builder::BatchNorm2d<1>, f32>();
        let y = norm.forward_mut((noise + 4096.0).leaky_trace()).as_vec();
        let squares = y.iter().map(|y| f64::from(y * y)).sum::<f64>() / y.len() as f64;
        // Inputs are rounded to 2⁻¹² of their deviation.
        assert!((squares - 1.0).abs() < 1e-3, "{squares}");
    }

    #[test]
    fn a_single_value_has_no_variance() {
        let dev = Cpu::default();
        let mut norm = dev.build_module::<builder::BatchNorm2d<2>, f32>();
        let before = norm.running_var.as_vec();
        let x: Tensor<Rank4<1, 2, 1, 1>, f32, _> = dev.zeros();
        let error = norm.try_forward_mut(x.leaky_trace()).unwrap_err();
        assert!(matches!(error, LayerError::Shape { .. }));
        assert_eq!(norm.running_var.as_vec(), before);
    }

    // What training leaves out must not be trained.
    #[test]
    fn only_weight_and_bias_are_trained() {
        let norm = Cpu::default().build_module::<builder::BatchNorm2d<3>, f32>();
        assert_eq!(norm.num_trainable_params(), 6);
    }
}
