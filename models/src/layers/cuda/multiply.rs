//! Products of matrices on a GPU, by cuBLAS.

use super::{gpu::Gpu, launch::Kind, CudaErr};
use cudarc::cublas::{
    result::{self, CublasError},
    sys::{
        cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cublasStatus_t, cudaDataType_t,
    },
};
use std::ffi::c_void;

/// The most products that cuBLAS is given at a time.
const BATCH: usize = if cfg!(test) { 3 } else { 32768 };

/// A batch of matrices, by the address of the first element. A matrix is stored row by row, with
/// rows `line` elements apart; or its transpose is, if `transposed`. `steps` are the distances
/// between the matrices of a batch, in each of its two directions; 0 where all matrices are the
/// same.
#[derive(Clone, Copy, Debug)]
pub(in crate::layers) struct Matrix {
    pub(in crate::layers) address: u64,
    pub(in crate::layers) line: usize,
    pub(in crate::layers) transposed: bool,
    pub(in crate::layers) steps: [usize; 2],
}

impl Matrix {
    /// The transposes of these matrices, in the same memory.
    pub(in crate::layers) fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
}

/// `c` ← `a`·`b`, or `c` + `a`·`b`, for each matrix of a batch: `a` has `rows` rows, `b` has
/// `columns` columns, and each element of `c`, which is not transposed, is a sum of `terms`
/// products.
#[derive(Clone, Copy, Debug)]
pub(in crate::layers) struct Product {
    pub(in crate::layers) rows: usize,
    pub(in crate::layers) terms: usize,
    pub(in crate::layers) columns: usize,
    /// How many matrices the batch has in each of its directions.
    pub(in crate::layers) counts: [usize; 2],
    pub(in crate::layers) a: Matrix,
    pub(in crate::layers) b: Matrix,
    pub(in crate::layers) c: Matrix,
    pub(in crate::layers) added: bool,
}

impl Gpu {
    /// Computes the product in dfdx's stream. Without rows, columns or terms it does nothing.
    ///
    /// # Safety
    /// The addresses are those of memory that holds these matrices. No two matrices of `c` overlap.
    #[allow(unsafe_code)]
    pub(in crate::layers) unsafe fn multiply(
        &self,
        kind: Kind,
        product: &Product,
    ) -> Result<(), CudaErr> {
        let Product { rows, terms, columns, counts, .. } = *product;
        if rows * terms * columns == 0 {
            return Ok(());
        }
        self.device.bind_to_thread()?;
        // cuBLAS takes the direction with more matrices, so that there are few calls.
        let (outer, inner) = if counts[0] < counts[1] { (0, 1) } else { (1, 0) };
        for one in 0..counts[outer] {
            for first in (0..counts[inner]).step_by(BATCH) {
                let from = |matrix: Matrix| {
                    let elements = one * matrix.steps[outer] + first * matrix.steps[inner];
                    matrix.address + (elements * kind.bytes()) as u64
                };
                let batch = Batch {
                    addresses: [from(product.a), from(product.b), from(product.c)],
                    direction: inner,
                    count: BATCH.min(counts[inner] - first),
                };
                // SAFETY: these are matrices of `product`.
                unsafe { self.multiply_batch(kind, product, &batch) }?;
            }
        }
        Ok(())
    }

    /// # Safety
    /// As of [`multiply`](Self::multiply), and the batch is within the product's.
    #[allow(unsafe_code)]
    unsafe fn multiply_batch(
        &self,
        kind: Kind,
        product: &Product,
        batch: &Batch,
    ) -> Result<(), CudaErr> {
        let int = |number: usize| {
            let too_large = |_| CublasError(cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE);
            i32::try_from(number).map_err(too_large)
        };
        let operation = |matrix: Matrix| match matrix.transposed {
            true => cublasOperation_t::CUBLAS_OP_T,
            false => cublasOperation_t::CUBLAS_OP_N,
        };
        let Product { a, b, c, .. } = *product;
        let [a_first, b_first, c_first] = batch.addresses;
        let step = |matrix: Matrix| matrix.steps[batch.direction] as i64;
        let (m, n, k) = (int(product.columns)?, int(product.rows)?, int(product.terms)?);
        let (a_line, b_line, c_line) = (int(a.line)?, int(b.line)?, int(c.line)?);
        let count = int(batch.count)?;
        // cuBLAS reads column by column, and so sees the transpose of each matrix: cᵀ = bᵀ·aᵀ.
        macro_rules! call {
            ($dtype:ty, $one:ident, $many:ident) => {{
                let (one, onto): ($dtype, $dtype) = (1.0, if product.added { 1.0 } else { 0.0 });
                let (b_first, a_first) = (b_first as *const $dtype, a_first as *const $dtype);
                let (c_first, handle) = (c_first as *mut $dtype, *self.blas.handle());
                let (of_b, of_a) = (operation(b), operation(a));
                if count == 1 {
                    // SAFETY: the caller guarantees the matrices, `handle` is open, and the two
                    // factors are read before the call returns.
                    unsafe {
                        result::$one(
                            handle, of_b, of_a, m, n, k, &one, b_first, b_line, a_first, a_line,
                            &onto, c_first, c_line,
                        )
                    }
                } else {
                    // SAFETY: as above, for `count` matrices that are these steps apart.
                    unsafe {
                        result::$many(
                            handle,
                            of_b,
                            of_a,
                            m,
                            n,
                            k,
                            &one,
                            b_first,
                            b_line,
                            step(b),
                            a_first,
                            a_line,
                            step(a),
                            &onto,
                            c_first,
                            c_line,
                            step(c),
                            count,
                        )
                    }
                }
            }};
        }
        match kind {
            Kind::F32 => call!(f32, sgemm, sgemm_strided_batched),
            Kind::F64 => call!(f64, dgemm, dgemm_strided_batched),
            Kind::F16 => {
                let (one, onto) = (1.0_f32, if product.added { 1.0_f32 } else { 0.0 });
                let half = cudaDataType_t::CUDA_R_16F;
                // SAFETY: as above; sums are taken in f32, and so the factors are of that type.
                unsafe {
                    result::gemm_strided_batched_ex(
                        *self.blas.handle(),
                        operation(b),
                        operation(a),
                        m,
                        n,
                        k,
                        (&raw const one).cast(),
                        b_first as *const c_void,
                        half,
                        b_line,
                        step(b),
                        a_first as *const c_void,
                        half,
                        a_line,
                        step(a),
                        (&raw const onto).cast(),
                        c_first as *mut c_void,
                        half,
                        c_line,
                        step(c),
                        count,
                        cublasComputeType_t::CUBLAS_COMPUTE_32F,
                        cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
                    )
                }
            }
        }?;
        Ok(())
    }
}

/// The part of a product's batch that cuBLAS is given at a time, in one of its directions.
struct Batch {
    addresses: [u64; 3],
    direction: usize,
    count: usize,
}
