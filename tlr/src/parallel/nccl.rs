//! [`Nccl`]: ranks whose GPUs send each other the long messages.

use super::{
    letters::Letter,
    patience::{Patience, NAP},
    wires::{Wires, NCCL_PIECE_BYTES},
    Communicator, LinkError,
};
use std::{collections::VecDeque, fmt, time::Instant};

/// Lets the GPUs of several ranks carry long messages, by NCCL. Short ones, and all that has to be
/// said about the long ones, go by another communicator: [`Threads`](super::Threads) or `Mpi`.
///
/// Each rank needs a GPU of its own. NCCL finds the way between them: NVLink, PCIe or a network. A
/// message is copied from the host to this rank's GPU, goes from there to the other one, and is
/// copied to the host there: gradients are averaged on the host, in the same order whatever carries
/// them, so every rank receives the same bits as with any other communicator. What NCCL saves is
/// the way between the GPUs' machines, or between two processes of one. It does not save the copies
/// to and from the host.
///
/// NCCL has no time-outs and no messages of unknown length, and what it sends waits until it is
/// received. So a piece of a message goes on its way only when the other rank has said that it
/// waits for it, and ranks may send to each other in any order. A rank that does not answer in time
/// is given up like with any other communicator. Then no rank sends anything long any more, and no
/// GPU is left waiting.
///
/// An `Nccl` stays on the thread that has made it.
///
/// # Example
/// Two ranks, here as threads of one process, with a GPU each. With several processes, `Mpi` takes
/// the place of `Threads`.
/// ```no_run
/// use dfdx::prelude::*;
/// use std::time::Duration;
/// use tlr::parallel::{Nccl, Ranks, Threads};
///
/// let threads = Threads::new(2).into_iter().zip(0..).map(|(own, gpu)| {
///     std::thread::spawn(move || {
///         let dev = Cuda::try_build(gpu, 0).unwrap();
///         let ranks = Ranks::new(Nccl::new(&dev, own, Duration::from_secs(60))?);
///         let mut long = if ranks.is_first() { vec![7; 1 << 24] } else { Vec::new() };
///         ranks.broadcast(&mut long)?;
///         assert!(long == vec![7; 1 << 24]);
///         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
///     })
/// });
/// for thread in threads.collect::<Vec<_>>() {
///     thread.join().unwrap().unwrap();
/// }
/// ```
pub struct Nccl<C> {
    mail: C,
    pub(super) wires: Wires,
    others: Vec<OtherRank>,
    /// The ranks that wait for a piece from this one, in the order in which they have asked.
    asking: VecDeque<usize>,
    /// The rank to which a piece is on its way, and whether that rank has said that the piece is
    /// there.
    flying: Option<(usize, bool)>,
    /// Whether the ranks are still being connected.
    pub(super) joins: bool,
    /// Whether no long message travels any more. `broken` says why, if this rank has found it out.
    over: bool,
    broken: Option<LinkError>,
}

/// Another rank, and the messages between that rank and this one.
#[derive(Default)]
struct OtherRank {
    /// The letters that the other rank has sent, and that are not read yet.
    letters: VecDeque<Letter>,
    /// Long messages to the other rank, and how many bytes of the first one have arrived there.
    leaving: VecDeque<Vec<u8>>,
    sent: usize,
    /// Why no letter of the other rank can come any more.
    gone: Option<LinkError>,
}

/// Messages of fewer bytes go by letter: to copy them to a GPU and back would take longer.
pub(super) const LEAST: usize = 16 << 10;

impl<C: Communicator> Nccl<C> {
    /// This rank, which is connected with no other one yet.
    pub(super) fn unconnected(wires: Wires, mail: C) -> Self {
        let others = (0..mail.size()).map(|_| OtherRank::default()).collect();
        let (asking, flying) = (VecDeque::new(), None);
        Self { mail, wires, others, asking, flying, joins: true, over: false, broken: None }
    }

    pub(super) fn write(&mut self, to: usize, letter: Letter) -> Result<(), LinkError> {
        self.mail.send(to, letter.seal()).map_err(|error| self.lose(error))
    }

