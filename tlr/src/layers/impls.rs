//! [`TrainableLr`] for dfdx's own modules.

use super::{LayerOptions, LayerVisitor, LayerVisitorMut, Layers, TrainableLr};
use crate::optim::Family;
use dfdx::{
    nn::modules::*,
    shapes::{ConstDim, ConstShape, Dtype},
    tensor::Tensor,
    tensor_ops::{Device, UpscaleMethod},
};
use num_traits::Float;
use rand_distr::uniform::SampleUniform;

/// Implements the trait for modules that hold tensors of their own. Each of them is one layer.
macro_rules! layer {
    ($([$($generics:tt)*] $E:ident: ($($bound:path),*), $Layer:ty;)+) => {$(
        impl<$($generics)* $E: Dtype $(+ $bound)*, D: Device<$E>> TrainableLr<$E, D> for $Layer {
            type Optimizers<F: Family<Dtype = $E, Device = D>> = F::For<Self>;

            fn optimizers<F: Family<Dtype = $E, Device = D>>(
                &self,
                family: &F,
                layers: &mut Layers,
            ) -> Self::Optimizers<F> {
                layers.layer(self);
                family.for_layer(self)
            }

            fn visit_layers<F: Family<Dtype = $E, Device = D>, V: LayerVisitor<F>>(
                &self,
                optimizer: &Self::Optimizers<F>,
                visitor: &mut V,
            ) -> Result<(), V::Err> {
                visitor.visit_layer(self, optimizer)
            }

            fn visit_layers_mut<F: Family<Dtype = $E, Device = D>, V: LayerVisitorMut<F>>(
                &mut self,
                optimizer: &mut Self::Optimizers<F>,
                visitor: &mut V,
            ) -> Result<(), V::Err> {
                visitor.visit_layer(self, optimizer)
            }
        }
    )+};
}

layer! {
    [S: ConstShape,] E: (), Tensor<S, E, D>;
    [const I: usize, const O: usize,] E: (Float, SampleUniform), Linear<I, O, E, D>;
    [const I: usize, const O: usize,] E: (Float, SampleUniform), UnbiasedLinear<I, O, E, D>;
    [const N: usize, const M: usize,] E: (Float, SampleUniform), Embedding<N, M, E, D>;
    [const M: usize,] E: (), LayerNorm1D<M, E, D>;
    [const C: usize,] E: (), BatchNorm1D<C, E, D>;
    [const C: usize,] E: (), BatchNorm2D<C, E, D>;
    [const C: usize,] E: (), Bias2D<C, E, D>;
    [] E: (), prelu::PReLU<E, D>;
    [C: ConstDim,] E: (), prelu::PReLU1D<C, E, D>;
}

/// Implements the trait for modules made of other modules. Their layers are those of their fields,
/// in order. A line gives each field, a variable for its optimizers, and its type.
macro_rules! fields {
    (
        [$($generics:tt)*] $E:ident: ($($bound:path),*), $Module:ty {
            $($field:tt $optimizers:ident: $Field:ty),+
        }
    ) => {
        impl<$($generics)* $E: Dtype $(+ $bound)*, D: Device<$E>> TrainableLr<$E, D> for $Module {
            type Optimizers<F: Family<Dtype = $E, Device = D>> =
                ($(<$Field as TrainableLr<$E, D>>::Optimizers<F>,)+);

            fn optimizers<F: Family<Dtype = $E, Device = D>>(
                &self,
                family: &F,
                layers: &mut Layers,
            ) -> Self::Optimizers<F> {
                ($(
                    layers.field(stringify!($field), LayerOptions::default(), |layers| {
                        self.$field.optimizers(family, layers)
                    }),
                )+)
            }

            fn visit_layers<F: Family<Dtype = $E, Device = D>, V: LayerVisitor<F>>(
                &self,
                ($($optimizers,)+): &Self::Optimizers<F>,
                visitor: &mut V,
            ) -> Result<(), V::Err> {
                $(self.$field.visit_layers($optimizers, visitor)?;)+
                Ok(())
            }

            fn visit_layers_mut<F: Family<Dtype = $E, Device = D>, V: LayerVisitorMut<F>>(
                &mut self,
                ($($optimizers,)+): &mut Self::Optimizers<F>,
                visitor: &mut V,
            ) -> Result<(), V::Err> {
                $(self.$field.visit_layers_mut($optimizers, visitor)?;)+
                Ok(())
            }
        }
    };
}

