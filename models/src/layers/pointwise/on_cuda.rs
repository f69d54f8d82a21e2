//! The rectifier and the sum on CUDA, in one launch each, forwards and backwards.

use crate::layers::cuda::{address, kernels, CudaErr, Grid, Input, Kind, Output};
use dfdx::prelude::{Cuda, Dtype, Gradients, HasShape, PutTape, Shape, SplitTape, Tape, Tensor};

/// The rectifier. `x` is contiguous.
pub(in crate::layers) fn relu_on_cuda<S: Shape, E: Dtype, T: Tape<E, Cuda>>(
    kind: Kind,
    x: Tensor<S, E, Cuda, T>,
) -> Result<Tensor<S, E, Cuda, T>, CudaErr> {
    let (x, mut tape) = x.split_tape();
    let len = x.shape().num_elements();
    let x = Input::of(x)?;
    let y = Output::new(x.device(), x.shape())?;
    let arguments = (len as u64, x.address(), y.address());
    // SAFETY: both have `len` elements, and `y` is not used yet.
    #[allow(unsafe_code)]
    unsafe { x.gpu()?.launch(kernels::RECTIFY, kind, Grid::of(len), arguments) }?;
    let y = y.tensor()?;
    if !T::OWNS_TAPE {
        return Ok(y.put_tape(tape));
    }
    let (x, y_kept) = (x.tensor().ghost(), Input::of(y.clone())?);
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(y_kept.tensor())?);
        let to = address::<E>(gradients.get_or_alloc_mut(&x)?);
        let arguments = (len as u64, 1_u32, y_kept.address(), upstream, to, 0_u64);
        // SAFETY: `y` is kept, and `gradients` holds the others, with `len` elements each.
        #[allow(unsafe_code)]
        unsafe {
            y_kept.gpu()?.launch(kernels::ADD_PASSED, kind, Grid::of(len), arguments)
        }
    });
    Ok(y.put_tape(tape))
}

/// The sum of two tensors, rectified or not. Both are contiguous.
pub(in crate::layers) fn sum_on_cuda<S: Shape, E: Dtype, T: Tape<E, Cuda>>(
    kind: Kind,
    x: Tensor<S, E, Cuda, T>,
    y: Tensor<S, E, Cuda, T>,
    relu: bool,
) -> Result<Tensor<S, E, Cuda, T>, CudaErr> {
    let (x, x_tape) = x.split_tape();
    let (y, y_tape) = y.split_tape();
    let mut tape = x_tape.merge(y_tape);
    let len = x.shape().num_elements();
    let (x, y) = (Input::of(x)?, Input::of(y)?);
    let sum = Output::new(x.device(), x.shape())?;
    let relu = u32::from(relu);
    let arguments = (len as u64, relu, x.address(), y.address(), sum.address());
    // SAFETY: all have `len` elements, and `sum` is not used yet.
    #[allow(unsafe_code)]
    unsafe { x.gpu()?.launch(kernels::ADD, kind, Grid::of(len), arguments) }?;
    let sum = sum.tensor()?;
    if !T::OWNS_TAPE {
        return Ok(sum.put_tape(tape));
    }
    let (x, y, kept) = (x.tensor().ghost(), y.tensor().ghost(), Input::of(sum.clone())?);
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(kept.tensor())?);
        let to_x = address::<E>(gradients.get_or_alloc_mut(&x)?);
        let to_y = address::<E>(gradients.get_or_alloc_mut(&y)?);
        let arguments = (len as u64, relu, kept.address(), upstream, to_x, to_y);
        // SAFETY: the sum is kept, and `gradients` holds the others, with `len` elements each. The
        // kernel allows for `x` and `y` being the same.
        #[allow(unsafe_code)]
        unsafe {
            kept.gpu()?.launch(kernels::ADD_PASSED, kind, Grid::of(len), arguments)
        }
    });
    Ok(sum.put_tape(tape))
}