    /// Reads all letters that are there, and sends the next piece that a rank has asked for.
    pub(super) fn progress(&mut self) -> Result<(), LinkError> {
        self.read_mail()?;
        match self.over {
            false => self.send_pieces().map_err(|words| self.break_off(words)),
            true if self.joins => {
                let words = "NCCL: another rank cannot be connected; its own error says why";
                Err(LinkError::Transport(words.to_owned()))
            }
            // The GPU's operations have ended, so NCCL is not asked about them.
            true => Ok(()),
        }
    }

    fn read_mail(&mut self) -> Result<(), LinkError> {
        let own = self.rank();
        for from in (0..self.others.len()).filter(|from| *from != own) {
            while self.others.get(from).is_some_and(|other| other.gone.is_none()) {
                match self.mail.receive(from, Instant::now()) {
                    Ok(letter) => self.open(from, letter)?,
                    Err(LinkError::TimeOut) => break,
                    Err(error) => {
                        if let Some(other) = self.others.get_mut(from) {
                            other.gone = Some(error);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, from: usize, letter: Vec<u8>) -> Result<(), LinkError> {
        let Some(other) = self.others.get_mut(from) else { return Ok(()) };
        match (Letter::open(letter).ok_or_else(|| foreign(from))?, &mut self.flying) {
            (Letter::Asks, _) => self.asking.push_back(from),
            (Letter::Has, Some((to, has))) if *to == from => *has = true,
            // The other rank sent this letter before it learned that no long message travels any
            // more.
            (Letter::Has, _) if self.over => (),
            (Letter::Has, _) => return Err(foreign(from)),
            (Letter::Lost, _) => self.end(),
            (letter, _) => other.letters.push_back(letter),
        }
        Ok(())
    }

    /// Sends one piece at a time, to the rank that has asked first. A piece has arrived when the
    /// other rank says so: NCCL may be done with it here while the other GPU still reads it.
    fn send_pieces(&mut self) -> Result<(), String> {
        if let Some((to, has)) = self.flying {
            if !self.wires.has_sent()? || !has {
                return Ok(());
            }
            self.flying = None;
            if let Some(OtherRank { leaving, sent, .. }) = self.others.get_mut(to) {
                *sent += NCCL_PIECE_BYTES;
                if leaving.front().is_none_or(|message| *sent >= message.len()) {
                    leaving.pop_front();
                    *sent = 0;
                }
            }
        }
        let Some(to) = self.asking.pop_front() else { return Ok(()) };
        let Some(OtherRank { leaving, sent, .. }) = self.others.get(to) else { return Ok(()) };
        let Some(rest) = leaving.front().and_then(|message| message.get(*sent..)) else {
            return Err(format!("rank {to} asks for what was not sent to it"));
        };
        self.flying = Some((to, false));
        self.wires.send(to, rest.get(..NCCL_PIECE_BYTES).unwrap_or(rest))
    }

    /// Receives a long message, piece by piece. None if it can no longer come.
    fn fetch(
        &mut self,
        from: usize,
        len: usize,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, LinkError> {
        let mut message = vec![0; len];
        for piece in message.chunks_mut(NCCL_PIECE_BYTES) {
            // The GPU waits for the piece before the other rank is asked for it.
            self.wires.receive(from, piece.len()).map_err(|words| self.break_off(words))?;
            self.write(from, Letter::Asks)?;
            let mut patience = Patience::default();
            loop {
                self.progress()?;
                if self.over {
                    return Ok(None);
                }
                if self.wires.has_received(piece).map_err(|words| self.break_off(words))? {
                    break;
                }
                if let Some(gone) = self.gone(from) {
                    return Err(self.lose(gone));
                }
                if Instant::now() >= deadline {
                    return Err(self.give_up(from));
                }
                patience.wait();
            }
            self.write(from, Letter::Has)?;
        }
        Ok(Some(message))
    }

    /// Ends all long messages, because CUDA or NCCL has failed.
    fn break_off(&mut self, words: String) -> LinkError {
        self.lose(LinkError::Transport(words))
    }

    /// Notes that this rank has lost another one, or its own GPU, and ends all long messages.
    pub(super) fn lose(&mut self, error: LinkError) -> LinkError {
        self.broken.get_or_insert_with(|| error.clone());
        self.end();
        error
    }

    /// Ends all long messages, on this GPU and on the others, so that no GPU is left waiting.
    /// Letters that say why are still read.
    fn end(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.wires.hang_up();
        let own = self.rank();
        for (to, other) in self.others.iter_mut().enumerate().filter(|(to, _)| *to != own) {
            other.leaving.clear();
            // The other rank may be the one that has ended. Then the letter goes nowhere.
            let _ = self.mail.send(to, Letter::Lost.seal());
        }
    }

    /// Gives up a rank that has not answered in time.
    fn give_up(&mut self, rank: usize) -> LinkError {
        // The deadline is still to come, so that the communicator that carries the letters counts
        // the rank as lost.
        if let Ok(letter) = self.mail.receive(rank, Instant::now() + NAP) {
            let _ = self.open(rank, letter);
        }
        self.lose(LinkError::TimeOut)
    }

    pub(super) fn gone(&self, rank: usize) -> Option<LinkError> {
        self.others.get(rank)?.gone.clone()
    }
}

impl<C: Communicator> Communicator for Nccl<C> {
    fn rank(&self) -> usize {
        self.mail.rank()
    }

    fn size(&self) -> usize {
        self.mail.size()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), LinkError> {
        if message.len() < LEAST {
            return self.write(to, Letter::Short(message));
        }
        if self.over {
            // If another rank has found it out, this one learns the reason from its next message.
            return self.broken.clone().map_or(Ok(()), Err);
        }
        self.write(to, Letter::Long(message.len()))?;
        if let Some(other) = self.others.get_mut(to) {
            other.leaving.push_back(message);
        }
        // This also moves on the messages that were sent before.
        self.progress()
    }

    fn receive(&mut self, from: usize, deadline: Instant) -> Result<Vec<u8>, LinkError> {
        let only_asks = Instant::now() >= deadline;
        let mut patience = Patience::default();
        loop {
            self.progress()?;
            let Some(other) = self.others.get_mut(from) else { return Err(LinkError::Ended) };
            match other.letters.pop_front() {
                Some(Letter::Short(message)) => return Ok(message),
                // The long message cannot come any more. A later letter may say why.
                Some(Letter::Long(_)) if self.over => continue,
                Some(Letter::Long(len)) if only_asks => {
                    other.letters.push_front(Letter::Long(len));
                    return Err(LinkError::TimeOut);
                }
                Some(Letter::Long(len)) => match self.fetch(from, len, deadline)? {
                    Some(message) => return Ok(message),
                    None => continue,
                },
                // Letters of other kinds are never kept.
                Some(_) | None => (),
            }
            if let Some(gone) = other.gone.clone() {
                return Err(self.lose(gone));
            }
            if Instant::now() >= deadline {
                return Err(if only_asks { LinkError::TimeOut } else { self.give_up(from) });
            }
            patience.wait();
        }
    }

    fn flush(&mut self, deadline: Instant) -> Result<(), (usize, LinkError)> {
        let first =
            |others: &[OtherRank]| others.iter().position(|other| !other.leaving.is_empty());
        let mut patience = Patience::default();
        loop {
            let to = first(&self.others).unwrap_or(0);
            self.progress().map_err(|error| (to, error))?;
            let Some(to) = first(&self.others) else { return self.mail.flush(deadline) };
            if let Some(gone) = self.gone(to) {
                return Err((to, self.lose(gone)));
            }
            if Instant::now() >= deadline {
                return Err((to, self.give_up(to)));
            }
            patience.wait();
        }
    }
}

/// The error for a letter that no rank of this version sends.
pub(super) fn foreign(rank: usize) -> LinkError {
    let words = "sends what is not understood: all ranks need `Nccl`, of the same version";
    LinkError::Transport(format!("rank {rank} {words}"))
}

impl<C: Communicator> fmt::Debug for Nccl<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nccl").field("rank", &self.rank()).field("size", &self.size()).finish()
    }
}
