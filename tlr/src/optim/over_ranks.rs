//! What a program tells a [`DataParallel`](crate::DataParallel), through any optimizers around it.

use super::{Accumulate, Clip, TunableOptimizer};
use crate::{error::Error, tensors::Backend};

/// An optimizer that averages over ranks: [`DataParallel`](crate::DataParallel), and [`Clip`] or
/// [`Accumulate`] around it.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::{
///     optim::{Accumulate, OverRanks, Sgd},
///     parallel::{Alone, Ranks},
///     DataParallel,
/// };
///
/// let mut model = Cpu::default().build_module::<Linear<4, 2>, f32>();
/// let sgd: Sgd<_, f32, Cpu> = Sgd::new(&model, SgdConfig::default());
/// let mut optimizer = Accumulate::new(DataParallel::new(sgd, Ranks::new(Alone)), 4)?;
/// optimizer.set_flag(true);
/// optimizer.average_buffers(&mut model)?;
/// # Ok::<(), tlr::Error>(())
/// ```
pub trait OverRanks: TunableOptimizer {
    /// Sets a flag that all ranks learn of:
    /// [`DataParallel::set_flag`](crate::DataParallel::set_flag).
    fn set_flag(&mut self, raised: bool);

    /// Whether any rank had the flag set:
    /// [`DataParallel::flag_was_set`](crate::DataParallel::flag_was_set).
    fn flag_was_set(&self) -> bool;

    /// Replaces the buffers of `model` by their means over the ranks:
    /// [`DataParallel::average_buffers`](crate::DataParallel::average_buffers).
    ///
    /// # Errors
    /// [`Error::Parallel`]. The buffers are as they were then.
    fn average_buffers(&self, model: &mut Self::Model) -> Result<(), Error>;
}

macro_rules! hand_on {
    ($($Around:ident),+) => {$(
        impl<Opt: OverRanks> OverRanks for $Around<Opt>
        where
            Opt::Device: Backend<Opt::Dtype>,
        {
            fn set_flag(&mut self, raised: bool) {
                self.optimizer.set_flag(raised);
            }

            fn flag_was_set(&self) -> bool {
                self.optimizer.flag_was_set()
            }

            fn average_buffers(&self, model: &mut Self::Model) -> Result<(), Error> {
                self.optimizer.average_buffers(model)
            }
        }
    )+};
}

hand_on!(Accumulate, Clip);
