//! [`Link`]: messages with a head that says what they are, and the end of all exchanges.

use super::{communicator::TIME_OUT, Communicator, LinkError};
use crate::error::{Error, ParallelError};
use std::time::{Duration, Instant};

/// The messages that one rank has sent, and the time that it has waited.
///
/// Example: [`Ranks`](super::Ranks).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Messages that were sent.
    pub messages: u64,
    /// Bytes that were sent in them.
    pub bytes: u64,
    /// How long this rank has waited for others.
    pub waited: Duration,
}

/// A communicator, with the state of the exchanges.
pub(super) struct Link<C> {
    communicator: C,
    pub(super) time_out: Duration,
    /// The number of this exchange. Each message carries it; one with another number is an error.
    exchange: u32,
    /// The step that is being made, counted from 1.
    pub(super) step: u64,
    pub(super) traffic: Traffic,
    /// The error after which this rank exchanges no more messages.
    broken: Option<Error>,
}

/// What a message is. It stands in its first byte, and the number of the exchange in the next four.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Words = 1,
    Parts = 2,
    Means = 3,
    Copy = 4,
    Received = 5,
    Failure = 6,
    Numbers = 7,
}

pub(super) const HEAD: usize = 5;

/// How long a rank that has failed tries to send the others the reason.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The longest wait, a year. It replaces a time-out that is too long for the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A message whose head was read.
pub(super) struct Message(Vec<u8>);

impl From<Vec<u8>> for Message {
    fn from(whole: Vec<u8>) -> Self {
        Self(whole)
    }
}

impl Message {
    pub(super) fn body(&self) -> &[u8] {
        body(&self.0)
    }
}

/// Memory for a message of `len` bytes: its head, which is written when it is sent, and zeros.
pub(super) fn blank(len: usize) -> Vec<u8> {
    vec![0; HEAD + len]
}

/// The bytes behind the head.
pub(super) fn body(message: &[u8]) -> &[u8] {
    message.get(HEAD..).unwrap_or_default()
}

/// The bytes behind the head, to be written.
pub(super) fn body_mut(message: &mut [u8]) -> &mut [u8] {
    message.get_mut(HEAD..).unwrap_or_default()
}

impl<C: Communicator> Link<C> {
    pub(super) fn new(communicator: C) -> Self {
        Self {
            communicator,
            time_out: TIME_OUT,
            exchange: 0,
            step: 1,
            traffic: Traffic::default(),
            broken: None,
        }
    }

    pub(super) fn others(&self) -> Vec<usize> {
        let own = self.communicator.rank();
        (0..self.communicator.size()).filter(|rank| *rank != own).collect()
    }

    pub(super) fn begin(&mut self) -> Result<(), Error> {
        self.exchange = self.exchange.wrapping_add(1);
        self.broken.clone().map_or(Ok(()), Err)
    }

    pub(super) fn send(&mut self, to: usize, kind: Kind, bytes: &[u8]) -> Result<(), Error> {
        let mut message = blank(bytes.len());
        body_mut(&mut message).copy_from_slice(bytes);
        self.send_whole(to, kind, message)
    }