fields! { [A: TrainableLr<E, D>,] E: (), (A,) { 0 a: A } }
fields! {
    [A: TrainableLr<E, D>, B: TrainableLr<E, D>,] E: (), (A, B) { 0 a: A, 1 b: B }
}
fields! {
    [A: TrainableLr<E, D>, B: TrainableLr<E, D>, C: TrainableLr<E, D>,] E: (), (A, B, C) {
        0 a: A, 1 b: B, 2 c: C
    }
}
fields! {
    [A: TrainableLr<E, D>, B: TrainableLr<E, D>, C: TrainableLr<E, D>, G: TrainableLr<E, D>,]
    E: (), (A, B, C, G) { 0 a: A, 1 b: B, 2 c: C, 3 g: G }
}
fields! {
    [
        A: TrainableLr<E, D>, B: TrainableLr<E, D>, C: TrainableLr<E, D>, G: TrainableLr<E, D>,
        H: TrainableLr<E, D>,
    ]
    E: (), (A, B, C, G, H) { 0 a: A, 1 b: B, 2 c: C, 3 g: G, 4 h: H }
}
fields! {
    [
        A: TrainableLr<E, D>, B: TrainableLr<E, D>, C: TrainableLr<E, D>, G: TrainableLr<E, D>,
        H: TrainableLr<E, D>, I: TrainableLr<E, D>,
    ]
    E: (), (A, B, C, G, H, I) { 0 a: A, 1 b: B, 2 c: C, 3 g: G, 4 h: H, 5 i: I }
}
fields! { [A: TrainableLr<E, D>,] E: (), Residual<A> { 0 a: A } }
fields! { [A: TrainableLr<E, D>,] E: (), SplitInto<A> { 0 a: A } }
fields! { [A: TrainableLr<E, D>,] E: (), AddInto<A> { 0 a: A } }
fields! {
    [A: TrainableLr<E, D>, B: TrainableLr<E, D>,] E: (), GeneralizedResidual<A, B> {
        f a: A, r b: B
    }
}
fields! {
    [const M: usize, const H: usize, const K: usize, const N: usize,]
    E: (Float, SampleUniform), MultiHeadAttention<M, H, K, N, E, D> {
        w_q q: Linear<M, K, E, D>,
        w_k k: Linear<M, K, E, D>,
        w_v v: Linear<M, N, E, D>,
        w_o o: Linear<N, M, E, D>
    }
}

type FeedForward<const M: usize, const N: usize, E, D> =
    Residual<(Linear<M, N, E, D>, ReLU, Linear<N, M, E, D>)>;

fields! {
    [const M: usize, const H: usize, const N: usize,]
    E: (Float, SampleUniform), TransformerEncoderBlock<M, H, N, E, D> {
        self_attn attention: MultiHeadAttention<M, H, M, M, E, D>,
        norm1 first: LayerNorm1D<M, E, D>,
        ff ff: FeedForward<M, N, E, D>,
        norm2 second: LayerNorm1D<M, E, D>
    }
}
fields! {
    [const M: usize, const H: usize, const N: usize,]
    E: (Float, SampleUniform), TransformerDecoderBlock<M, H, N, E, D> {
        self_attn attention: MultiHeadAttention<M, H, M, M, E, D>,
        norm1 first: LayerNorm1D<M, E, D>,
        mh_attn memory: MultiHeadAttention<M, H, M, M, E, D>,
        norm2 second: LayerNorm1D<M, E, D>,
        ff ff: FeedForward<M, N, E, D>,
        norm3 third: LayerNorm1D<M, E, D>
    }
}
fields! {
    [const M: usize, const H: usize, const N: usize, const L: usize,]
    E: (Float, SampleUniform), TransformerDecoder<M, H, N, L, E, D> {
        0 blocks: Repeated<TransformerDecoderBlock<M, H, N, E, D>, L>
    }
}
fields! {
    [const M: usize, const H: usize, const EL: usize, const DL: usize, const N: usize,]
    E: (Float, SampleUniform), Transformer<M, H, EL, DL, N, E, D> {
        encoder encoder: TransformerEncoder<M, H, N, EL, E, D>,
        decoder decoder: TransformerDecoder<M, H, N, DL, E, D>
    }
}

