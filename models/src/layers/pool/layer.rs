//! The poolings as layers.

use super::Pooling;
use crate::layers::{Kernels, LayerError, Planes};
use dfdx::{
    nn::{Module, NonMutableModule, ZeroSizedModule},
    prelude::{Dim, Dtype, Tape},
};
use tlr::TrainableLr;

macro_rules! layer {
    ($(#[$doc:meta])* $Layer:ident, $pooling:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, TrainableLr)]
        pub struct $Layer<
            const KERNEL: usize,
            const STRIDE: usize = KERNEL,
            const PADDING: usize = 0,
        >;

        impl<const K: usize, const S: usize, const P: usize> ZeroSizedModule for $Layer<K, S, P> {}
        impl<const K: usize, const S: usize, const P: usize> NonMutableModule for $Layer<K, S, P> {}

        impl<B, H, W, E, D, T, const C: usize, const K: usize, const S: usize, const P: usize>
            Module<Planes<B, C, H, W, E, D, T>> for $Layer<K, S, P>
        where
            B: Dim,
            H: Dim,
            W: Dim,
            E: Dtype,
            D: Kernels<E>,
            T: Tape<E, D>,
        {
            type Output = Planes<B, C, usize, usize, E, D, T>;
            type Error = LayerError<D::Err>;

            fn try_forward(
                &self,
                x: Planes<B, C, H, W, E, D, T>,
            ) -> Result<Self::Output, Self::Error> {
                const {
                    assert!(K > 0 && S > 0 && 2 * P <= K, "padding is at most half of the window")
                };
                D::try_pool2d(x, $pooling, (K, S, P))
            }
        }
    };
}

layer! {
    /// The largest of each window of KERNEL × KERNEL pixels, STRIDE apart, by default side by side.
    /// Padding is never the largest. If several pixels are largest, the gradient goes to the first.
    ///
    /// Maps `(batch, C, height, width)` to `(batch, C, height', width')` with
    /// height' = ⌊(height + 2·PADDING − KERNEL) / STRIDE⌋ + 1.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::MaxPool2d;
    ///
    /// let dev = Cpu::default();
    /// let x = dev.tensor([[[[1.0, 2.0, 5.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]]]);
    /// assert_eq!(MaxPool2d::<2, 1>.forward(x).as_vec(), [4.0, 5.0, 4.0, 4.0]);
    /// ```
    MaxPool2d, Pooling::Max
}

layer! {
    /// The mean of each window of KERNEL × KERNEL pixels, STRIDE apart, by default side by side.
    /// Padding counts as zeros, as in PyTorch.
    ///
    /// Shapes as for [`MaxPool2d`].
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::AvgPool2d;
    ///
    /// let dev = Cpu::default();
    /// let x = dev.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]);
    /// assert_eq!(AvgPool2d::<2>.forward(x).as_vec(), [2.5]);
    /// ```
    AvgPool2d, Pooling::Mean
}
