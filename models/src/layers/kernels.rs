//! The operations that the layers ask of a device. On any device dfdx's own operations do them, on
//! the CPU and on CUDA this crate's.

#[cfg(feature = "cuda")]
mod on_cuda;

use super::{
    conv, linear, norm, pointwise, pool, BatchNorm2d, Conv2dOptions, Filters, LayerError,
    LinearOptions, Planes, Pooling, Rows,
};
use dfdx::prelude::{
    Cpu, CpuError, Device, Dim, Dtype, NoneTape, Rank1, Rank2, ReshapeTo, Shape, Tape, Tensor,
};

/// A device with this crate's operations. The methods given here run on any device; the CPU and
/// CUDA have their own.
pub trait Kernels<E: Dtype>: Device<E> {
    /// `x·Wᵀ + b`, rectified if `options` say so: `(batch, IN)` to `(batch, OUT)`, with the weight
    /// in PyTorch's and dfdx's layout, `(OUT, IN)`.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Example
    /// ```
    /// use dfdx::prelude::*;
    /// use tlr_models::layers::{Kernels, LinearOptions};
    ///
    /// let dev = Cpu::default();
    /// let x = dev.tensor([[1.0, 2.0, 3.0]]);
    /// let weight = dev.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]);
    /// let bias = dev.tensor([0.5, 0.5]);
    /// let options = LinearOptions { relu: true, ..Default::default() };
    /// let y = Cpu::try_linear(x, &weight, &bias, options)?;
    /// assert_eq!(y.array(), [[1.5, 0.0]]);
    /// # Ok::<(), CpuError>(())
    /// ```
    fn try_linear<B: Dim, T: Tape<E, Self>, const IN: usize, const OUT: usize>(
        x: Rows<B, IN, E, Self, T>,
        weight: &Tensor<Rank2<OUT, IN>, E, Self>,
        bias: &Tensor<Rank1<OUT>, E, Self>,
        options: LinearOptions,
    ) -> Result<Rows<B, OUT, E, Self, T>, Self::Err> {
        linear::composed(x, weight, bias, options)
    }

    /// The convolution of `(batch, I, height, width)` images with filters `(O, I / G, K, K)` in G
    /// groups, and a bias for each output channel if there is one.
    ///
    /// # Errors
    /// [`LayerError::Shape`] if the filter is larger than the padded image, or stride or dilation
    /// is 0; out of memory.
    #[allow(clippy::type_complexity)]
    fn try_conv2d<
        B: Dim,
        H: Dim,
        W: Dim,
        T: Tape<E, Self>,
        const I: usize,
        const O: usize,
        const K: usize,
        const G: usize,
    >(
        x: Planes<B, I, H, W, E, Self, T>,
        weight: &Filters<I, O, K, G, E, Self>,
        bias: Option<&Tensor<Rank1<O>, E, Self>>,
        options: Conv2dOptions,
    ) -> Result<Planes<B, O, usize, usize, E, Self, T>, LayerError<Self::Err>> {
        conv::composed(x, weight, bias, options)
    }

    /// The largest pixel or the mean of each window of `(kernel, stride, padding)` pixels.
    ///
    /// # Errors
    /// [`LayerError::Shape`] if the window is larger than the padded image, the padding more than
    /// half of the window, or the stride 0; out of memory.
    #[allow(clippy::type_complexity)]
    fn try_pool2d<B: Dim, H: Dim, W: Dim, T: Tape<E, Self>, const C: usize>(
        x: Planes<B, C, H, W, E, Self, T>,
        pooling: Pooling,
        window: (usize, usize, usize),
    ) -> Result<Planes<B, C, usize, usize, E, Self, T>, LayerError<Self::Err>> {
        pool::composed(x, pooling, window)
    }

    /// Normalizes by the batch's own statistics: the result, and each channel's mean and biased
    /// variance.
    ///
    /// # Errors
    /// Out of memory.
    #[allow(clippy::type_complexity)]
    fn try_train_batch_norm2d<B, H, W, T, const C: usize, const RELU: bool>(
        x: Planes<B, C, H, W, E, Self, T>,
        norm: &BatchNorm2d<C, RELU, E, Self>,
    ) -> Result<
        (Planes<B, C, H, W, E, Self, T>, Tensor<Rank1<C>, E, Self>, Tensor<Rank1<C>, E, Self>),
        Self::Err,
    >
    where
        B: Dim,
        H: Dim,
        W: Dim,
        T: Tape<E, Self>,
    {
        norm::train_composed(x, norm)
    }

    /// Normalizes by the running statistics.
    ///
    /// # Errors
    /// Out of memory.
    #[allow(clippy::type_complexity)]
    fn try_infer_batch_norm2d<B: Dim, H: Dim, W: Dim, const C: usize, const RELU: bool>(
        x: Planes<B, C, H, W, E, Self, NoneTape>,
        norm: &BatchNorm2d<C, RELU, E, Self>,
    ) -> Result<Planes<B, C, H, W, E, Self, NoneTape>, Self::Err> {
        norm::infer_composed(x, norm)
    }

