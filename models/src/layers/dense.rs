//! The transformer's layers that hold tensors: dense ones and the embedding of tokens.

use super::{
    EmbeddingOptions, Ids, Kernels, LayerError, LinearOptions, SequenceKernels, Sequences,
};
use dfdx::{
    nn::{Module, ModuleVisitor, NonMutableModule, TensorCollection, TensorOptions},
    prelude::{Const, Device, Dtype, HasShape, Rank1, Rank2, ReshapeTo, Shape, Tape, Tensor},
};
use num_traits::Float;
use rand_distr::{uniform::SampleUniform, Uniform};
use std::{fmt::Debug, marker::PhantomData};
use tlr::TrainableLr;

/// What a dense layer starts with: uniform between plus and minus these bounds; zeros if the
/// bound is 0.
pub trait Start: Clone + Debug + 'static {
    /// The bound of the weight.
    fn weight(inputs: usize, outputs: usize) -> f64;
    /// The bound of the bias.
    fn bias(inputs: usize) -> f64;
}

/// Xavier's uniform bound, `√(6 / (inputs + outputs))`, and for the bias PyTorch's, `1 / √inputs`.
#[derive(Clone, Copy, Debug)]
pub struct Xavier;

/// A third of a weight that PyTorch packs for queries, keys and values: Xavier's bound for the
/// whole, `√(6 / (inputs + 3 outputs))`, and no bias.
#[derive(Clone, Copy, Debug)]
pub struct PackedXavier;

/// Xavier's bound, and no bias: for the dense layer behind the heads of an attention.
#[derive(Clone, Copy, Debug)]
pub struct UnbiasedXavier;

fn xavier(inputs: usize, outputs: usize) -> f64 {
    (6.0 / (inputs + outputs) as f64).sqrt()
}

impl Start for Xavier {
    fn weight(inputs: usize, outputs: usize) -> f64 {
        xavier(inputs, outputs)
    }

    fn bias(inputs: usize) -> f64 {
        1.0 / (inputs as f64).sqrt()
    }
}

impl Start for PackedXavier {
    fn weight(inputs: usize, outputs: usize) -> f64 {
        xavier(inputs, 3 * outputs)
    }

    fn bias(_: usize) -> f64 {
        0.0
    }
}

impl Start for UnbiasedXavier {
    fn weight(inputs: usize, outputs: usize) -> f64 {
        xavier(inputs, outputs)
    }

    fn bias(_: usize) -> f64 {
        0.0
    }
}

fn fill<S: Shape, E: Dtype + Float + SampleUniform, D: Device<E>>(
    tensor: &mut Tensor<S, E, D>,
    bound: f64,
) -> Result<(), D::Err> {
    match E::from_f64(bound) {
        Some(bound) if bound > E::zero() => {
            tensor.try_fill_with_distr(Uniform::new_inclusive(-bound, bound))
        }
        _ => tensor.try_fill_with_zeros(),
    }
}

/// A dense layer, `x·Wᵀ + b`: `(batch, length, IN)` to `(batch, length, OUT)`, started as `I` says.
/// Under [`PerLayer`](tlr::PerLayer) the weight and the bias share one rate.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::{Dense, Sequences, Xavier};
///
/// let dev = Cpu::default();
/// let layer = Dense::<8, 4, Xavier, f32, Cpu>::build(&dev);
/// let x: Sequences<8, f32, Cpu> = dev.zeros_like(&(2, 3, Const));
/// assert_eq!(layer.forward(x).shape(), &(2, 3, Const));
/// ```
#[derive(Clone, Debug, TrainableLr)]
#[tlr(group)]
pub struct Dense<const IN: usize, const OUT: usize, I: Start, E: Dtype, D: Device<E>> {
    /// The weight, of shape `(OUT, IN)`.
    pub weight: Tensor<Rank2<OUT, IN>, E, D>,
    /// The bias, of shape `(OUT)`.
    pub bias: Tensor<Rank1<OUT>, E, D>,
    #[tlr(skip)]
    start: PhantomData<I>,
}

impl<const IN: usize, const OUT: usize, I, E, D> TensorCollection<E, D> for Dense<IN, OUT, I, E, D>
where
    I: Start,
    E: Dtype + Float + SampleUniform,
    D: Device<E>,
{
    type To<E2: Dtype, D2: Device<E2>> = Dense<IN, OUT, I, E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        let weight = TensorOptions::reset_with(|t| fill(t, I::weight(IN, OUT)));
        let bias = TensorOptions::reset_with(|t| fill(t, I::bias(IN)));
        visitor.visit_fields(
            (
                Self::tensor("weight", |s| &s.weight, |s| &mut s.weight, weight),
                Self::tensor("bias", |s| &s.bias, |s| &mut s.bias, bias),
            ),
            |(weight, bias)| Dense { weight, bias, start: PhantomData },
        )
    }
}

impl<const IN: usize, const OUT: usize, I, E, D> Dense<IN, OUT, I, E, D>
where
    I: Start,
    E: Dtype,
    D: Kernels<E>,
{
    pub(super) fn apply<T: Tape<E, D>>(
        &self,
        x: Sequences<IN, E, D, T>,
        options: LinearOptions,
    ) -> Result<Sequences<OUT, E, D, T>, D::Err> {
        let &(batch, length, _) = x.shape();
        let rows = x.try_reshape_like(&(batch * length, Const::<IN>))?;
        let y = D::try_linear(rows, &self.weight, &self.bias, options)?;
        y.try_reshape_like(&(batch, length, Const))
    }
}

