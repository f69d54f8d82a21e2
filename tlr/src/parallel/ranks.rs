//! [`Ranks`]: what the ranks of a training say to each other, and what stops them.

use super::{
    link::{Kind, Link, Message, Traffic, HEAD},
    Communicator,
};
use crate::error::{Error, ParallelError};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The ranks of a training, as one of them sees them. A clone is the same rank.
///
/// Every method that talks has to be called on all ranks, in the same order. If one of them has
/// failed, the error on all names the same rank, and each later call is answered by the same error.
///
/// # Example
/// ```
/// use tlr::parallel::{Ranks, Threads};
///
/// let ranks = Threads::new(2).into_iter().map(|own| std::thread::spawn(move || {
///     let ranks = Ranks::new(own);
///     assert_eq!(ranks.size(), 2);
///     let all = ranks.all_gather(&[ranks.rank() as u8])?; // each says a word, and all hear all
///     assert_eq!(all, [[0], [1]]);
///     let mut word = if ranks.is_first() { b"go".to_vec() } else { Vec::new() };
///     ranks.broadcast(&mut word)?; // the first one says something
///     assert_eq!(word, b"go");
///     assert!(ranks.any(ranks.rank() == 1)?);
///     ranks.wait_for_all()?;
///     assert!(ranks.traffic().messages > 0);
///     Ok::<_, tlr::Error>(())
/// }));
/// for rank in ranks.collect::<Vec<_>>() {
///     rank.join().unwrap()?;
/// }
/// # Ok::<(), tlr::Error>(())
/// ```
pub struct Ranks<C> {
    rank: usize,
    size: usize,
    link: Arc<Mutex<Link<C>>>,
}

/// Bytes of a copy that are sent at a time.
const COPY_PIECE_BYTES: usize = 4 << 20;

impl<C> Clone for Ranks<C> {
    fn clone(&self) -> Self {
        Self { rank: self.rank, size: self.size, link: Arc::clone(&self.link) }
    }
}

impl<C> fmt::Debug for Ranks<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranks").field("rank", &self.rank).field("size", &self.size).finish()
    }
}

impl<C: Communicator> Ranks<C> {
    /// This rank and those that `communicator` reaches.
    ///
    /// Example: [`Ranks`].
    pub fn new(communicator: C) -> Self {
        let (rank, size) = (communicator.rank(), communicator.size());
        Self { rank, size, link: Arc::new(Mutex::new(Link::new(communicator))) }
    }

    /// How long one rank is waited for. Default 5 minutes. It has to be longer than the slowest
    /// rank ever lags behind the fastest, such as the first one while it saves a checkpoint.
    /// If the clock cannot count that far, it is a year.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// use tlr::parallel::{Alone, Ranks};
    ///
    /// let ranks = Ranks::new(Alone).time_out(Duration::from_secs(3600));
    /// ```
    pub fn time_out(self, time_out: Duration) -> Self {
        self.link().time_out = time_out;
        self
    }

    /// This rank, counted from 0.
    ///
    /// Example: [`Ranks`].
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    ///
    /// Example: [`Ranks`].
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this is the first rank, which prints and saves.
    ///
    /// Example: [`Ranks`].
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// What this rank has sent, and how long it has waited, so far.
    ///
    /// Example: [`Ranks`].
    pub fn traffic(&self) -> Traffic {
        self.link().traffic
    }

    /// What each rank has said, in the order of the ranks.
    ///
    /// # Errors
    /// [`Error::Parallel`].
    ///
    /// Example: [`Ranks`].
    pub fn all_gather(&self, words: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.gather_as(Kind::Words, words)
    }

    /// The same as [`all_gather`](Self::all_gather), by messages of this kind: they are not taken
    /// for those of another call.
    pub(super) fn gather_as(&self, kind: Kind, words: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut link = self.link();
        link.begin()?;
        for to in link.others() {
            link.send(to, kind, words)?;
        }
        let mut all = Vec::with_capacity(self.size);
        for from in 0..self.size {
            all.push(match from == self.rank {
                true => words.to_vec(),
                false => link.receive(from, kind)?.split_off(HEAD),
            });
        }
        link.flush()?;
        Ok(all)
    }

