//! Cross entropy on CUDA, in two launches forwards and one backwards.

use super::{share, Rows};
use crate::layers::cuda::{address, kept, kernels, CudaErr, Grid, Input, Kind, Output};
use dfdx::prelude::{
    Cuda, Dtype, Gradients, PutTape, Rank0, SplitTape, Tape, Tensor, TensorFromVec,
};

/// The loss on CUDA. The logits are contiguous, there is a label below `V` for each row that
/// counts, and `V` is below 2³¹.
pub(in crate::layers::sequence) fn on_cuda<E: Dtype, T: Tape<E, Cuda>, const V: usize>(
    kind: Kind,
    logits: Rows<usize, V, E, Cuda, T>,
    labels: &[usize],
    ignored: usize,
) -> Result<Tensor<Rank0, E, Cuda, T>, CudaErr> {
    let (logits, mut tape) = logits.split_tape();
    let rows = labels.len();
    let share = share(labels, ignored);
    let (count, classes, ignored) = (rows as u64, V as u32, ignored as u64);
    let logits = Input::of(logits)?;
    let cuda = logits.device();
    let labels: Tensor<(usize,), usize, Cuda> =
        cuda.try_tensor_from_vec(labels.to_vec(), (rows,))?;
    let labels = Input::of(labels)?;
    let loss = Output::<Rank0, E>::new(cuda, ())?;
    // For each row, the largest logit and the sum of the exponentials.
    let spreads = kept::<f64>(cuda, 2 * rows)?;
    let (of_logits, of_labels) = (logits.address(), labels.address());
    let known = address::<f64>(&spreads);
    let mut gpu = logits.gpu()?;
    let each = gpu.workspace(rows * size_of::<f64>())?;
    // SAFETY: the tensors are there, contiguous, and of these sizes. Nothing else uses the memory
    // that is written yet. A label that counts is below `V`.
    #[allow(unsafe_code)]
    unsafe {
        let arguments = (count, classes, of_logits, of_labels, ignored, known, each);
        gpu.launch(kernels::LOSSES, kind, Grid::of_rows(rows), arguments)?;
        let arguments = (count, share, each, loss.address());
        gpu.launch(kernels::TOTAL_LOSS, kind, Grid::of(1), arguments)?;
    }
    drop(gpu);
    let loss = loss.tensor()?;

    let loss_ghost = loss.ghost();
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(&loss_ghost)?);
        let to = address::<E>(gradients.get_or_alloc_mut(logits.tensor())?);
        let (of_logits, of_labels) = (logits.address(), labels.address());
        let known = address::<f64>(&spreads);
        let arguments = (count, classes, share, of_logits, of_labels, ignored, known, upstream, to);
        // SAFETY: what the forward pass used is kept, and `gradients` holds the others.
        #[allow(unsafe_code)]
        unsafe {
            let grid = Grid::of_rows(rows);
            logits.gpu()?.launch(kernels::LOSS_GRADIENT, kind, grid, arguments)
        }
    });
    Ok(loss.put_tape(tape))
}
