//! Convolution of images.

mod columns;
mod composed;
mod direct;
mod geometry;

pub(super) use composed::composed;
pub(super) use geometry::Geometry;
pub use geometry::Sliding;

use super::{
    buffer,
    element::Element,
    scratch::Scratch,
    simd::{self, vectorized},
    Kernels, LayerError,
};
use dfdx::{
    nn::{BuildOnDevice, Module, ModuleVisitor, NonMutableModule, TensorOptions},
    prelude::{
        Const, ConstDim, Cpu, CpuError, Device, Dim, Dtype, Gradients, HasShape, PutTape, Rank1,
        SplitTape, Tape, Tensor,
    },
};
use num_traits::Float;
use rand_distr::{uniform::SampleUniform, Uniform};
use rayon::prelude::*;
use tlr::{TensorCollection, TrainableLr};

/// A batch of images: `(batch, channels, height, width)`.
pub type Planes<B, const C: usize, H, W, E, D, T> = Tensor<(B, Const<C>, H, W), E, D, T>;

/// The weight of a convolution in PyTorch's layout: `(OUT, IN / GROUPS, K, K)`.
pub type Filters<const I: usize, const O: usize, const K: usize, const G: usize, E, D> =
    Tensor<(Const<O>, Over<I, G>, Const<K>, Const<K>), E, D>;

/// The dimension `N / G`, which stable Rust cannot write as a `Const`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Over<const N: usize, const G: usize>;

impl<const N: usize, const G: usize> Dim for Over<N, G> {
    fn size(&self) -> usize {
        Self::SIZE
    }

    fn from_size(size: usize) -> Option<Self> {
        (size == Self::SIZE).then_some(Self)
    }
}

impl<const N: usize, const G: usize> ConstDim for Over<N, G> {
    const SIZE: usize = N / G;
}

/// What a convolution does besides. By default it moves by one pixel, without padding, and the input gets
/// its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// How the filters move over the image.
    pub sliding: Sliding,
    /// The gradient of the input is wanted. Where the input is data nobody asks for it: a device may then
    /// leave it out.
    pub input_gradient: bool,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { sliding: Sliding::default(), input_gradient: true }
    }
}

/// The sizes of a convolution of `x`, or why there is none.
fn geometry<const I: usize, const O: usize, const K: usize, const G: usize, Err>(
    (batch, height, width): (usize, usize, usize),
    sliding: Sliding,
) -> Result<Geometry, LayerError<Err>> {
    const { assert!(K > 0, "a filter has at least one pixel") };
    const {
        assert!(
            G > 0 && I.is_multiple_of(G) && O.is_multiple_of(G),
            "the groups must divide the channels, in and out"
        )
    };
    let out = |size| sliding.positions(size, K);
    let (Some(out_height), Some(out_width)) = (out(height), out(width)) else {
        return Err(LayerError::Shape {
            layer: format!("convolution of {I} to {O} channels by {K}x{K} pixels, {sliding:?}"),
            what: format!(
                "images of {height}x{width} pixels; with their padding they must hold the filter, and stride \
                 and dilation are at least 1"
            ),
        });
    };
    let Sliding { stride, padding, dilation } = sliding;
    Ok(Geometry {
        batch,
        channels: I,
        height,
        width,
        outputs: O,
        kernel: K,
        stride,
        padding,
        dilation,
        groups: G,
        out_height,
        out_width,
    })
}

type Convolved<B, const O: usize, E, D, T> =
    Result<Planes<B, O, usize, usize, E, D, T>, LayerError<<D as dfdx::tensor::HasErr>::Err>>;

/// By im2col and matrix products, a thread for some images each. All tensors are contiguous.
pub(super) fn on_cpu<
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

/// The sums of the weights' gradients have at most this many parts, which are added at the end, in order:
/// the result does not depend on the number of threads.
const PARTS: usize = 8;
/// Elements of all parts together.
const PARTS_ELEMENTS: usize = 16 << 20;

/// `y` ← `y` + the convolution of `x` with `weight`, by the way that suits.
fn forward<E: Element>(g: &Geometry, x: &[E], weight: &[E], y: &mut [E]) {
    if x.is_empty() || y.is_empty() {
        return;
    }
    if let (true, Some(x), Some(weight)) = (direct::suits(g), E::singles(x), E::singles(weight)) {
        if let Some(y) = E::singles_mut(y) {
            return direct::forward(g, x, weight, y);
        }
    }
    columns::forward(g, x, weight, y);
}

/// Some images' share of the gradients, by the way that suits.
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

/// What [`DeviceBuildExt::build_module`](dfdx::nn::DeviceBuildExt::build_module) takes.
pub(super) mod builder {
    /// Builds a [`Conv2d`](super::Conv2d).
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Conv2d<
        const IN: usize,
        const OUT: usize,
        const KERNEL: usize,
        const STRIDE: usize = 1,
        const PADDING: usize = 0,
        const DILATION: usize = 1,
        const GROUPS: usize = 1,
    >;

    /// Builds a [`BiasedConv2d`](super::BiasedConv2d).
    #[derive(Clone, Copy, Debug, Default)]
    pub struct BiasedConv2d<
        const IN: usize,
        const OUT: usize,
        const KERNEL: usize,
        const STRIDE: usize = 1,
        const PADDING: usize = 0,
        const DILATION: usize = 1,
        const GROUPS: usize = 1,
    >;
}