    /// Gives every rank the bytes of the first one.
    ///
    /// # Errors
    /// [`Error::Parallel`].
    ///
    /// Example: [`Ranks`].
    pub fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let mut link = self.link();
        link.begin()?;
        // A tree: each rank that has the bytes hands them on to rank + 1, + 2, + 4 and so on.
        let (rank, size) = (self.rank, self.size);
        let parent = rank.checked_sub(1).map(|_| rank - (1 << rank.ilog2()));
        let first = if rank == 0 { 1 } else { 2 << rank.ilog2() };
        let steps = std::iter::successors(Some(first), |step| Some(step * 2));
        let children: Vec<_> =
            steps.map(|step| rank + step).take_while(|child| *child < size).collect();
        let mut len = bytes.len() as u64;
        if let Some(parent) = parent {
            let said = link.receive(parent, Kind::Copy)?.split_off(HEAD);
            len = said.try_into().map_or(0, u64::from_le_bytes);
            *bytes = Vec::new();
        }
        for child in &children {
            link.send(*child, Kind::Copy, &len.to_le_bytes())?;
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        for begin in (0..len).step_by(COPY_PIECE_BYTES) {
            if let Some(parent) = parent {
                let piece = link.receive(parent, Kind::Copy)?;
                bytes.extend_from_slice(piece.get(HEAD..).unwrap_or_default());
                link.send(parent, Kind::Received, &[])?;
            }
            let piece =
                bytes.get(begin..len.min(begin + COPY_PIECE_BYTES)).unwrap_or_default().to_vec();
            for child in &children {
                link.send(*child, Kind::Copy, &piece)?;
            }
            for child in &children {
                link.receive(*child, Kind::Received)?;
            }
        }
        link.flush()
    }

    /// Gives the first rank the bytes of all others, in their order. The others get nothing.
    pub(super) fn collect(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut link = self.link();
        link.begin()?;
        let mut all = Vec::new();
        if self.rank > 0 {
            link.send(0, Kind::Copy, &(own.len() as u64).to_le_bytes())?;
            for piece in own.chunks(COPY_PIECE_BYTES) {
                link.send(0, Kind::Copy, piece)?;
            }
        } else {
            for from in 1..self.size {
                let said = link.receive(from, Kind::Copy)?.split_off(HEAD);
                let len = said.try_into().map_or(0, u64::from_le_bytes);
                let mut bytes = Vec::new();
                for _ in (0..len).step_by(COPY_PIECE_BYTES) {
                    let piece = link.receive(from, Kind::Copy)?;
                    bytes.extend_from_slice(piece.get(HEAD..).unwrap_or_default());
                }
                all.push(bytes);
            }
        }
        link.flush()?;
        Ok(all)
    }

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// [`Error::Parallel`].
    ///
    /// Example: [`Ranks`].
    pub fn wait_for_all(&self) -> Result<(), Error> {
        self.all_gather(&[]).map(|_| ())
    }

    /// Whether `here` is true on any rank.
    ///
    /// # Errors
    /// [`Error::Parallel`].
    ///
    /// Example: [`Ranks`].
    pub fn any(&self, here: bool) -> Result<bool, Error> {
        Ok(self.all_gather(&[u8::from(here)])?.iter().any(|said| said == &[1]))
    }

