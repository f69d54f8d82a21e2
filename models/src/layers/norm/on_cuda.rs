//! Batch normalization on CUDA, in two launches forwards and two backwards.

use super::Normalized;
use crate::layers::{
    cuda::{address, kept, kernels, Channels, CudaErr, Input, Kind, Output},
    Planes,
};
use dfdx::prelude::{
    Const, Cuda, Dim, Dtype, Gradients, NoneTape, PutTape, Rank1, SplitTape, Tape, Tensor,
};

/// How many numbers a block sums up: those of the mean and of the variance, or of the gradients.
const SUMS: usize = 2;

/// A normalization whose numbers are small enough for the kernels.
#[derive(Clone, Copy, Debug)]
pub(in crate::layers) struct Plan {
    kind: Kind,
    channels: Channels,
}

impl Plan {
    /// `None` if dfdx's own operations have to do it.
    pub(in crate::layers) fn of<E: Dtype, B: Dim, H: Dim, W: Dim, const C: usize>(
        &(batch, _, height, width): &(B, Const<C>, H, W),
    ) -> Option<Self> {
        let pixels = height.size().checked_mul(width.size())?;
        let channels = Channels::new([batch.size(), C, pixels])?;
        // Without values there is no mean.
        let some = batch.size() > 0 && pixels > 0;
        Some(Self { kind: Kind::of::<E>().filter(|_| some)?, channels })
    }
}

/// Normalizes by the statistics of the batch, in training. `x` is contiguous.
pub(in crate::layers) fn train_on_cuda<B, H, W, E, T, const C: usize, const RELU: bool>(
    Plan { kind, channels }: Plan,
    x: Planes<B, C, H, W, E, Cuda, T>,
    [weight, bias]: [Tensor<Rank1<C>, E, Cuda>; 2],
    eps: f64,
) -> Normalized<B, H, W, E, Cuda, T, C>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    T: Tape<E, Cuda>,
{
    let Channels { planes, grid, .. } = channels;
    let relu = u32::from(RELU);
    let (x, mut tape) = x.split_tape();
    let (x, weight, bias) = (Input::of(x)?, Input::of(weight)?, Input::of(bias)?);
    let y = Output::new(x.device(), x.shape())?;
    let mean = Output::<Rank1<C>, E>::new(x.device(), Rank1::<C>::default())?;
    let var = Output::<Rank1<C>, E>::new(x.device(), Rank1::<C>::default())?;
    // Each channel's mean and 1/√(variance + eps), unrounded.
    let statistics = kept::<f64>(x.device(), 2 * C)?;
    let known = address::<f64>(&statistics);
    let mut gpu = x.gpu()?;
    let sums = gpu.workspace(channels.bytes_of_sums(SUMS))?;
    let (of_x, of_weight, of_bias) = (x.address(), weight.address(), bias.address());
    let written = (mean.address(), var.address(), y.address());
    // SAFETY: the tensors are there, contiguous, and of the plan's sizes. Nothing else uses those
    // that are written yet. Each block writes its own sums.
    #[allow(unsafe_code)]
    unsafe {
        gpu.launch(kernels::NORM_SUMS, kind, grid, (planes, of_x, sums))?;
        let (mean, var, y) = written;
        let arguments = (planes, relu, eps, of_x, of_weight, of_bias, sums, known, mean, var, y);
        gpu.launch(kernels::NORM_TRAIN, kind, grid, arguments)?;
    }
    drop(gpu);
    let (y, mean, var) = (y.tensor()?, mean.tensor()?, var.tensor()?);

    let y_ghost = y.ghost();
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(&y_ghost)?);
        let to_x = address::<E>(gradients.get_or_alloc_mut(x.tensor())?);
        let to_weight = address::<E>(gradients.get_or_alloc_mut(weight.tensor())?);
        let to_bias = address::<E>(gradients.get_or_alloc_mut(bias.tensor())?);
        let mut gpu = x.gpu()?;
        let sums = gpu.workspace(channels.bytes_of_sums(SUMS))?;
        let known = address::<f64>(&statistics);
        let (x, weight, bias) = (x.address(), weight.address(), bias.address());
        // SAFETY: what the forward pass used is kept, and `gradients` holds the others, each with
        // as many elements as its tensor. Each block writes its own sums.
        #[allow(unsafe_code)]
        unsafe {
            let arguments = (planes, relu, x, upstream, known, weight, bias, sums);
            gpu.launch(kernels::NORM_GRADIENT_SUMS, kind, grid, arguments)?;
            let arguments =
                (planes, relu, x, upstream, known, weight, bias, sums, to_x, to_weight, to_bias);
            gpu.launch(kernels::NORM_GRADIENTS, kind, grid, arguments)?;
        }
        Ok(())
    });
    Ok((y.put_tape(tape), mean, var))
}

/// Normalizes by the running statistics. `x` is contiguous.
#[allow(clippy::type_complexity)]
pub(in crate::layers) fn infer_on_cuda<B, H, W, E, const C: usize, const RELU: bool>(
    Plan { kind, channels: Channels { planes, grid, .. } }: Plan,
    x: Planes<B, C, H, W, E, Cuda, NoneTape>,
    tensors: [Tensor<Rank1<C>, E, Cuda>; 4],
    eps: f64,
) -> Result<Planes<B, C, H, W, E, Cuda, NoneTape>, CudaErr>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
{
    let [mean, var, weight, bias] = tensors;
    let x = Input::of(x)?;
    let (mean, var) = (Input::of(mean)?, Input::of(var)?);
    let (weight, bias) = (Input::of(weight)?, Input::of(bias)?);
    let y = Output::new(x.device(), x.shape())?;
    let [of_mean, of_var, of_weight, of_bias] = [&mean, &var, &weight, &bias].map(Input::address);
    let (relu, of_x, to) = (u32::from(RELU), x.address(), y.address());
    let arguments = (planes, relu, eps, of_x, of_mean, of_var, of_weight, of_bias, to);
    // SAFETY: the tensors are there, contiguous, and of the plan's sizes; `y` is not used yet.
    #[allow(unsafe_code)]
    unsafe { x.gpu()?.launch(kernels::NORM_INFER, kind, grid, arguments) }?;
    y.tensor()
}
