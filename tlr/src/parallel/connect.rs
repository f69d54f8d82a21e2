//! How ranks with [`Nccl`] find each other.

use super::{
    communicator::TIME_OUT,
    letters::Letter,
    nccl::{foreign, LEAST},
    patience::Patience,
    wires::{Id, Wires},
    Communicator, LinkError, Nccl,
};
use dfdx::tensor::Cuda;
use std::time::{Duration, Instant};

impl<C: Communicator> Nccl<C> {
    /// Connects the GPU of this rank with those of all others, which have to call it too. `mail`
    /// carries the short messages, and must not be used for anything else.
    ///
    /// # Errors
    /// [`LinkError::Transport`] if CUDA or NCCL fails, if two ranks have the same GPU, or if a rank
    /// has not come after `time_out`; it names the rank.
    ///
    /// Example: [`Nccl`].
    pub fn new(device: &Cuda, mail: C, time_out: Duration) -> Result<Self, LinkError> {
        let now = Instant::now();
        let deadline = now.checked_add(time_out).unwrap_or(now + TIME_OUT);
        let wires = Wires::new(device, mail.rank()).map_err(LinkError::Transport)?;
        let mut own = Self::unconnected(wires, mail);
        // The others are told, so that they do not wait.
        own.connect(deadline).map_err(|error| own.lose(error))?;
        own.joins = false;
        Ok(own)
    }

    /// Joins all communicators, one after the other. The order is the same on all ranks.
    fn connect(&mut self, deadline: Instant) -> Result<(), LinkError> {
        let size = self.size();
        if size == 1 {
            return Ok(());
        }
        for of in 0..size {
            self.join(of, deadline)?;
        }
        // NCCL connects two GPUs at their first message. It may then wait for all other work of a
        // GPU, so the first messages are sent while there is no other work.
        for from in 0..size {
            for to in (0..size).filter(|to| *to != from) {
                self.greet(from, to, deadline)?;
            }
        }
        Ok(())
    }

    /// Joins the communicator in which one rank sends.
    fn join(&mut self, of: usize, deadline: Instant) -> Result<(), LinkError> {
        let (own, size) = (self.rank(), self.size());
        let id = match of == own {
            true => {
                let id = Wires::id().map_err(LinkError::Transport)?;
                for to in (0..size).filter(|to| *to != own) {
                    let letter = Letter::Short(id.to_vec());
                    self.write(to, letter).map_err(|error| named(to, error))?;
                }
                id
            }
            false => {
                let said = self.receive(of, deadline).map_err(|error| named(of, error))?;
                Id::try_from(said).map_err(|_| foreign(of))?
            }
        };
        self.wires.join(size, &id).map_err(LinkError::Transport)?;
        let mut patience = Patience::default();
        while !self.wires.has_joined(of).map_err(LinkError::Transport)? {
            // A rank that has ended will not join. The messages of the others are kept.
            self.progress()?;
            if let Some((rank, gone)) = (0..size).find_map(|rank| Some((rank, self.gone(rank)?))) {
                return Err(named(rank, gone));
            }
            if Instant::now() >= deadline {
                let words = "NCCL: a rank has not joined in time: see whether all of them run";
                return Err(LinkError::Transport(words.to_owned()));
            }
            patience.wait();
        }
        Ok(())
    }

    /// Sends a long message from one rank to another.
    fn greet(&mut self, from: usize, to: usize, deadline: Instant) -> Result<(), LinkError> {
        let greeting = || vec![0x5a; LEAST];
        if from == self.rank() {
            self.send(to, greeting()).map_err(|error| named(to, error))?;
            self.flush(deadline).map_err(|(rank, error)| named(rank, error))?;
        } else if to == self.rank() {
            let said = self.receive(from, deadline).map_err(|error| named(from, error))?;
            if said != greeting() {
                return Err(foreign(from));
            }
        }
        Ok(())
    }
}

/// Adds to an error which rank could not be connected, unless the error has words of its own.
fn named(rank: usize, error: LinkError) -> LinkError {
    match error {
        LinkError::Transport(words) => LinkError::Transport(words),
        error => LinkError::Transport(format!("NCCL cannot connect to rank {rank}: {error}")),
    }
}
