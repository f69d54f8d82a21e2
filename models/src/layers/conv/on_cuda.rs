//! A convolution on CUDA, forwards and backwards: by own kernels and cuBLAS.

use super::{geometry, passes::Passes, plan::Plan, Conv2dOptions, Convolved, Filters, Planes};
use crate::layers::cuda::{address, CudaErr, Input, Kind, Output};
use dfdx::prelude::{
    Const, Cuda, Dim, Dtype, Gradients, HasShape, PutTape, Rank1, SplitTape, Tape, Tensor,
};

/// How this convolution is done on CUDA. `None` if [`composed`](super::composed) has to do it.
pub(in crate::layers) fn plan<
    E: Dtype,
    const I: usize,
    const O: usize,
    const K: usize,
    const G: usize,
>(
    size: (usize, usize, usize),
    options: Conv2dOptions,
) -> Option<Plan> {
    let g = geometry::<I, O, K, G, CudaErr>(size, options.sliding).ok()?;
    Plan::new(Kind::of::<E>()?, g)
}

/// A convolution on CUDA. All tensors are contiguous, and of the plan's sizes.
pub(in crate::layers) fn on_cuda<
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    T: Tape<E, Cuda>,
    const I: usize,
    const O: usize,
    const K: usize,
    const G: usize,
>(
    plan: Plan,
    x: Planes<B, I, H, W, E, Cuda, T>,
    weight: Filters<I, O, K, G, E, Cuda>,
    bias: Option<Tensor<Rank1<O>, E, Cuda>>,
    options: Conv2dOptions,
) -> Convolved<B, O, E, Cuda, T> {
    let (x, mut tape) = x.split_tape();
    let shape = (x.shape().0, Const::<O>, plan.g.out_height, plan.g.out_width);
    let (x, weight) = (Input::of(x)?, Input::of(weight)?);
    let bias = bias.map(Input::of).transpose()?;
    let y = Output::<_, E>::new(x.device(), shape)?;
    let addresses = [x.address(), weight.address(), y.address()];
    let mut gpu = x.gpu()?;
    let of_bias = bias.as_ref().map(Input::address);
    // SAFETY: the tensors are there, contiguous, and of the plan's sizes; `y` is not used yet.
    #[allow(unsafe_code)]
    unsafe { Passes::new(&mut gpu, &plan).forward(addresses, of_bias) }?;
    drop(gpu);
    let y = y.tensor()?;

    let (y_ghost, bias) = (y.ghost(), bias.map(|bias| bias.tensor().ghost()));
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(&y_ghost)?);
        let of_weight = address::<E>(gradients.get_or_alloc_mut(weight.tensor())?);
        let of_bias = match &bias {
            Some(bias) => Some(address::<E>(gradients.get_or_alloc_mut(bias)?)),
            None => None,
        };
        let of_x = match options.input_gradient {
            true => Some(address::<E>(gradients.get_or_alloc_mut(x.tensor())?)),
            false => None,
        };
        let addresses = [x.address(), weight.address(), upstream];
        let mut gpu = x.gpu()?;
        let mut passes = Passes::new(&mut gpu, &plan);
        // SAFETY: `x` and `weight` are kept, and `gradients` holds the others, each with as many
        // elements as its tensor.
        #[allow(unsafe_code)]
        unsafe {
            if let Some(of_bias) = of_bias {
                passes.bias_gradient(upstream, of_bias)?;
            }
            passes.backward(addresses, of_weight, of_x)?;
        }
        Ok(())
    });
    Ok(y.put_tape(tape))
}
