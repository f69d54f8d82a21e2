//! Layer norm on CUDA, in one launch forwards and three backwards.

use super::Rows;
use crate::layers::cuda::{address, kept, kernels, row_shares, CudaErr, Grid, Input, Kind, Output};
use dfdx::prelude::{Cuda, Dtype, Gradients, HasShape, PutTape, Rank1, SplitTape, Tape, Tensor};

/// Layer norm on CUDA. All tensors are contiguous, and `M` is below 2³¹.
pub(in crate::layers::sequence) fn on_cuda<E: Dtype, T: Tape<E, Cuda>, const M: usize>(
    kind: Kind,
    x: Rows<usize, M, E, Cuda, T>,
    weight: Tensor<Rank1<M>, E, Cuda>,
    bias: Tensor<Rank1<M>, E, Cuda>,
    epsilon: f64,
) -> Result<Rows<usize, M, E, Cuda, T>, CudaErr> {
    let (x, mut tape) = x.split_tape();
    let rows = x.shape().0;
    let (count, width) = (rows as u64, M as u32);
    let (x, weight, bias) = (Input::of(x)?, Input::of(weight)?, Input::of(bias)?);
    let y = Output::new(x.device(), x.shape())?;
    // Each row's mean and 1/√(variance + epsilon).
    let statistics = kept::<f64>(x.device(), 2 * rows)?;
    let known = address::<f64>(&statistics);
    let (of_x, of_weight, of_bias) = (x.address(), weight.address(), bias.address());
    let arguments = (count, width, epsilon, of_x, of_weight, of_bias, known, y.address());
    // SAFETY: the tensors are there, contiguous, and of these sizes; `y` and the statistics are not
    // used yet.
    #[allow(unsafe_code)]
    unsafe { x.gpu()?.launch(kernels::LAYER_NORM, kind, Grid::of_rows(rows), arguments) }?;
    let y = y.tensor()?;

    let (y_ghost, bias) = (y.ghost(), bias.tensor().ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(&y_ghost)?);
        let to_x = address::<E>(gradients.get_or_alloc_mut(x.tensor())?);
        let to_weight = address::<E>(gradients.get_or_alloc_mut(weight.tensor())?);
        let to_bias = address::<E>(gradients.get_or_alloc_mut(&bias)?);
        let (known, of_x) = (address::<f64>(&statistics), x.address());
        let mut gpu = x.gpu()?;
        let shares = row_shares(rows);
        let sums = gpu.workspace(shares * M * 2 * size_of::<f64>())?;
        // SAFETY: what the forward pass used is kept, and `gradients` holds the others, each with
        // as many elements as its tensor. Each block writes its own sums.
        #[allow(unsafe_code)]
        unsafe {
            let arguments = (count, width, of_x, weight.address(), known, upstream, to_x);
            let grid = Grid::of_rows(rows);
            gpu.launch(kernels::LAYER_NORM_GRADIENT, kind, grid, arguments)?;
            let arguments = (count, width, of_x, known, upstream, sums);
            let grid = Grid::of_shares(M, shares);
            gpu.launch(kernels::LAYER_NORM_COLUMNS, kind, grid, arguments)?;
            let arguments = (width, shares as u32, sums, to_weight, to_bias);
            gpu.launch(kernels::ADD_COLUMNS, kind, Grid::of(M), arguments)
        }
    });
    Ok(y.put_tape(tape))
}
