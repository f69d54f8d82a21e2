//! A dense layer on CUDA: its matrix products by cuBLAS, and one launch around them forwards, two
//! backwards.

use super::{LinearOptions, Rows};
use crate::layers::cuda::{
    address, kernels, row_shares, CudaErr, Grid, Input, Kind, Matrix, Output, Product,
};
use dfdx::prelude::{
    Const, Cuda, Dim, Dtype, Gradients, HasShape, PutTape, Rank1, Rank2, SplitTape, Tape, Tensor,
};

/// One matrix of rows of `line` elements.
fn matrix(address: u64, line: usize) -> Matrix {
    Matrix { address, line, transposed: false, steps: [0, 0] }
}

/// `c` ← `a`·`b`, or `c` + `a`·`b`.
fn product([rows, terms, columns]: [usize; 3], [a, b, c]: [Matrix; 3], added: bool) -> Product {
    Product { rows, terms, columns, counts: [1, 1], a, b, c, added }
}

/// A dense layer on CUDA. All tensors are contiguous, and their sizes are below 2³¹.
pub(in crate::layers) fn on_cuda<B, E, T, const IN: usize, const OUT: usize>(
    kind: Kind,
    x: Rows<B, IN, E, Cuda, T>,
    weight: Tensor<Rank2<OUT, IN>, E, Cuda>,
    bias: Tensor<Rank1<OUT>, E, Cuda>,
    options: LinearOptions,
) -> Result<Rows<B, OUT, E, Cuda, T>, CudaErr>
where
    B: Dim,
    E: Dtype,
    T: Tape<E, Cuda>,
{
    let (x, mut tape) = x.split_tape();
    let batch = x.shape().0;
    let rows = batch.size();
    let (count, width, relu) = (rows as u64, OUT as u32, u32::from(options.relu));
    let (x, weight, bias) = (Input::of(x)?, Input::of(weight)?, Input::of(bias)?);
    let y = Output::<_, E>::new(x.device(), (batch, Const::<OUT>))?;
    let of_y = y.address();
    let matrices =
        [matrix(x.address(), IN), matrix(weight.address(), IN).transposed(), matrix(of_y, OUT)];
    let gpu = x.gpu()?;
    // SAFETY: the tensors are there, contiguous, and of these sizes; `y` is not used yet.
    #[allow(unsafe_code)]
    unsafe {
        gpu.multiply(kind, &product([rows, IN, OUT], matrices, false))?;
        let arguments = (count, width, relu, bias.address(), of_y);
        gpu.launch(kernels::ADD_BIAS, kind, Grid::of(rows * OUT), arguments)?;
    }
    drop(gpu);
    let y = y.tensor()?;
    if !T::OWNS_TAPE {
        return Ok(y.put_tape(tape));
    }

    let (kept, bias) = (Input::of(y.clone())?, bias.tensor().ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(kept.tensor())?);
        let to_weight = address::<E>(gradients.get_or_alloc_mut(weight.tensor())?);
        let to_bias = address::<E>(gradients.get_or_alloc_mut(&bias)?);
        let to_x = match options.input_gradient {
            true => Some(address::<E>(gradients.get_or_alloc_mut(x.tensor())?)),
            false => None,
        };
        let shares = row_shares(rows);
        let of_passed = if options.relu { rows * OUT * kind.bytes() } else { 0 };
        let mut gpu = x.gpu()?;
        let sums = gpu.workspace(OUT * shares * size_of::<f64>() + of_passed)?;
        let room = sums + (OUT * shares * size_of::<f64>()) as u64;
        let passed = if options.relu { room } else { upstream };
        // SAFETY: what the forward pass used is kept, and `gradients` holds the others, each with
        // as many elements as its tensor. The workspace has room for the sums of all blocks and, if
        // there is a rectifier, behind them for the gradient that the rectifier lets pass.
        #[allow(unsafe_code)]
        unsafe {
            let arguments = (count, width, relu, kept.address(), upstream, room, sums);
            let grid = Grid::of_shares(OUT, shares);
            gpu.launch(kernels::LINEAR_GRADIENT, kind, grid, arguments)?;
            let arguments = (sums, to_bias, width, shares as u32);
            gpu.launch(kernels::ADD_SUMS, kind, Grid::of(OUT), arguments)?;
            let matrices =
                [matrix(passed, OUT).transposed(), matrix(x.address(), IN), matrix(to_weight, IN)];
            gpu.multiply(kind, &product([OUT, rows, IN], matrices, true))?;
            if let Some(to_x) = to_x {
                let matrices =
                    [matrix(passed, OUT), matrix(weight.address(), IN), matrix(to_x, IN)];
                gpu.multiply(kind, &product([rows, OUT, IN], matrices, true))?;
            }
        }
        Ok(())
    });
    Ok(y.put_tape(tape))
}
