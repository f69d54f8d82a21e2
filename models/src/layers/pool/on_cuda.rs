//! Pooling on CUDA, in one launch forwards and one backwards.

use super::{geometry, Geometry, Pooled, Pooling};
use crate::layers::{
    cuda::{address, kept, kernels, CudaErr, Grid, Input, Kind, Output, Window},
    Planes,
};
use dfdx::prelude::{Const, Cuda, Dim, Dtype, Gradients, HasShape, PutTape, SplitTape, Tape};

/// A pooling whose numbers are small enough for the kernels.
#[derive(Clone, Copy, Debug)]
pub(in crate::layers) struct Plan {
    kind: Kind,
    g: Geometry,
    window: Window,
    pooling: Pooling,
}

impl Plan {
    /// `None` if dfdx's own operations have to do it.
    pub(in crate::layers) fn of<E: Dtype, B: Dim, H: Dim, W: Dim, const C: usize>(
        &(batch, _, height, width): &(B, Const<C>, H, W),
        pooling: Pooling,
        (kernel, stride, padding): (usize, usize, usize),
    ) -> Option<Self> {
        let kind = Kind::of::<E>()?;
        let size = [batch.size(), C, height.size(), width.size()];
        let g = geometry::<CudaErr>(size, kernel, stride, padding).ok()?;
        // The kernels count in 32 bits, and never beyond the padded image.
        let small = |numbers: &[usize]| {
            let product = numbers.iter().try_fold(1_usize, |all, number| all.checked_mul(*number));
            product.filter(|product| *product < 1 << 31).map(|product| product as u32)
        };
        let (down, along) = (g.height + 2 * padding + kernel, g.width + 2 * padding + kernel);
        small(&[g.batch, C, g.height, g.width])?;
        small(&[g.batch, C, g.out_height, g.out_width])?;
        small(&[down.max(along)])?;
        let window = Window {
            planes: small(&[g.batch, C])?,
            height: small(&[g.height])?,
            width: small(&[g.width])?,
            kernel: small(&[kernel])?,
            stride: small(&[stride])?,
            padding: small(&[padding])?,
            out_height: small(&[g.out_height])?,
            out_width: small(&[g.out_width])?,
        };
        Some(Self { kind, g, window, pooling })
    }
}

/// A pooling on CUDA. `x` is contiguous, and of the plan's sizes.
pub(in crate::layers) fn on_cuda<
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    T: Tape<E, Cuda>,
    const C: usize,
>(
    Plan { kind, g, window, pooling }: Plan,
    x: Planes<B, C, H, W, E, Cuda, T>,
) -> Pooled<B, C, E, Cuda, T> {
    let (x, mut tape) = x.split_tape();
    let shape = (x.shape().0, Const::<C>, g.out_height, g.out_width);
    let x = Input::of(x)?;
    let y = Output::<_, E>::new(x.device(), shape)?;
    let (pixels, outputs) = (g.batch * g.image(), g.batch * g.out_image());
    // For each output, the number of the pixel that it was taken from.
    let noted = T::OWNS_TAPE && pooling == Pooling::Max;
    let from = if noted { Some(kept::<u32>(x.device(), outputs)?) } else { None };
    let of_from = from.as_ref().map_or(0, address::<u32>);
    let (of_x, of_y, grid) = (x.address(), y.address(), Grid::of(outputs));
    let gpu = x.gpu()?;
    // SAFETY: the tensors are there, contiguous, and of the plan's sizes. Nothing else uses `y` and
    // `from` yet. `from` has a number for each output, or is not written.
    #[allow(unsafe_code)]
    unsafe {
        match pooling {
            Pooling::Max => {
                gpu.launch(kernels::MAX_POOL, kind, grid, (window, of_x, of_y, of_from))?;
            }
            Pooling::Mean => gpu.launch(kernels::MEAN_POOL, kind, grid, (window, of_x, of_y))?,
        }
    }
    drop(gpu);
    let y = y.tensor()?;
    let y_ghost = y.ghost();
    let (site, x_ghost) = (x.site(), x.tensor().ghost());
    tape.add_backward_op(move |gradients: &mut Gradients<E, Cuda>| {
        let upstream = address::<E>(gradients.get_or_alloc_mut(&y_ghost)?);
        let to = address::<E>(gradients.get_or_alloc_mut(&x_ghost)?);
        let (gpu, grid) = (site.gpu()?, Grid::of(pixels));
        // SAFETY: `gradients` holds both, with as many elements as their tensors, and the numbers
        // of pixels are kept.
        #[allow(unsafe_code)]
        unsafe {
            match &from {
                Some(from) => {
                    let arguments = (window, address::<u32>(from), upstream, to);
                    gpu.launch(kernels::MAX_POOL_GRADIENT, kind, grid, arguments)?;
                }
                None => {
                    let arguments = (window, upstream, to);
                    gpu.launch(kernels::MEAN_POOL_GRADIENT, kind, grid, arguments)?;
                }
            }
        }
        Ok(())
    });
    Ok(y.put_tape(tape))
}
