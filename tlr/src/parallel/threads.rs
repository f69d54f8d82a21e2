//! [`Threads`]: ranks that are threads of one process.

use super::{Communicator, LinkError};
use std::{
    sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender},
    time::Instant,
};

/// One of several ranks that are threads of one process. Tests need no more than these.
///
/// Each rank owns one, and a rank has ended when its own is dropped.
///
/// # Example
/// ```
/// use tlr::parallel::{Ranks, Threads};
///
/// let threads: Vec<_> = Threads::new(3)
///     .into_iter()
///     .map(|own| std::thread::spawn(move || {
///         let ranks = Ranks::new(own);
///         ranks.all_gather(&[ranks.rank() as u8])
///     }))
///     .collect();
/// for thread in threads {
///     assert_eq!(thread.join().unwrap()?, [[0], [1], [2]]);
/// }
/// # Ok::<(), tlr::Error>(())
/// ```
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    /// The senders to each rank. The one to itself is never used.
    to: Vec<Sender<Vec<u8>>>,
    /// The receivers from each rank.
    from: Vec<Receiver<Vec<u8>>>,
}

impl Threads {
    /// Makes `size` ranks, at least one, in their order.
    ///
    /// Example: [`Threads`].
    // Clippy expects `new` to return `Self`. Here it makes all ranks, and each `Self` is one of
    // them.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(size: usize) -> Vec<Self> {
        let size = size.max(1);
        let mut senders: Vec<Vec<_>> = (0..size).map(|_| Vec::new()).collect();
        let mut receivers = Vec::new();
        for _ in 0..size {
            let mut from = Vec::new();
            for to in &mut senders {
                let (sender, receiver) = channel();
                to.push(sender);
                from.push(receiver);
            }
            receivers.push(from);
        }
        let ranks = senders.into_iter().zip(receivers).enumerate();
        ranks.map(|(rank, (to, from))| Self { rank, to, from }).collect()
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), LinkError> {
        let sender = self.to.get(to).ok_or(LinkError::Ended)?;
        sender.send(message).map_err(|_| LinkError::Ended)
    }

    fn receive(&mut self, from: usize, deadline: Instant) -> Result<Vec<u8>, LinkError> {
        let receiver = self.from.get(from).ok_or(LinkError::Ended)?;
        let left = deadline.saturating_duration_since(Instant::now());
        receiver.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => LinkError::TimeOut,
            RecvTimeoutError::Disconnected => LinkError::Ended,
        })
    }
}
