//! [`Ranks::join`]: one checkpoint of all ranks.

use super::{Communicator, Ranks};
use crate::{error::Error, Checkpoint};

impl<C: Communicator> Ranks<C> {
    /// Makes one checkpoint of those of all ranks. All ranks have to call it. The first one gets
    /// its own checkpoint, and in it whatever differs on the others; each other rank gets its own
    /// checkpoint back.
    ///
    /// A checkpoint of one rank is enough if the ranks have the same tensors. Buffers differ: each
    /// rank has its own running means of batch norm, until
    /// [`average_buffers`](crate::Trainer::average_buffers). So may
    /// [attachments](Checkpoint::attach), such as the state of a random generator.
    ///
    /// To go on to the bit, each rank resumes [its part](Checkpoint::of_rank). A rank that resumes
    /// the whole gets the tensors of the first.
    ///
    /// # Errors
    /// [`Error::Parallel`]; [`Error::Checkpoint`], for a tensor of more bytes than there are
    /// addresses.
    ///
    /// # Example
    /// ```
    /// use dfdx::{optim::SgdConfig, prelude::*};
    /// use tlr::{optim::Sgd, parallel::{Ranks, Threads}, DataParallel, Newton, NewtonConfig};
    ///
    /// let ranks = Threads::new(2).into_iter().zip([1.0, 3.0]).map(|(link, mean)| {
    ///     std::thread::spawn(move || {
    ///         let ranks = Ranks::new(link);
    ///         let mut norm = Cpu::default().build_module::<BatchNorm1D<1>, f64>();
    ///         norm.running_mean.copy_from(&[mean]);
    ///         let optimizer = Sgd::new(&norm, SgdConfig::default());
    ///         let optimizer = DataParallel::new(optimizer, ranks.clone());
    ///         let mut opt = Newton::new(&norm, optimizer, NewtonConfig::default())?;
    ///         let all = ranks.join(opt.checkpoint(&norm)?)?; // the first rank would save it
    ///
    ///         let mut bytes = if ranks.is_first() { all.to_bytes()? } else { Vec::new() };
    ///         ranks.broadcast(&mut bytes)?; // and later all would read it
    ///         let read = tlr::Checkpoint::from_bytes(&bytes)?;
    ///         opt.resume(&mut norm, &read)?;
    ///         assert_eq!(norm.running_mean.array(), [1.0]);
    ///         opt.resume(&mut norm, &read.of_rank(ranks.rank()))?;
    ///         assert_eq!(norm.running_mean.array(), [mean]);
    ///         Ok::<_, tlr::Error>(())
    ///     })
    /// });
    /// for rank in ranks.collect::<Vec<_>>() {
    ///     rank.join().unwrap()?;
    /// }
    /// # Ok::<(), tlr::Error>(())
    /// ```
    pub fn join(&self, own: Checkpoint) -> Result<Checkpoint, Error> {
        if self.size() == 1 {
            return Ok(own);
        }
        let digests = if self.is_first() { own.digests() } else { Ok(Vec::new()) };
        self.confirm_own(digests.as_ref().err())?;
        let mut digests = digests?;
        self.broadcast(&mut digests)?;
        let unlike = if self.is_first() { Ok(Vec::new()) } else { own.unlike(&digests) };
        self.confirm_own(unlike.as_ref().err())?;
        let others = self.collect(&unlike?)?;
        let mut others = (1..).zip(&others); // none but on the first rank
        others.try_fold(own, |joined, (rank, unlike)| joined.with_rank(rank, unlike))
    }
}
