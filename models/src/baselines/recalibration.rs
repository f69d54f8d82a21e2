//! [`recalibrated`]: running statistics of averaged weights.

use super::has_buffers;
use dfdx::{
    nn::TensorCollection,
    prelude::{Device, Dtype},
};

/// How many batches the statistics are made of. `schedulefree` advises 50.
const BATCHES: usize = 50;

/// A model at averaged weights, with running statistics of its own: the statistics that batch norm
/// has kept belong to the weights that were trained.
///
/// They are made of the last 50 batches of an epoch, or of all if it has fewer. `batches` is the
/// number of the epoch's batches, and `pass(model, skip)` makes a forward pass as in training on
/// each of them in order, leaving out the first `skip`. A model without such statistics is left as
/// it is, and `pass` is not called.
///
/// # Errors
/// What `pass` fails with.
///
/// # Example
/// ```
/// use dfdx::prelude::*;
/// use tlr_models::baselines::recalibrated;
///
/// let dev = Cpu::seed_from_u64(0);
/// let averaged = dev.build_module::<BatchNorm1D<3>, f32>();
/// let epoch: Vec<Tensor<Rank2<8, 3>, f32, _>> = (0..60).map(|_| dev.sample_normal()).collect();
/// let mut passes = 0;
/// let model = recalibrated(averaged, epoch.len(), |model, skip| {
///     for batch in &epoch[skip..] {
///         model.try_forward_mut(batch.leaky_trace())?;
///         passes += 1;
///     }
///     Ok::<_, CpuError>(())
/// })?;
/// assert_eq!(passes, 50);
/// assert_ne!(model.running_mean.array(), [0.0; 3]);
/// # Ok::<(), CpuError>(())
/// ```
pub fn recalibrated<M, E, D, F>(
    mut averaged: M,
    batches: usize,
    pass: impl FnOnce(&mut M, usize) -> Result<(), F>,
) -> Result<M, F>
where
    M: TensorCollection<E, D>,
    E: Dtype,
    D: Device<E>,
{
    if has_buffers(&averaged) {
        pass(&mut averaged, batches.saturating_sub(BATCHES))?;
    }
    Ok(averaged)
}