impl<E: Dtype, D: Device<E>, A: TrainableLr<E, D>, const N: usize> TrainableLr<E, D>
    for Repeated<A, N>
{
    type Optimizers<F: Family<Dtype = E, Device = D>> = Vec<A::Optimizers<F>>;

    fn optimizers<F: Family<Dtype = E, Device = D>>(
        &self,
        family: &F,
        layers: &mut Layers,
    ) -> Self::Optimizers<F> {
        self.modules
            .iter()
            .enumerate()
            .map(|(index, module)| {
                layers.field(&index.to_string(), LayerOptions::default(), |layers| {
                    module.optimizers(family, layers)
                })
            })
            .collect()
    }

    fn visit_layers<F: Family<Dtype = E, Device = D>, V: LayerVisitor<F>>(
        &self,
        optimizers: &Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err> {
        let mut layers = self.modules.iter().zip(optimizers);
        layers.try_for_each(|(module, optimizers)| module.visit_layers(optimizers, visitor))
    }

    fn visit_layers_mut<F: Family<Dtype = E, Device = D>, V: LayerVisitorMut<F>>(
        &mut self,
        optimizers: &mut Self::Optimizers<F>,
        visitor: &mut V,
    ) -> Result<(), V::Err> {
        let mut layers = self.modules.iter_mut().zip(optimizers);
        layers.try_for_each(|(module, optimizers)| module.visit_layers_mut(optimizers, visitor))
    }
}

/// Implements the trait for modules without tensors. They have no layer.
macro_rules! no_layer {
    ($([$($generics:tt)*] $Module:ty $(where $S:ident: $bound:path)?;)+) => {$(
        impl<$($generics)* E: Dtype, D: Device<E>> TrainableLr<E, D> for $Module
        $(where $S: $bound)?
        {
            type Optimizers<F: Family<Dtype = E, Device = D>> = ();

            fn optimizers<F: Family<Dtype = E, Device = D>>(&self, _: &F, _: &mut Layers) {}

            fn visit_layers<F: Family<Dtype = E, Device = D>, V: LayerVisitor<F>>(
                &self,
                _: &(),
                _: &mut V,
            ) -> Result<(), V::Err> {
                Ok(())
            }

            fn visit_layers_mut<F: Family<Dtype = E, Device = D>, V: LayerVisitorMut<F>>(
                &mut self,
                _: &mut (),
                _: &mut V,
            ) -> Result<(), V::Err> {
                Ok(())
            }
        }
    )+};
}

#[allow(deprecated)] // dfdx deprecates its exact GeLU, but models may still use it.
mod gelu {
    use super::*;
    no_layer! { [] GeLU; }
}

no_layer! {
    [] ();
    [] ReLU;
    [] FastGeLU;
    [] AccurateGeLU;
    [T: Dtype,] LeakyReLU<T>;
    [] Sin;
    [] Cos;
    [] Ln;
    [] Exp;
    [] Sigmoid;
    [] Tanh;
    [] Square;
    [] Sqrt;
    [] Abs;
    [] Softmax;
    [] LogSoftmax;
    [] Dropout;
    [const N: usize,] DropoutOneIn<N>;
    [] AvgPoolGlobal;
    [] MaxPoolGlobal;
    [] MinPoolGlobal;
    [S: ConstShape,] dfdx::nn::builders::Reshape<S>;
    [const H: usize, const W: usize, M: UpscaleMethod + Clone + Default,] Upscale2D<H, W, M>;
}
