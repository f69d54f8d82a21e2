//! [`GatherBatches`]: the end of a gathering, told to an optimizer through any others around it.

use super::{Accumulate, Clip, TunableOptimizer};

/// An optimizer that gathers batches for a step: [`Accumulate`], and [`Clip`] or
/// [`DataParallel`](crate::DataParallel) around one.
///
/// # Example
/// ```
/// use dfdx::{optim::SgdConfig, prelude::*};
/// use tlr::optim::{Accumulate, Clip, GatherBatches, Sgd};
///
/// let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([0.0]);
/// let sgd = Sgd::new(&w, SgdConfig { lr: 1.0, ..Default::default() });
/// let mut optimizer = Clip::by_norm(Accumulate::new(sgd, 4)?, 5.0)?;
/// optimizer.complete_with_next(); // one batch in place of four
/// let gradients = (w.leaky_trace() * 2.0).sum().backward();
/// optimizer.update(&mut w, &gradients).expect("the CPU has memory");
/// assert_eq!(w.array(), [-2.0]);
/// # Ok::<(), tlr::Error>(())
/// ```
pub trait GatherBatches {
    /// The next batch completes its step, however few are gathered:
    /// [`Accumulate::complete_with_next`].
    fn complete_with_next(&mut self);
}

impl<Opt: TunableOptimizer> GatherBatches for Accumulate<Opt> {
    fn complete_with_next(&mut self) {
        self.complete_with_next();
    }
}

impl<Opt: GatherBatches> GatherBatches for Clip<Opt> {
    fn complete_with_next(&mut self) {
        self.optimizer.complete_with_next();
    }
}
