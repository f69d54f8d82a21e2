//! Attention on CUDA: products by cuBLAS, which reads each head from the rows without a copy, and
//! one launch for the softmax.

use super::{scale, AttentionMask, AttentionSizes, DropoutRate, Dropped, QueryKeyValue, Rows};
use crate::layers::cuda::{
    address, kept, kernels, CudaErr, Dropping, Gpu, Grid, Input, Kind, Matrix, Output, Product,
    Scores,
};
use dfdx::prelude::{
    Const, Cuda, Dtype, Gradients, PutTape, SplitTape, Tape, Tensor, TensorFromVec,
};

/// An attention whose numbers are small enough for the kernels and cuBLAS.
#[derive(Clone, Copy, Debug)]
pub(in crate::layers::sequence) struct Plan {
    kind: Kind,
    sizes: AttentionSizes,
    heads: usize,
    /// The number of features of a row, and of a head.
    width: usize,
    head: usize,
    scale: f64,
}

impl Plan {
    /// `None` if dfdx's own operations have to do it.
    pub(in crate::layers::sequence) fn of<E: Dtype, const M: usize, const H: usize>(
        sizes: AttentionSizes,
    ) -> Option<Self> {
        const { assert!(H > 0 && M.is_multiple_of(H), "the heads have to divide the features") };
        let AttentionSizes { batch, queries, keys } = sizes;
        let kind = Kind::of_small::<E>(&[batch, queries, keys, M, H])?;
        Some(Self { kind, sizes, heads: H, width: M, head: M / H, scale: scale::<M, H>() })
    }

    /// The number of queries of all heads together.
    fn rows(&self) -> usize {
        self.sizes.batch * self.heads * self.sizes.queries
    }

    /// The number of scores.
    fn scores(&self) -> usize {
        self.rows() * self.sizes.keys
    }

    /// The heads of all sequences of `length` rows, as matrices. In a row the heads lie side by
    /// side.
    fn of_rows(&self, address: u64, length: usize) -> Matrix {
        let steps = [length * self.width, self.head];
        Matrix { address, line: self.width, transposed: false, steps }
    }

    fn of_queries(&self, address: u64) -> Matrix {
        self.of_rows(address, self.sizes.queries)
    }

    fn of_keys(&self, address: u64) -> Matrix {
        self.of_rows(address, self.sizes.keys)
    }

    /// The scores as matrices, stored as `(batch, heads, queries, keys)`.
    fn of_scores(&self, address: u64) -> Matrix {
        let AttentionSizes { queries, keys, .. } = self.sizes;
        let of_head = queries * keys;
        let steps = [self.heads * of_head, of_head];
        Matrix { address, line: keys, transposed: false, steps }
    }

    /// `c` ← `a`·`b`, or `c` + `a`·`b`, in each head.
    fn product(
        &self,
        [rows, terms, columns]: [usize; 3],
        [a, b, c]: [Matrix; 3],
        added: bool,
    ) -> Product {
        let counts = [self.sizes.batch, self.heads];
        Product { rows, terms, columns, counts, a, b, c, added }
    }

    /// The address of the weights or, with dropout, of the weights that it leaves. Those are
    /// written to the workspace from `room` on.
    ///
    /// # Safety
    /// The weights are at their address, and at `room` there is space for as many.
    #[allow(unsafe_code)]
    unsafe fn left(
        &self,
        gpu: &Gpu,
        dropped: Option<Dropping>,
        weights: u64,
        room: u64,
    ) -> Result<u64, CudaErr> {
        let Some(dropping) = dropped else { return Ok(weights) };
        let arguments = (self.scores() as u64, dropping, weights, 0_u64, room);
        // SAFETY: as the caller guarantees.
        unsafe { gpu.launch(kernels::DROP, self.kind, Grid::of(self.scores()), arguments) }?;
        Ok(room)
    }
}

