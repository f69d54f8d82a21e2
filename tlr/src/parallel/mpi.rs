//! [`Mpi`]: ranks that are the processes of one `mpirun`.

use super::{patience::Patience, Communicator, LinkError};
use ::mpi::{
    datatype::Equivalence,
    environment::Universe,
    point_to_point::Message as Incoming,
    request::{Request, StaticScope},
    topology::SimpleCommunicator,
    traits::{Communicator as _, Destination, Source},
    Threading,
};
use std::{fmt, mem::ManuallyDrop, time::Instant};

/// This process, as one of those that `mpirun` has started. Without `mpirun` it is the only one.
///
/// All calls have to come from one thread at a time. MPI is left when this is dropped, unless a
/// rank was lost: then leaving would block for ever.
///
/// # Example
/// ```no_run
/// use tlr::parallel::{Mpi, Ranks};
///
/// let ranks = Ranks::new(Mpi::new()?);
/// println!("rank {} of {}", ranks.rank(), ranks.size());
/// # Ok::<(), tlr::parallel::LinkError>(())
/// ```
pub struct Mpi {
    /// It is dropped by hand, or never if a rank was lost.
    universe: ManuallyDrop<Universe>,
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    /// Messages that MPI may still read.
    sending: Vec<Sending>,
    lost: bool,
}

type Received = Result<Vec<u8>, LinkError>;

/// A message on its way.
struct Sending {
    to: usize,
    request: Request<'static, [u8], StaticScope>,
    /// What `request` reads from. It is neither moved nor changed before the request is done.
    message: Vec<u8>,
}

impl Mpi {
    /// Enters MPI.
    ///
    /// # Errors
    /// [`LinkError::Transport`] if this process has entered it before, if the MPI library cannot be
    /// used by a program of several threads, or if it reports an impossible rank.
    ///
    /// Example: [`Mpi`].
    pub fn new() -> Result<Self, LinkError> {
        let transport = |words: &str| LinkError::Transport(words.to_owned());
        let Some((universe, threading)) = ::mpi::initialize_with_threading(Threading::Serialized)
        else {
            return Err(transport(
                "MPI was entered before: keep the first `Mpi` and clone `Ranks`",
            ));
        };
        // `Ranks` may move to another thread, which `Funneled` does not allow.
        if threading < Threading::Serialized {
            return Err(transport(
                "this MPI library allows calls from the program's first thread only: take one \
                 that supports MPI_THREAD_SERIALIZED",
            ));
        }
        let world = universe.world();
        let (rank, size) = (world.rank(), world.size());
        let (Ok(rank), Ok(size)) = (rank.try_into(), size.try_into()) else {
            return Err(transport("the MPI library reports an impossible rank"));
        };
        let universe = ManuallyDrop::new(universe);
        Ok(Self { universe, world, rank, size, sending: Vec::new(), lost: false })
    }

