//! [`Communicator`]: what carries messages between the ranks of a training.

use std::time::{Duration, Instant};

/// Carries messages between ranks: processes or threads that train one model together.
///
/// Two things are asked of it: to send without waiting, and to receive what one other rank has
/// sent, in the order in which it was sent. [`Ranks`](super::Ranks) makes all else of these two. So
/// a sum is taken in the same order on every rank, whatever carries the messages. Implemented by
/// [`Alone`](super::Alone), [`Threads`](super::Threads) and, with the features of these names,
/// `Mpi` and `Nccl`.
///
/// # Example
/// ```
/// use tlr::parallel::{Communicator, Threads};
/// use std::time::{Duration, Instant};
///
/// let mut ranks = Threads::new(2).into_iter();
/// let (mut first, mut second) = (ranks.next().unwrap(), ranks.next().unwrap());
/// first.send(1, b"hello".to_vec())?;
/// let soon = Instant::now() + Duration::from_secs(1);
/// assert_eq!(second.receive(0, soon)?, b"hello");
/// # Ok::<(), tlr::parallel::LinkError>(())
/// ```
pub trait Communicator {
    /// This rank, counted from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Sends a message to another rank, and returns before it has arrived.
    ///
    /// # Errors
    /// [`LinkError::Ended`] if the other rank is known to have ended; [`LinkError::Transport`].
    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), LinkError>;

    /// The next message that another rank has sent to this one. If the deadline has passed already,
    /// it only looks whether a message is there. If none is, the other rank does not count as lost.
    ///
    /// # Errors
    /// [`LinkError::TimeOut`] if none is there before `deadline`; [`LinkError::Ended`] if none can
    /// come; [`LinkError::Transport`].
    fn receive(&mut self, from: usize, deadline: Instant) -> Result<Vec<u8>, LinkError>;

    /// Returns when all that was sent is on its way without further help of this rank, which may
    /// then compute for long. By default it returns at once.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), with the rank that does not take the messages sent to it.
    fn flush(&mut self, deadline: Instant) -> Result<(), (usize, LinkError)> {
        let _ = deadline;
        Ok(())
    }
}

/// Why a message could not be sent or received.
///
/// Example: [`Communicator`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nothing came in time.
    #[error("nothing came in time")]
    TimeOut,
    /// The other rank has ended.
    #[error("the other rank has ended")]
    Ended,
    /// What carries the messages has failed, in its own words.
    #[error("{0}")]
    Transport(String),
}

/// How long a rank is waited for by default.
pub(super) const TIME_OUT: Duration = Duration::from_secs(300);

/// For programs that choose their communicator while they run.
impl<C: Communicator + ?Sized> Communicator for Box<C> {
    fn rank(&self) -> usize {
        (**self).rank()
    }

    fn size(&self) -> usize {
        (**self).size()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), LinkError> {
        (**self).send(to, message)
    }

    fn receive(&mut self, from: usize, deadline: Instant) -> Result<Vec<u8>, LinkError> {
        (**self).receive(from, deadline)
    }

    fn flush(&mut self, deadline: Instant) -> Result<(), (usize, LinkError)> {
        (**self).flush(deadline)
    }
}
