//! What a trainer is told of the next batch: its weight, and that it completes its step.

use super::Trainer;
use crate::{
    error::Error,
    optim::{GatherBatches, TunableOptimizer, WeighBatches},
};

impl<Opt: TunableOptimizer + WeighBatches, R> Trainer<Opt, R> {
    /// Sets the weight of the next batch in the mean gradient of its step: see
    /// [`Accumulate::weigh_next`](crate::optim::Accumulate::weigh_next) and
    /// [`DataParallel::weigh_next`](crate::DataParallel::weigh_next).
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `weight` is above 0 and at most 1e100. With several ranks it
    /// may also be 0.
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
    ///
    /// Two ranks with batches of unequal sizes.
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, parallel::{Ranks, Threads}, DataParallel, Newton, NewtonConfig};
    ///
    /// let own = [&[1.0, 2.0, 3.0][..], &[6.0]]; // three examples on one rank, one on the other
    /// let ranks = Threads::new(2).into_iter().zip(own).map(|(link, examples)| {
    ///     std::thread::spawn(move || {
    ///         let mut w: Tensor<Rank1<1>, f64, _> = Cpu::default().tensor([0.0]);
    ///         let sgd = Sgd::new(&w, SgdConfig { lr: 0.5, ..Default::default() });
    ///         let optimizer = DataParallel::new(sgd, Ranks::new(link));
    ///         let config = NewtonConfig::default().ramp(false);
    ///         let mut opt = Newton::new(&w, optimizer, config)?;
    ///         opt.weigh_next(examples.len() as f64)?;
    ///         let mean = examples.iter().sum::<f64>() / examples.len() as f64;
    ///         let loss = (w.leaky_trace() - mean).square().sum();
    ///         let value = loss.array();
    ///         opt.step(&mut w, &loss.backward(), value)?;
    ///         Ok::<_, tlr::Error>(w.array())
    ///     })
    /// });
    /// for rank in ranks.collect::<Vec<_>>() {
    ///     assert_eq!(rank.join().unwrap()?, [3.0]); // the mean of all four
    /// }
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn weigh_next(&mut self, weight: f64) -> Result<(), Error> {
        self.optimizer.weigh_next(weight)
    }
}

impl<Opt: TunableOptimizer + GatherBatches, R> Trainer<Opt, R> {
    /// The next batch completes its step, however few are gathered:
    /// [`Accumulate::complete_with_next`](crate::optim::Accumulate::complete_with_next).
    ///
    /// Example: [`weigh_next`](Self::weigh_next).
    pub fn complete_with_next(&mut self) {
        self.optimizer.complete_with_next();
    }
}