/// Attention on CUDA. All tensors are contiguous, and agree with the plan's sizes.
pub(in crate::layers::sequence) fn on_cuda<E: Dtype, T: Tape<E, Cuda>, const M: usize>(
    plan: Plan,
    (q, k, v): QueryKeyValue<M, E, Cuda, T>,
    mask: &AttentionMask,
    dropout: DropoutRate,
) -> Result<Rows<usize, M, E, Cuda, T>, CudaErr> {
    let Plan { kind, heads, head, scale, .. } = plan;
    let AttentionSizes { batch, queries, keys } = plan.sizes;
    let ((q, q_tape), (k, k_tape), (v, v_tape)) = (q.split_tape(), k.split_tape(), v.split_tape());
    let mut tape = q_tape.merge(k_tape).merge(v_tape);
    let cuda = q.device().clone();
    let dropped = Dropped::new(dropout, &cuda).map(|dropped| Dropped::on_gpu(Some(dropped)));
    let (q, k, v) = (Input::of(q)?, Input::of(k)?, Input::of(v)?);
    let padded = match &mask.keys {
        Some(padding) => {
            let padded: Vec<u8> = padding.padded.iter().map(|padded| (*padded).into()).collect();
            let shape = (padded.len(),);
            let padded: Tensor<(usize,), u8, Cuda> = cuda.try_tensor_from_vec(padded, shape)?;
            Some(Input::of(padded)?)
        }
        None => None,
    };
    let y = Output::new(&cuda, (batch * queries, Const::<M>))?;
    // The weights after the softmax, before dropout.
    let weights = kept::<E>(&cuda, plan.scores())?;
    let bytes = plan.scores() * kind.bytes();
    let scores = Scores {
        heads: heads as u32,
        queries: queries as u32,
        keys: keys as u32,
        causal: mask.causal.into(),
    };
    let of_weights = address::<E>(&weights);
    let of_padded = padded.as_ref().map_or(0, Input::address);
    let (of_q, of_k) = (plan.of_queries(q.address()), plan.of_keys(k.address()));
    let (of_v, of_y) = (plan.of_keys(v.address()), plan.of_queries(y.address()));
    let mut gpu = q.gpu()?;
    let room = if dropped.is_some() { gpu.workspace(bytes)? } else { 0 };
    // SAFETY: the tensors are there, contiguous, and of the plan's sizes. Nothing else uses the
    // memory that is written yet.
    #[allow(unsafe_code)]
    unsafe {
        let matrices = [of_q, of_k.transposed(), plan.of_scores(of_weights)];
        gpu.multiply(kind, &plan.product([queries, head, keys], matrices, false))?;
        let arguments = (plan.rows() as u64, scores, scale, of_padded, of_weights);
        gpu.launch(kernels::WEIGH, kind, Grid::of_rows(plan.rows()), arguments)?;
        let left = plan.left(&gpu, dropped, of_weights, room)?;
        let matrices = [plan.of_scores(left), of_v, of_y];
        gpu.multiply(kind, &plan.product([queries, keys, head], matrices, false))?;
    }
    drop(gpu);
    let y = y.tensor()?;

    let y_ghost = y.ghost();
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(&y_ghost)?);
        let to_q = plan.of_queries(address::<E>(gradients.get_or_alloc_mut(q.tensor())?));
        let to_k = plan.of_keys(address::<E>(gradients.get_or_alloc_mut(k.tensor())?));
        let to_v = plan.of_keys(address::<E>(gradients.get_or_alloc_mut(v.tensor())?));
        let upstream = plan.of_queries(upstream);
        let (of_q, of_k) = (plan.of_queries(q.address()), plan.of_keys(k.address()));
        let (of_v, of_weights) = (plan.of_keys(v.address()), address::<E>(&weights));
        let mut gpu = q.gpu()?;
        let start = gpu.workspace(if dropped.is_some() { 2 * bytes } else { bytes })?;
        let scores = plan.of_scores(start);
        let dropping = dropped.unwrap_or(Dropped::on_gpu(None));
        // SAFETY: what the forward pass used is kept, and `gradients` holds the others, each with
        // as many elements as its tensor. The three that are added to may be one and the same:
        // one product follows the other.
        #[allow(unsafe_code)]
        unsafe {
            let left = plan.left(&gpu, dropped, of_weights, start + bytes as u64)?;
            let matrices = [plan.of_scores(left).transposed(), upstream, to_v];
            gpu.multiply(kind, &plan.product([keys, queries, head], matrices, true))?;
            let matrices = [upstream, of_v.transposed(), scores];
            gpu.multiply(kind, &plan.product([queries, head, keys], matrices, false))?;
            let (rows, width) = (plan.rows() as u64, keys as u32);
            let arguments = (rows, width, scale, dropping, of_weights, start);
            let grid = Grid::of_rows(plan.rows());
            gpu.launch(kernels::WEIGH_GRADIENT, kind, grid, arguments)?;
            let matrices = [scores, of_k, to_q];
            gpu.multiply(kind, &plan.product([queries, keys, head], matrices, true))?;
            let matrices = [scores.transposed(), of_q, to_k];
            gpu.multiply(kind, &plan.product([keys, queries, head], matrices, true))
        }
    });
    Ok(y.put_tape(tape))
}