    /// `max(x, 0)`; the derivative at 0 is 0.
    ///
    /// # Errors
    /// Out of memory.
    fn try_rectify<S: Shape, T: Tape<E, Self>>(
        x: Tensor<S, E, Self, T>,
    ) -> Result<Tensor<S, E, Self, T>, Self::Err> {
        x.try_relu()
    }

    /// `x + y`, rectified if `relu` says so: how a residual block ends.
    ///
    /// # Errors
    /// Out of memory.
    fn try_sum<S: Shape, T: Tape<E, Self>>(
        x: Tensor<S, E, Self, T>,
        y: Tensor<S, E, Self, T>,
        relu: bool,
    ) -> Result<Tensor<S, E, Self, T>, Self::Err> {
        pointwise::composed_sum(x, y, relu)
    }
}

// One `impl` for each dtype: in a generic one, `Cpu: Device<E>` hides from the compiler that the
// CPU's buffers are vectors.
macro_rules! on_cpu {
    ($($dtype:ty),*) => {$(
        impl Kernels<$dtype> for Cpu {
            fn try_linear<B: Dim, T: Tape<$dtype, Self>, const IN: usize, const OUT: usize>(
                x: Rows<B, IN, $dtype, Self, T>,
                weight: &Tensor<Rank2<OUT, IN>, $dtype, Self>,
                bias: &Tensor<Rank1<OUT>, $dtype, Self>,
                options: LinearOptions,
            ) -> Result<Rows<B, OUT, $dtype, Self, T>, CpuError> {
                let weight = weight.clone().try_contiguous()?;
                let bias = bias.clone().try_contiguous()?;
                linear::on_cpu(x.try_contiguous()?, weight, bias, options)
            }

            fn try_conv2d<
                B: Dim,
                H: Dim,
                W: Dim,
                T: Tape<$dtype, Self>,
                const I: usize,
                const O: usize,
                const K: usize,
                const G: usize,
            >(
                x: Planes<B, I, H, W, $dtype, Self, T>,
                weight: &Filters<I, O, K, G, $dtype, Self>,
                bias: Option<&Tensor<Rank1<O>, $dtype, Self>>,
                options: Conv2dOptions,
            ) -> Result<Planes<B, O, usize, usize, $dtype, Self, T>, LayerError<CpuError>> {
                let weight = weight.clone().try_contiguous()?;
                let bias = bias.map(|bias| bias.clone().try_contiguous()).transpose()?;
                conv::on_cpu(x.try_contiguous()?, weight, bias, options)
            }

            fn try_pool2d<B: Dim, H: Dim, W: Dim, T: Tape<$dtype, Self>, const C: usize>(
                x: Planes<B, C, H, W, $dtype, Self, T>,
                pooling: Pooling,
                window: (usize, usize, usize),
            ) -> Result<Planes<B, C, usize, usize, $dtype, Self, T>, LayerError<CpuError>> {
                pool::on_cpu(x.try_contiguous()?, pooling, window)
            }

            fn try_train_batch_norm2d<B, H, W, T, const C: usize, const RELU: bool>(
                x: Planes<B, C, H, W, $dtype, Self, T>,
                norm: &BatchNorm2d<C, RELU, $dtype, Self>,
            ) -> Result<
                (
                    Planes<B, C, H, W, $dtype, Self, T>,
                    Tensor<Rank1<C>, $dtype, Self>,
                    Tensor<Rank1<C>, $dtype, Self>,
                ),
                CpuError,
            >
            where
                B: Dim,
                H: Dim,
                W: Dim,
                T: Tape<$dtype, Self>,
            {
                norm::train_on_cpu::<_, _, _, _, _, C, RELU>(
                    x.try_contiguous()?,
                    [&norm.weight, &norm.bias],
                    norm.eps,
                )
            }

            fn try_infer_batch_norm2d<B: Dim, H: Dim, W: Dim, const C: usize, const RELU: bool>(
                x: Planes<B, C, H, W, $dtype, Self, NoneTape>,
                norm: &BatchNorm2d<C, RELU, $dtype, Self>,
            ) -> Result<Planes<B, C, H, W, $dtype, Self, NoneTape>, CpuError> {
                let tensors = [&norm.running_mean, &norm.running_var, &norm.weight, &norm.bias];
                norm::infer_on_cpu::<_, _, _, _, C, RELU>(x.try_contiguous()?, tensors, norm.eps)
            }

            fn try_rectify<S: Shape, T: Tape<$dtype, Self>>(
                x: Tensor<S, $dtype, Self, T>,
            ) -> Result<Tensor<S, $dtype, Self, T>, CpuError> {
                pointwise::relu_on_cpu(x.try_contiguous()?)
            }

            fn try_sum<S: Shape, T: Tape<$dtype, Self>>(
                x: Tensor<S, $dtype, Self, T>,
                y: Tensor<S, $dtype, Self, T>,
                relu: bool,
            ) -> Result<Tensor<S, $dtype, Self, T>, CpuError> {
                pointwise::sum_on_cpu(x.try_contiguous()?, y.try_contiguous()?, relu)
            }
        }
    )*};
}
on_cpu!(f32, f64);
