//! The layers on CUDA: by our own kernels, if there are some for the dtype and the sizes.

use super::Kernels;
use crate::layers::{
    conv, cuda::Kind, linear, norm, pointwise, pool, BatchNorm2d, Conv2dOptions, Filters,
    LayerError, LinearOptions, Planes, Pooling, Rows,
};
use dfdx::prelude::{
    Cuda, Device, Dim, Dtype, HasShape, NoneTape, Rank1, Rank2, ReshapeTo, Shape, Tape, Tensor,
};

impl<E: Dtype> Kernels<E> for Cuda
where
    Self: Device<E>,
{
    fn try_linear<B: Dim, T: Tape<E, Self>, const IN: usize, const OUT: usize>(
        x: Rows<B, IN, E, Self, T>,
        weight: &Tensor<Rank2<OUT, IN>, E, Self>,
        bias: &Tensor<Rank1<OUT>, E, Self>,
        options: LinearOptions,
    ) -> Result<Rows<B, OUT, E, Self, T>, Self::Err> {
        let Some(kind) = Kind::of_small::<E>(&[x.shape().0.size(), IN, OUT]) else {
            return linear::composed(x, weight, bias, options);
        };
        let weight = weight.clone().try_contiguous()?;
        let bias = bias.clone().try_contiguous()?;
        linear::on_cuda(kind, x.try_contiguous()?, weight, bias, options)
    }

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
        let &(batch, _, height, width) = x.shape();
        let size = (batch.size(), height.size(), width.size());
        let Some(plan) = conv::plan::<E, I, O, K, G>(size, options) else {
            return conv::composed(x, weight, bias, options);
        };
        let weight = weight.clone().try_contiguous()?;
        let bias = bias.map(|bias| bias.clone().try_contiguous()).transpose()?;
        conv::on_cuda(plan, x.try_contiguous()?, weight, bias, options)
    }

    fn try_pool2d<B: Dim, H: Dim, W: Dim, T: Tape<E, Self>, const C: usize>(
        x: Planes<B, C, H, W, E, Self, T>,
        pooling: Pooling,
        window: (usize, usize, usize),
    ) -> Result<Planes<B, C, usize, usize, E, Self, T>, LayerError<Self::Err>> {
        match pool::Plan::of::<E, B, H, W, C>(x.shape(), pooling, window) {
            Some(plan) => pool::on_cuda(plan, x.try_contiguous()?),
            None => pool::composed(x, pooling, window),
        }
    }

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
        let Some(plan) = norm::Plan::of::<E, B, H, W, C>(x.shape()) else {
            return norm::train_composed(x, norm);
        };
        let weight = norm.weight.clone().try_contiguous()?;
        let bias = norm.bias.clone().try_contiguous()?;
        norm::train_on_cuda::<_, _, _, _, _, C, RELU>(
            plan,
            x.try_contiguous()?,
            [weight, bias],
            norm.eps,
        )
    }

    fn try_infer_batch_norm2d<B: Dim, H: Dim, W: Dim, const C: usize, const RELU: bool>(
        x: Planes<B, C, H, W, E, Self, NoneTape>,
        norm: &BatchNorm2d<C, RELU, E, Self>,
    ) -> Result<Planes<B, C, H, W, E, Self, NoneTape>, Self::Err> {
        let Some(plan) = norm::Plan::of::<E, B, H, W, C>(x.shape()) else {
            return norm::infer_composed(x, norm);
        };
        let tensors = [
            norm.running_mean.clone().try_contiguous()?,
            norm.running_var.clone().try_contiguous()?,
            norm.weight.clone().try_contiguous()?,
            norm.bias.clone().try_contiguous()?,
        ];
        norm::infer_on_cuda::<_, _, _, _, C, RELU>(plan, x.try_contiguous()?, tensors, norm.eps)
    }

    fn try_rectify<S: Shape, T: Tape<E, Self>>(
        x: Tensor<S, E, Self, T>,
    ) -> Result<Tensor<S, E, Self, T>, Self::Err> {
        match Kind::of::<E>() {
            Some(kind) => pointwise::relu_on_cuda(kind, x.try_contiguous()?),
            None => x.try_relu(),
        }
    }

    fn try_sum<S: Shape, T: Tape<E, Self>>(
        x: Tensor<S, E, Self, T>,
        y: Tensor<S, E, Self, T>,
        relu: bool,
    ) -> Result<Tensor<S, E, Self, T>, Self::Err> {
        match Kind::of::<E>().filter(|_| x.shape() == y.shape()) {
            Some(kind) => {
                pointwise::sum_on_cuda(kind, x.try_contiguous()?, y.try_contiguous()?, relu)
            }
            None => pointwise::composed_sum(x, y, relu),
        }
    }
}
