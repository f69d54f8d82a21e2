//! Dropout on CUDA, in one launch each way. It drops the same elements as on the CPU.

use super::{DropoutRate, Dropped, Rows};
use crate::layers::cuda::{address, kernels, CudaErr, Dropping, Grid, Input, Kind, Output};
use dfdx::prelude::{Cuda, Dtype, Gradients, HasShape, NoneTape, PutTape, Shape, SplitTape, Tape};

impl Dropped {
    /// The arguments of the kernels. Without dropout nothing is dropped, and the scale is 1.
    pub(in crate::layers::sequence) fn on_gpu(dropped: Option<Self>) -> Dropping {
        match dropped {
            Some(Self { seed, below, scale }) => Dropping { seed, below, scale },
            None => Dropping { seed: 0, below: 0, scale: 1.0 },
        }
    }
}

/// Dropout on CUDA, added to `onto` if there is one. All tensors are contiguous, and `onto` has as
/// many rows as `x`.
pub(in crate::layers::sequence) fn on_cuda<E: Dtype, T: Tape<E, Cuda>, const M: usize>(
    kind: Kind,
    x: Rows<usize, M, E, Cuda, T>,
    onto: Option<Rows<usize, M, E, Cuda, NoneTape>>,
    rate: DropoutRate,
) -> Result<Rows<usize, M, E, Cuda, T>, CudaErr> {
    let dropped = Dropped::new(rate, x.device());
    if dropped.is_none() && onto.is_none() {
        return Ok(x);
    }
    let dropping = Dropped::on_gpu(dropped);
    let (x, mut tape) = x.split_tape();
    let len = x.shape().num_elements();
    let x = Input::of(x)?;
    let onto = onto.map(Input::of).transpose()?;
    let y = Output::new(x.device(), x.shape())?;
    let of_onto = onto.as_ref().map_or(0, Input::address);
    let arguments = (len as u64, dropping, x.address(), of_onto, y.address());
    // SAFETY: all have `len` elements, and `y` is not used yet.
    #[allow(unsafe_code)]
    unsafe { x.gpu()?.launch(kernels::DROP, kind, Grid::of(len), arguments) }?;
    let y = y.tensor()?;

    let (site, x) = (x.site(), x.tensor().ghost());
    let onto = onto.map(|onto| onto.tensor().ghost());
    let y_ghost = y.ghost();
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(&y_ghost)?);
        let to_x = address::<E>(gradients.get_or_alloc_mut(&x)?);
        let to_onto = match &onto {
            Some(onto) => address::<E>(gradients.get_or_alloc_mut(onto)?),
            None => 0,
        };
        let arguments = (len as u64, dropping, upstream, to_x, to_onto);
        // SAFETY: `gradients` holds all, with `len` elements each. The two gradients that the
        // kernel adds to may be the same.
        #[allow(unsafe_code)]
        unsafe {
            site.gpu()?.launch(kernels::DROP_GRADIENT, kind, Grid::of(len), arguments)
        }
    });
    Ok(y.put_tape(tape))
}