    /// Succeeds if no rank reports a failure. Otherwise all ranks get an error that names the first
    /// that did: [`ParallelError::Failed`].
    ///
    /// # Errors
    /// [`Error::Parallel`].
    ///
    /// # Example
    /// The second rank cannot go on, and both learn it.
    /// ```
    /// use tlr::{parallel::{Ranks, Threads}, Error, ParallelError};
    ///
    /// let ranks = Threads::new(2).into_iter().map(|own| std::thread::spawn(move || {
    ///     let ranks = Ranks::new(own);
    ///     ranks.confirm((ranks.rank() == 1).then_some("no such file"))
    /// }));
    /// for rank in ranks.collect::<Vec<_>>() {
    ///     let message = "no such file".to_owned();
    ///     let problem = ParallelError::Failed { message };
    ///     let error = Error::Parallel { rank: 1, step: 1, problem };
    ///     assert_eq!(rank.join().unwrap(), Err(error));
    /// }
    /// ```
    pub fn confirm(&self, failure: Option<&str>) -> Result<(), Error> {
        let said = failure.map_or_else(Vec::new, |words| [b"!", words.as_bytes()].concat());
        let all = self.all_gather(&said)?;
        match all.iter().enumerate().find_map(|(rank, said)| Some((rank, said.get(1..)?))) {
            Some((rank, words)) => {
                let message = String::from_utf8_lossy(words).into_owned();
                Err(self.error(rank, ParallelError::Failed { message }))
            }
            None => Ok(()),
        }
    }

    /// As [`confirm`](Self::confirm), for a rank that has failed by this error.
    pub(super) fn confirm_own(&self, failure: Option<&Error>) -> Result<(), Error> {
        self.confirm(failure.map(ToString::to_string).as_deref())
    }

    /// Ends all exchanges, for a rank that cannot go on: every rank that waits for this one gets
    /// this error, and so does each later call.
    ///
    /// # Example
    /// The second rank ends early, while the first one waits for it.
    /// ```
    /// use tlr::parallel::{Ranks, Threads};
    ///
    /// let ranks = Threads::new(2).into_iter().map(|own| std::thread::spawn(move || {
    ///     let ranks = Ranks::new(own);
    ///     match ranks.is_first() {
    ///         true => ranks.wait_for_all(),
    ///         false => {
    ///             ranks.leave("no memory");
    ///             Ok(())
    ///         }
    ///     }
    /// }));
    /// let [first, second] = ranks.collect::<Vec<_>>().try_into().unwrap();
    /// let error = first.join().unwrap().unwrap_err();
    /// assert!(error.to_string().contains("no memory"));
    /// assert_eq!(second.join().unwrap(), Ok(()));
    /// ```
    pub fn leave(&self, words: &str) {
        let problem = ParallelError::Failed { message: words.to_owned() };
        let error = self.error(self.rank, problem);
        self.link().end(error);
    }

    pub(super) fn error(&self, rank: usize, problem: ParallelError) -> Error {
        Error::Parallel { rank, step: self.link().step, problem }
    }

    /// Sets the step that errors name from now on.
    pub(super) fn set_step(&self, step: u64) {
        self.link().step = step;
    }

    /// An exchange of several messages. No other exchange happens meanwhile.
    pub(super) fn exchange<T>(
        &self,
        talk: impl FnOnce(&mut Talk<'_, C>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut link = self.link();
        link.begin()?;
        let said = talk(&mut Talk { link: &mut link })?;
        link.flush()?;
        Ok(said)
    }

    fn link(&self) -> MutexGuard<'_, Link<C>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exchange that is going on.
pub(super) struct Talk<'a, C> {
    link: &'a mut Link<C>,
}

impl<C: Communicator> Talk<'_, C> {
    pub(super) fn send(&mut self, to: usize, kind: Kind, bytes: Vec<u8>) -> Result<(), Error> {
        self.link.send_whole(to, kind, bytes)
    }

    /// The bytes behind a message's head.
    pub(super) fn receive(
        &mut self,
        from: usize,
        kind: Kind,
        len: usize,
    ) -> Result<Message, Error> {
        let message = Message::from(self.link.receive(from, kind)?);
        match message.body().len() {
            found if found == len => Ok(message),
            found => {
                let (expected, found) = (format!("{len} bytes"), format!("{found} bytes"));
                Err(self.link.fail(from, ParallelError::Order { expected, found }))
            }
        }
    }
}
