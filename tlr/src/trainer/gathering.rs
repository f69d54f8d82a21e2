//! The weight of the next batch, for a trainer around [`Accumulate`].

use super::Trainer;
use crate::{
    error::Error,
    optim::{Accumulate, TunableOptimizer},
    tensors::Backend,
};

impl<Opt: TunableOptimizer, R> Trainer<Accumulate<Opt>, R>
where
    Opt::Device: Backend<Opt::Dtype>,
{
    /// Sets the weight of the next batch in the mean gradient of its step: see
    /// [`Accumulate::weigh_next`].
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `weight` is finite and above 0.
    ///
    /// # Example
    /// Five examples in batches of two, and steps of two batches: the second step has one example.
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::{Accumulate, Sgd}, Newton, NewtonConfig};
    ///
    /// let dev = Cpu::default();
    /// let mut w: Tensor<Rank1<1>, f64, _> = dev.tensor([0.0]);
    /// let sgd = Sgd::new(&w, SgdConfig { lr: 0.5, ..Default::default() });
    /// let mut opt = Newton::new(&w, Accumulate::new(sgd, 2)?, NewtonConfig::default())?;
    /// let data = [1.0, 2.0, 3.0, 4.0, 5.0];
    /// let mut batches = data.chunks(2).peekable();
    /// while let Some(batch) = batches.next() {
    ///     opt.weigh_next(batch.len() as f64)?;
    ///     if batches.peek().is_none() {
    ///         opt.complete_with_next();
    ///     }
    ///     let mean = batch.iter().sum::<f64>() / batch.len() as f64;
    ///     let loss = (w.leaky_trace() - mean).square().sum();
    ///     let value = loss.array();
    ///     opt.step(&mut w, &loss.backward(), value)?;
    /// }
    /// assert_eq!(opt.steps(), 2); // by four examples, and by one
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn weigh_next(&mut self, weight: f64) -> Result<(), Error> {
        self.optimizer.weigh_next(weight)
    }

    /// The next batch completes its step, however few are gathered:
    /// [`Accumulate::complete_with_next`].
    ///
    /// # Example
    /// See [`weigh_next`](Self::weigh_next).
    pub fn complete_with_next(&mut self) {
        self.optimizer.complete_with_next();
    }
}