    pub(super) fn send_whole(
        &mut self,
        to: usize,
        kind: Kind,
        mut message: Vec<u8>,
    ) -> Result<(), Error> {
        if let Some(head) = message.first_chunk_mut::<HEAD>() {
            let [a, b, c, d] = self.exchange.to_le_bytes();
            *head = [kind as u8, a, b, c, d];
        }
        self.traffic.messages += 1;
        self.traffic.bytes += message.len() as u64;
        match self.communicator.send(to, message) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(to, error)),
        }
    }

    /// The next message of a rank, which has to be one of this exchange.
    pub(super) fn receive(&mut self, from: usize, kind: Kind) -> Result<Vec<u8>, Error> {
        let begun = Instant::now();
        let received = self.communicator.receive(from, self.deadline(begun));
        self.traffic.waited += begun.elapsed();
        let message = match received {
            Ok(message) => message,
            Err(error) => return Err(self.lost(from, error)),
        };
        let [a, b, c, d] = self.exchange.to_le_bytes();
        match message.first_chunk::<HEAD>() {
            Some([first, ..]) if *first == Kind::Failure as u8 => Err(self.told(from, &message)),
            Some(head) if *head == [kind as u8, a, b, c, d] => Ok(message),
            Some([found, a, b, c, d]) => {
                let number = u32::from_le_bytes([*a, *b, *c, *d]);
                let found = format!("{} of exchange {number}", name(*found));
                let expected = format!("{} of exchange {}", name(kind as u8), self.exchange);
                Err(self.fail(from, ParallelError::Order { expected, found }))
            }
            None => {
                let (expected, found) = (name(kind as u8).to_owned(), "no message".to_owned());
                Err(self.fail(from, ParallelError::Order { expected, found }))
            }
        }
    }

    /// The error by which any of the other ranks has ended all exchanges. The search discards all
    /// other messages.
    fn failure_told(&mut self) -> Option<Error> {
        self.others().into_iter().find_map(|rank| self.failure_told_by(rank))
    }

    fn failure_told_by(&mut self, rank: usize) -> Option<Error> {
        while let Ok(message) = self.communicator.receive(rank, Instant::now()) {
            if message.first() == Some(&(Kind::Failure as u8)) {
                return Some(self.told(rank, &message));
            }
        }
        None
    }

    /// Notes the error by which another rank has ended all exchanges.
    fn told(&mut self, by: usize, message: &[u8]) -> Error {
        let said = body(message);
        let error = match serde_json::from_slice::<(usize, u64, ParallelError)>(said) {
            Ok((rank, step, problem)) => Error::Parallel { rank, step, problem },
            Err(_) => self.error(by, ParallelError::Ended),
        };
        self.broken = Some(error.clone());
        error
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let flushed = self.communicator.flush(self.deadline(begun));
        self.traffic.waited += begun.elapsed();
        flushed.map_err(|(rank, error)| self.lost(rank, error))
    }

    /// The moment at which an exchange that began at `begun` is given up.
    fn deadline(&self, begun: Instant) -> Instant {
        begun.checked_add(self.time_out).unwrap_or(begun + LONGEST_WAIT)
    }

    fn error(&self, rank: usize, problem: ParallelError) -> Error {
        Error::Parallel { rank, step: self.step, problem }
    }

    fn lost(&mut self, rank: usize, error: LinkError) -> Error {
        // The other rank may have left because a third one failed. And a rank that was suspended
        // may find, once it goes on, that the others reported a failure long ago.
        if let Some(error) = self.failure_told() {
            return error;
        }
        let problem = match error {
            LinkError::TimeOut => ParallelError::TimeOut { seconds: self.time_out.as_secs_f64() },
            LinkError::Ended => ParallelError::Ended,
            LinkError::Transport(message) => ParallelError::Transport { message },
        };
        self.fail(rank, problem)
    }

    /// Ends all exchanges, and sends the other ranks the reason.
    pub(super) fn fail(&mut self, rank: usize, problem: ParallelError) -> Error {
        let error = self.error(rank, problem);
        self.end(error.clone());
        error
    }

    pub(super) fn end(&mut self, error: Error) {
        if self.broken.is_some() {
            return;
        }
        if let Error::Parallel { rank, step, problem } = &error {
            // JSON can write all of this: it is numbers and words.
            let said = serde_json::to_vec(&(rank, step, problem)).unwrap_or_default();
            for to in self.others() {
                let mut message = blank(said.len());
                body_mut(&mut message).copy_from_slice(&said);
                if let Some(first) = message.first_mut() {
                    *first = Kind::Failure as u8;
                }
                // The receiver may be the rank that has ended. Then the message is lost.
                let _ = self.communicator.send(to, message);
            }
            let _ = self.communicator.flush(Instant::now() + LAST_WORDS);
        }
        self.broken = Some(error);
    }
}

fn name(kind: u8) -> &'static str {
    const NAMES: [&str; 7] = [
        "words",
        "parts of sums",
        "means",
        "a copy",
        "a receipt",
        "a failure",
        "parts of snapshots",
    ];
    usize::from(kind).checked_sub(1).and_then(|kind| NAMES.get(kind)).unwrap_or(&"something")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::Threads, *};

    // Fails if a deadline that no clock can show is a panic.
    #[test]
    fn the_longest_time_out_there_is() {
        let mut links = Threads::new(2).into_iter().map(|own| {
            let mut link = Link::new(own);
            link.time_out = Duration::MAX;
            link.begin().unwrap();
            link
        });
        let (mut first, mut second) = (links.next().unwrap(), links.next().unwrap());
        first.send(1, Kind::Words, b"here").unwrap();
        first.flush().unwrap();
        assert_eq!(body(&second.receive(0, Kind::Words).unwrap()), b"here");
    }
}
