//! The convolutions as layers, with a bias and without.

use super::{Conv2dOptions, Filters, Planes, Sliding};
use crate::layers::{Kernels, LayerError};
use dfdx::{
    nn::{BuildOnDevice, Module, ModuleVisitor, NonMutableModule, TensorOptions},
    prelude::{Device, Dim, Dtype, Rank1, Tape, Tensor},
};
use num_traits::Float;
use rand_distr::{uniform::SampleUniform, Uniform};
use tlr::{TensorCollection, TrainableLr};

/// What [`DeviceBuildExt::build_module`](dfdx::nn::DeviceBuildExt::build_module) takes.
pub(in crate::layers) mod builder {
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
            /// `(OUT, IN / GROUPS, KERNEL, KERNEL)`; at first uniform within ±1/√(inputs of an
            /// output), as in PyTorch.
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
    /// A convolution of images without a bias, as it stands in front of a batch norm.
    ///
    /// Maps `(batch, IN, height, width)` to `(batch, OUT, height', width')` with height' = ⌊(height
    /// + 2·PADDING − DILATION·(KERNEL − 1) − 1) / STRIDE⌋ + 1. Weights are laid out as in PyTorch.
    /// IN and OUT are checked when compiling, as is that GROUPS divides both; images smaller than
    /// the filter are [`LayerError::Shape`].
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::builder::Conv2d;
    ///
    /// let dev = Cpu::default();
    /// let conv = dev.build_module::<Conv2d<3, 16, 3, 2, 1>, f32>();
    /// let x: Tensor<(usize, Const<3>, usize, usize), f32, _> =
    ///     dev.zeros_like(&(8, Const, 32, 32));
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