impl<const IN: usize, const OUT: usize, I, E, D, T> Module<Sequences<IN, E, D, T>>
    for Dense<IN, OUT, I, E, D>
where
    I: Start,
    E: Dtype,
    D: Kernels<E>,
    T: Tape<E, D>,
{
    type Output = Sequences<OUT, E, D, T>;
    type Error = D::Err;

    fn try_forward(&self, x: Sequences<IN, E, D, T>) -> Result<Self::Output, D::Err> {
        self.apply(x, LinearOptions::default())
    }
}

impl<const IN: usize, const OUT: usize, I: Start, E: Dtype, D: Device<E>> NonMutableModule
    for Dense<IN, OUT, I, E, D>
{
}

/// Tokens to vectors times √M, plus the sinusoids of their positions: `(batch, length)` ids below
/// `V` to `(batch, length, M)`. Starts with Xavier's uniform bound, `√(6 / (V + M))`.
///
/// The tape goes with the ids, as in dfdx's own embedding.
///
/// # Errors
/// [`LayerError::Shape`] for an id that is not below `V`.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::layers::TokenEmbedding;
///
/// let dev = Cpu::default();
/// let embedding = TokenEmbedding::<10, 4, f32, Cpu>::build(&dev);
/// let ids = dev.tensor_from_vec(vec![1, 2, 3, 9, 9, 9], (2, 3));
/// let y = embedding.forward(ids.traced(embedding.alloc_grads()));
/// assert_eq!(y.shape(), &(2, 3, Const));
/// ```
#[derive(Clone, Debug, TrainableLr)]
#[tlr(group)]
pub struct TokenEmbedding<const V: usize, const M: usize, E: Dtype, D: Device<E>> {
    /// The vectors, of shape `(V, M)`.
    pub weight: Tensor<Rank2<V, M>, E, D>,
}

impl<const V: usize, const M: usize, E, D> TensorCollection<E, D> for TokenEmbedding<V, M, E, D>
where
    E: Dtype + Float + SampleUniform,
    D: Device<E>,
{
    type To<E2: Dtype, D2: Device<E2>> = TokenEmbedding<V, M, E2, D2>;

    fn iter_tensors<W: ModuleVisitor<Self, E, D>>(
        visitor: &mut W,
    ) -> Result<Option<Self::To<W::E2, W::D2>>, W::Err> {
        let weight = TensorOptions::reset_with(|t| fill(t, xavier(V, M)));
        visitor.visit_fields(
            Self::tensor("weight", |s| &s.weight, |s| &mut s.weight, weight),
            |weight| TokenEmbedding { weight },
        )
    }
}

impl<const V: usize, const M: usize, E, D, T> Module<Ids<D, T>> for TokenEmbedding<V, M, E, D>
where
    E: Dtype,
    D: SequenceKernels<E>,
    T: Tape<E, D>,
{
    type Output = Sequences<M, E, D, T>;
    type Error = LayerError<D::Err>;

    fn try_forward(&self, ids: Ids<D, T>) -> Result<Self::Output, Self::Error> {
        let options = EmbeddingOptions { scale: (M as f64).sqrt(), positions: true };
        D::try_embedding(ids, &self.weight, options)
    }
}

impl<const V: usize, const M: usize, E: Dtype, D: Device<E>> NonMutableModule
    for TokenEmbedding<V, M, E, D>
{
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfdx::prelude::*;

    /// The largest magnitude, and the mean of the squares.
    fn spread(values: &[f64]) -> (f64, f64) {
        let most = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        (most, values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64)
    }

    // Uniform up to the bound: the largest of a thousand is within a hundredth of it (the chance of
    // less is e^-10), the variance a third of its square, to 15 % (some 5 standard deviations).
    fn uniform(values: &[f64], bound: f64) {
        let (most, square) = spread(values);
        assert!(most <= bound && most > 0.99 * bound, "{most} for {bound}");
        assert!((square * 3.0 / bound.powi(2) - 1.0).abs() < 0.15);
    }

    #[test]
    fn started_as_pytorch_does() {
        let dev = Cpu::seed_from_u64(0);
        let dense = Dense::<50, 1000, Xavier, f64, Cpu>::build(&dev);
        uniform(&dense.weight.as_vec(), (6.0f64 / 1050.0).sqrt());
        uniform(&dense.bias.as_vec(), 1.0 / 50f64.sqrt());
        let packed = Dense::<40, 40, PackedXavier, f64, Cpu>::build(&dev);
        uniform(&packed.weight.as_vec(), (6.0f64 / 160.0).sqrt());
        assert_eq!(packed.bias.as_vec(), [0.0; 40]);
        let out = Dense::<40, 40, UnbiasedXavier, f64, Cpu>::build(&dev);
        uniform(&out.weight.as_vec(), (6.0f64 / 80.0).sqrt());
        assert_eq!(out.bias.as_vec(), [0.0; 40]);
        let embedding = TokenEmbedding::<200, 16, f64, Cpu>::build(&dev);
        uniform(&embedding.weight.as_vec(), (6.0f64 / 216.0).sqrt());
    }
}
