//! Residual networks for images: wide ones, and ResNet-50.

use crate::layers::Planes;

/// Implements `Module` for inference and `ModuleMut` for training by one body: a macro that is
/// given the model, its input and the name of the method to call on its parts. Types are written
/// without their last argument, the tape.
macro_rules! both_modes {
    (
        [$($generics:tt)*] $Model:ty, [$($Input:tt)*] => [$($Output:tt)*], $body:ident
        $(, $Part:ty: [$($PartInput:tt)*] => [$($PartOutput:tt)*])?
    ) => {
        both_modes! {
            @mode Module, try_forward, NoneTape, [&self] self,
            [$($generics)*] $Model, [$($Input)*] => [$($Output)*], $body
            $(, $Part: [$($PartInput)*] => [$($PartOutput)*])?
        }
        both_modes! {
            @mode ModuleMut, try_forward_mut, OwnedTape<E, D>, [&mut self] self,
            [$($generics)*] $Model, [$($Input)*] => [$($Output)*], $body
            $(, $Part: [$($PartInput)*] => [$($PartOutput)*])?
        }
    };
    (
        @mode $Module:ident, $forward:ident, $Tape:ty, [$($receiver:tt)+] $this:ident,
        [$($generics:tt)*] $Model:ty, [$($Input:tt)*] => [$($Output:tt)*], $body:ident
        $(, $Part:ty: [$($PartInput:tt)*] => [$($PartOutput:tt)*])?
    ) => {
        impl<B, E, D, $($generics)*> $Module<$($Input)*, $Tape>> for $Model
        where
            B: Dim,
            E: Dtype + Float + SampleUniform,
            D: Kernels<E>,
            $(
                $Part: $Module<
                    $($PartInput)*, $Tape>,
                    Output = $($PartOutput)*, $Tape>,
                    Error = LayerError<D::Err>,
                >,
            )?
        {
            type Output = $($Output)*, $Tape>;
            type Error = LayerError<D::Err>;

            fn $forward($($receiver)+, x: $($Input)*, $Tape>) -> Result<Self::Output, Self::Error> {
                $body!($this, x, $forward)
            }
        }
    };
}

mod deep;
mod wide;

pub use deep::{Bottleneck, FirstBottleneck, ResNet50, Stage};
pub use wide::{
    Block, FirstBlock, Group, PlainBlock, WideResNet, Wrn10x1, Wrn16x1, Wrn16x2, Wrn16x4, Wrn16x8,
    Wrn28x10,
};

/// Images inside a network, whose sizes are known at run time only.
type Images<B, const C: usize, E, D, T> = Planes<B, C, usize, usize, E, D, T>;
