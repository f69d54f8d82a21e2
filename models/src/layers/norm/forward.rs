//! The layer's forward passes: in training by the statistics of the batch, without a tape by the
//! running ones.

use super::BatchNorm2d;
use crate::layers::{Kernels, LayerError, Misfit, Planes};
use dfdx::{
    nn::{Module, ModuleMut},
    prelude::{Dim, Dtype, HasShape, NoneTape, OwnedTape},
};

impl<B, H, W, E, D, const C: usize, const RELU: bool> Module<Planes<B, C, H, W, E, D, NoneTape>>
    for BatchNorm2d<C, RELU, E, D>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Kernels<E>,
{
    type Output = Planes<B, C, H, W, E, D, NoneTape>;
    type Error = LayerError<D::Err>;

    fn try_forward(
        &self,
        x: Planes<B, C, H, W, E, D, NoneTape>,
    ) -> Result<Self::Output, Self::Error> {
        Ok(D::try_infer_batch_norm2d(x, self)?)
    }
}

impl<B, H, W, E, D, const C: usize, const RELU: bool>
    ModuleMut<Planes<B, C, H, W, E, D, OwnedTape<E, D>>> for BatchNorm2d<C, RELU, E, D>
where
    B: Dim,
    H: Dim,
    W: Dim,
    E: Dtype,
    D: Kernels<E>,
{
    type Output = Planes<B, C, H, W, E, D, OwnedTape<E, D>>;
    type Error = LayerError<D::Err>;

    fn try_forward_mut(
        &mut self,
        x: Planes<B, C, H, W, E, D, OwnedTape<E, D>>,
    ) -> Result<Self::Output, Self::Error> {
        let &(batch, _, height, width) = x.shape();
        let values = batch.size() * height.size() * width.size();
        if values < 2 {
            return Err(LayerError::Shape {
                layer: format!("batch norm of {C} channels"),
                misfit: Misfit::NoVariance { values },
            });
        }
        let (y, mean, var) = D::try_train_batch_norm2d(x, self)?;
        let unbiased = values as f64 / (values as f64 - 1.0);
        // Neither returns an error for want of memory, and the second launches the kernel that the
        // first has just launched. So the mean moves without the variance only if a GPU breaks down
        // in between, after which it computes nothing more. A copy to go back to would cost each
        // pass its memory, and on a GPU without room for it a panic of dfdx.
        self.running_mean.try_axpy(1.0 - self.momentum, &mean, self.momentum)?;
        self.running_var.try_axpy(1.0 - self.momentum, &var, self.momentum * unbiased)?;
        Ok(y)
    }
}