    /// Ends all processes of this `mpirun`, for a program that cannot go on. Otherwise the
    /// processes that wait for this one would wait until their time-out.
    ///
    /// # Example
    /// ```no_run
    /// use tlr::parallel::Mpi;
    ///
    /// let mpi = Mpi::new()?;
    /// if std::fs::metadata("data").is_err() {
    ///     mpi.abort(1); // the other ranks need not wait
    /// }
    /// # Ok::<(), tlr::parallel::LinkError>(())
    /// ```
    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }

    /// Receives the rest of a message that has begun to arrive.
    fn take(&mut self, message: Incoming, len: usize, deadline: Instant) -> Received {
        let mut bytes = vec![0; len];
        // SAFETY: the slice is that of `bytes`, on the heap. The vector is neither moved out of its
        // place there nor read before MPI has said that the request is done; where that does not
        // come in time, it is leaked.
        #[allow(unsafe_code)]
        let lent: &'static mut [u8] =
            unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr(), bytes.len()) };
        let mut request = message.immediate_matched_receive_into(StaticScope, lent);
        let mut patience = Patience::default();
        loop {
            request = match request.test() {
                Ok(_) => return Ok(bytes),
                Err(request) if Instant::now() < deadline => request,
                Err(request) => {
                    std::mem::forget((request, bytes));
                    self.lost = true;
                    return Err(LinkError::TimeOut);
                }
            };
            patience.wait();
        }
    }

    /// A rank's number, as MPI has it.
    fn number(&self, rank: usize) -> Result<i32, LinkError> {
        let number = i32::try_from(rank).ok().filter(|_| rank < self.size);
        number.ok_or(LinkError::Ended)
    }

    /// Forgets the messages that have left.
    fn reap(&mut self) {
        let waiting = std::mem::take(&mut self.sending);
        for Sending { to, request, message } in waiting {
            if let Err(request) = request.test() {
                self.sending.push(Sending { to, request, message });
            }
        }
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), LinkError> {
        self.reap();
        let number = self.number(to)?;
        length(message.len())?;
        // SAFETY: the slice is that of `message`, on the heap. The vector is kept beside the
        // request, and is dropped only after MPI has said that the request is done; where it never
        // is, both are leaked (see `Drop`). Until then nothing writes to it.
        #[allow(unsafe_code)]
        let lent: &'static [u8] =
            unsafe { std::slice::from_raw_parts(message.as_ptr(), message.len()) };
        let request = self.world.process_at_rank(number).immediate_send(StaticScope, lent);
        self.sending.push(Sending { to, request, message });
        Ok(())
    }

    fn receive(&mut self, from: usize, deadline: Instant) -> Result<Vec<u8>, LinkError> {
        let number = self.number(from)?;
        let only_asks = Instant::now() >= deadline;
        let mut patience = Patience::default();
        loop {
            // To ask MPI also moves on the messages that this rank sends.
            if let Some((message, status)) =
                self.world.process_at_rank(number).immediate_matched_probe()
            {
                let len = usize::try_from(status.count(u8::equivalent_datatype()));
                let unknown = |_| LinkError::Transport("MPI: a message has no length".to_owned());
                return self.take(message, len.map_err(unknown)?, deadline);
            }
            if Instant::now() >= deadline {
                // The other rank counts as lost only if this one has waited for it.
                self.lost |= !only_asks;
                return Err(LinkError::TimeOut);
            }
            patience.wait();
        }
    }

    fn flush(&mut self, deadline: Instant) -> Result<(), (usize, LinkError)> {
        let mut patience = Patience::default();
        loop {
            self.reap();
            let Some(Sending { to, .. }) = self.sending.first() else { return Ok(()) };
            if Instant::now() >= deadline {
                self.lost = true;
                return Err((*to, LinkError::TimeOut));
            }
            patience.wait();
        }
    }
}

/// The length of a message, as MPI has it: rsmpi panics for one that it cannot count.
fn length(bytes: usize) -> Result<i32, LinkError> {
    let words = "MPI: a message has 2 GiB at most: choose smaller buckets, or send it in pieces";
    i32::try_from(bytes).map_err(|_| LinkError::Transport(words.to_owned()))
}

impl Drop for Mpi {
    fn drop(&mut self) {
        self.reap();
        if self.lost || !self.sending.is_empty() {
            // MPI may still read these.
            std::mem::take(&mut self.sending).into_iter().for_each(std::mem::forget);
            return;
        }
        // SAFETY: it is dropped here and nowhere else, and not used after that.
        #[allow(unsafe_code)]
        unsafe {
            ManuallyDrop::drop(&mut self.universe);
        }
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank).field("size", &self.size).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if a message goes to MPI that it cannot count.
    #[test]
    fn a_message_of_two_gibibytes_is_refused() {
        assert_eq!(length(i32::MAX as usize), Ok(i32::MAX));
        assert!(matches!(length(i32::MAX as usize + 1), Err(LinkError::Transport(_))));
    }
}
