//! The embedding on CUDA, in one launch each way.

use super::{EmbeddingOptions, Ids, Sequences};
use crate::layers::cuda::{address, kernels, CudaErr, Grid, Input, Kind, Output};
use dfdx::prelude::{
    Const, Cuda, Dtype, Gradients, HasShape, PutTape, Rank2, SplitTape, Tape, Tensor, TensorFromVec,
};

/// The embedding on CUDA. The weight is contiguous, `values` are the ids, all of them below `V`,
/// and `V` and `M` are below 2³¹.
pub(in crate::layers::sequence) fn on_cuda<
    E: Dtype,
    T: Tape<E, Cuda>,
    const V: usize,
    const M: usize,
>(
    kind: Kind,
    ids: Ids<Cuda, T>,
    values: Vec<usize>,
    weight: Tensor<Rank2<V, M>, E, Cuda>,
    options: EmbeddingOptions,
) -> Result<Sequences<M, E, Cuda, T>, CudaErr> {
    let (ids, mut tape) = ids.split_tape();
    let &(batch, length) = ids.shape();
    let rows = batch * length;
    let (count, width, scale) = (rows as u64, M as u32, options.scale);
    let weight = Input::of(weight)?;
    // The ids in order, however the tensor is laid out.
    let ids: Tensor<(usize,), usize, Cuda> =
        weight.device().try_tensor_from_vec(values, (rows,))?;
    let ids = Input::of(ids)?;
    let y = Output::new(weight.device(), (batch, length, Const::<M>))?;
    let positions = if options.positions { length as u64 } else { 0 };
    let (of_ids, of_weight) = (ids.address(), weight.address());
    let arguments = (count, width, positions, scale, of_ids, of_weight, y.address());
    // SAFETY: the tensors are there, contiguous, and of these sizes; `y` is not used yet. Each id
    // is the index of a row of the weight.
    #[allow(unsafe_code)]
    unsafe { weight.gpu()?.launch(kernels::EMBED, kind, Grid::of(rows * M), arguments) }?;
    let y = y.tensor()?;

    let (y_ghost, site, weight) = (y.ghost(), weight.site(), weight.tensor().ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(&y_ghost)?);
        let to = address::<E>(gradients.get_or_alloc_mut(&weight)?);
        let arguments = (count, width, V as u32, scale, ids.address(), upstream, to);
        // SAFETY: the ids are kept, and `gradients` holds the others, each with as many elements as
        // its tensor.
        #[allow(unsafe_code)]
        unsafe {
            let grid = Grid::of_channels(M, V);
            site.gpu()?.launch(kernels::EMBED_GRADIENT, kind, grid, arguments)
        }
    });
    Ok(y.put_tape(tape))
}
