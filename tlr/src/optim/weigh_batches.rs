//! [`WeighBatches`]: the weights of batches, told to an optimizer through any others around it.

use super::{Accumulate, Clip, TunableOptimizer};
use crate::error::Error;

/// An optimizer whose batches may have different weights: [`Accumulate`],
/// [`DataParallel`](crate::DataParallel), and [`Clip`] around one of them.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::optim::{Accumulate, Clip, Sgd, WeighBatches};
///
/// let model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let sgd: Sgd<_, f32, Cpu> = Sgd::new(&model, SgdConfig::default());
/// let mut optimizer = Clip::by_norm(Accumulate::new(sgd, 4)?, 5.0)?;
/// optimizer.weigh_next(64.0)?;
/// # Ok::<(), tlr::Error>(())
/// ```
pub trait WeighBatches {
    /// Sets the weight of the next batch: [`Accumulate::weigh_next`],
    /// [`DataParallel::weigh_next`](crate::DataParallel::weigh_next). It holds for one batch.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]. Nothing has changed then.
    fn weigh_next(&mut self, weight: f64) -> Result<(), Error>;
}

impl<Opt: TunableOptimizer> WeighBatches for Accumulate<Opt> {
    fn weigh_next(&mut self, weight: f64) -> Result<(), Error> {
        self.weigh_next(weight)
    }
}

impl<Opt: WeighBatches> WeighBatches for Clip<Opt> {
    fn weigh_next(&mut self, weight: f64) -> Result<(), Error> {
        self.optimizer.weigh_next(weight)
    }
}