/// What the two layers have in common: all but whether there is a bias.
macro_rules! layer {
    (
        $(#[$doc:meta])*
        $Layer:ident { $(bias: $bias:ident)? }, $($field:ident),+
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, TrainableLr)]
        #[tlr(group)]
        pub struct $Layer<
            const IN: usize,
            const OUT: usize,
            const KERNEL: usize,
            const STRIDE: usize,
            const PADDING: usize,
            const DILATION: usize,
            const GROUPS: usize,
            E: Dtype,
            D: Device<E>,
        > {
            /// `(OUT, IN / GROUPS, KERNEL, KERNEL)`; at first uniform within ±1/√(inputs of an output), as in
            /// PyTorch.
            pub weight: Filters<IN, OUT, KERNEL, GROUPS, E, D>,
            $(
                /// Added to every pixel of its channel; at first as the weight.
                pub $bias: Tensor<Rank1<OUT>, E, D>,
            )?
        }

        impl<
                const I: usize,
                const O: usize,
                const K: usize,
                const S: usize,
                const P: usize,
                const L: usize,
                const G: usize,
                E: Dtype + Float + SampleUniform,
                D: Device<E>,
            > TensorCollection<E, D> for $Layer<I, O, K, S, P, L, G, E, D>
        {
            type To<E2: Dtype, D2: Device<E2>> = $Layer<I, O, K, S, P, L, G, E2, D2>;

            fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
                visitor: &mut V,
            ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
                visitor.visit_fields(
                    (
                        Self::tensor(
                            "weight",
                            |layer| &layer.weight,
                            |layer| &mut layer.weight,
                            TensorOptions::reset_with(|weight| {
                                weight.try_fill_with_distr(within::<E>(I / G * K * K))
                            }),
                        ),
                        $(Self::tensor(
                            "bias",
                            |layer| &layer.$bias,
                            |layer| &mut layer.$bias,
                            TensorOptions::reset_with(|bias| {
                                bias.try_fill_with_distr(within::<E>(I / G * K * K))
                            }),
                        ),)?
                    ),
                    |($($field,)+)| $Layer { $($field),+ },
                )
            }
        }

        impl<
                const I: usize,
                const O: usize,
                const K: usize,
                const S: usize,
                const P: usize,
                const L: usize,
                const G: usize,
                E: Dtype,
                D: Device<E>,
            > BuildOnDevice<D, E> for builder::$Layer<I, O, K, S, P, L, G>
        where
            E: Float + SampleUniform,
        {
            type Built = $Layer<I, O, K, S, P, L, G, E, D>;
        }

        impl<
                const I: usize,
                const O: usize,
                const K: usize,
                const S: usize,
                const P: usize,
                const L: usize,
                const G: usize,
                E: Dtype,
                D: Device<E>,
            > NonMutableModule for $Layer<I, O, K, S, P, L, G, E, D>
        {
        }

        impl<
                B,
                H,
                W,
                E,
                D,
                T,
                const I: usize,
                const O: usize,
                const K: usize,
                const S: usize,
                const P: usize,
                const L: usize,
                const G: usize,
            > Module<Planes<B, I, H, W, E, D, T>> for $Layer<I, O, K, S, P, L, G, E, D>
        where
            B: Dim,
            H: Dim,
            W: Dim,
            E: Dtype + Float + SampleUniform,
            D: Kernels<E>,
            T: Tape<E, D>,
        {
            type Output = Planes<B, O, usize, usize, E, D, T>;
            type Error = LayerError<D::Err>;

            fn try_forward(
                &self,
                x: Planes<B, I, H, W, E, D, T>,
            ) -> Result<Self::Output, Self::Error> {
                const { assert!(S > 0 && L > 0, "stride and dilation are at least 1") };
                let sliding = Sliding { stride: S, padding: P, dilation: L };
                let options = Conv2dOptions { sliding, ..Default::default() };
                let bias: &[&Tensor<Rank1<O>, E, D>] = &[$(&self.$bias)?];
                D::try_conv2d(x, &self.weight, bias.first().copied(), options)
            }
        }
    };
}

layer! {
    /// A convolution of images without a bias, for in front of a batch norm.
    ///
    /// Maps `(batch, IN, height, width)` to `(batch, OUT, height', width')` with
    /// height' = ⌊(height + 2·PADDING − DILATION·(KERNEL − 1) − 1) / STRIDE⌋ + 1. Weights are laid out as in
    /// PyTorch. IN and OUT are checked when compiling, as is that GROUPS divides both; images smaller than
    /// the filter are [`LayerError::Shape`].
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::builder::Conv2d;
    ///
    /// let dev = Cpu::default();
    /// let conv = dev.build_module::<Conv2d<3, 16, 3, 2, 1>, f32>();
    /// let x: Tensor<(usize, Const<3>, usize, usize), f32, _> = dev.zeros_like(&(8, Const, 32, 32));
    /// assert_eq!(conv.forward(x).shape(), &(8, Const, 16, 16));
    /// ```
    Conv2d {}, weight
}

layer! {
    /// A convolution of images with a bias for each channel; else as [`Conv2d`].
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::builder::BiasedConv2d;
    ///
    /// // Each channel by itself.
    /// let dev = Cpu::default();
    /// let conv = dev.build_module::<BiasedConv2d<4, 4, 3, 1, 1, 1, 4>, f32>();
    /// assert_eq!(conv.num_trainable_params(), 4 * 9 + 4);
    /// ```
    BiasedConv2d { bias: bias }, weight, bias
}

/// Uniform within ±1/√`inputs`.
fn within<E: Dtype + Float + SampleUniform>(inputs: usize) -> Uniform<E> {
    let bound = E::from_f64(1.0 / (inputs as f64).sqrt()).unwrap_or_else(E::epsilon);
    Uniform::new_inclusive(-bound, bound)
}

#[cfg(test)]
mod tests;
